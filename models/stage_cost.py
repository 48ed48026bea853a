"""What a pass, or any part of one, costs: the one record every number of fxmeter travels in."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any

GIB = 2**30
TERA = 10**12


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """Exact counts for an op, a module or a whole stage.

    Every field is an integer of any size (hand-written layer models and closed forms may also put numpy arrays
    or sympy expressions in them). Costs of parts that run one after another add up with ``+``; ``n * cost`` is
    the cost of n identical parts. The two peaks are not sums: ``a + b`` has the larger of both, ``n * a`` that of a.

    FLOPs count 2 per multiply-accumulate. Bytes follow each tensor's own dtype.
    """

    matmul_flops: Any = 0
    """Matrix products, convolutions and attention cores, 2 per multiply-accumulate."""
    vector_flops: Any = 0
    """All other floating-point arithmetic, by the table that ``fxmeter ops`` prints."""
    weight_read_bytes: Any = 0
    """Parameters and buffers read: rows of an embedding, expected distinct routed experts."""
    kv_read_bytes: Any = 0
    """Cache entries read."""
    kv_write_bytes: Any = 0
    """New cache entries written."""
    activation_read_bytes: Any = 0
    """Every other tensor read (inputs of the pass included)."""
    activation_write_bytes: Any = 0
    """Every other tensor written."""
    fused_io_bytes: Any = 0
    """What is left of ``io_bytes`` once pointwise and reduction chains are fused
    (:mod:`fxmeter.annotators.pricing.fusion`)."""
    activation_bytes: Any = 0
    """Total size of the tensors materialised: new storage that is neither weight nor cache."""
    peak_activation_bytes: Any = 0
    """The most of it alive at one moment, as eager execution lets go of tensors (of a part: while it runs)."""
    ideal_peak_activation_bytes: Any = 0
    """The same if every tensor were freed right after its last use."""
    kv_bytes: Any = 0
    """Cache and recurrent state resident after the pass."""
    weight_bytes: Any = 0
    """Parameters resident, tied ones once."""

    @property
    def flops(self) -> Any:
        """All floating-point operations."""
        return self.matmul_flops + self.vector_flops

    @property
    def io_bytes(self) -> Any:
        """All bytes moved, op by op, as PyTorch eager executes the graph."""
        return (
            self.weight_read_bytes
            + self.kv_read_bytes
            + self.kv_write_bytes
            + self.activation_read_bytes
            + self.activation_write_bytes
        )

    @property
    def flops_tflops(self) -> Any:
        """``flops`` in TFLOP (1e12 floating-point operations)."""
        return self.flops / TERA

    @property
    def io_tb(self) -> Any:
        """``io_bytes`` in terabytes (1e12 bytes)."""
        return self.io_bytes / TERA

    @property
    def activations_gb(self) -> Any:
        """``activation_bytes`` in units of 2^30 bytes."""
        return self.activation_bytes / GIB

    @property
    def peak_activations_gb(self) -> Any:
        """``peak_activation_bytes`` in units of 2^30 bytes."""
        return self.peak_activation_bytes / GIB

    @property
    def kv_gb(self) -> Any:
        """``kv_bytes`` in units of 2^30 bytes."""
        return self.kv_bytes / GIB

    @property
    def weights_gb(self) -> Any:
        """``weight_bytes`` in units of 2^30 bytes."""
        return self.weight_bytes / GIB

    @property
    def arithmetic_intensity(self) -> Any:
        """FLOP per byte moved; 0 for a part that moves nothing."""
        if isinstance(self.io_bytes, int) and self.io_bytes == 0:
            return 0.0
        return self.flops / self.io_bytes

    def __add__(self, other: StageCost) -> StageCost:
        added = zip(ADDITIVE, map(operator.add, _sums(self), _sums(other)), strict=True)
        larger = zip(PEAKS, map(_larger, _peaks(self), _peaks(other)), strict=True)
        return StageCost(**dict(added), **dict(larger))

    def __mul__(self, count: Any) -> StageCost:
        if isinstance(count, int) and count == 0:
            return ZERO
        multiplied = zip(ADDITIVE, [value * count for value in _sums(self)], strict=True)
        return StageCost(**dict(multiplied), **dict(zip(PEAKS, _peaks(self), strict=True)))

    __rmul__ = __mul__

    @staticmethod
    def total(costs: Iterable[StageCost]) -> StageCost:
        """The sum of any number of costs (of none: all zeros)."""
        return StageCost.weighted((cost, 1) for cost in costs)

    @staticmethod
    def weighted(counted: Iterable[tuple[StageCost, Any]]) -> StageCost:
        """The sum of costs that are each there a number of times."""
        counted = list(counted)
        if not counted:
            return ZERO
        rows = [_sums(cost) if count == 1 else [v * count for v in _sums(cost)] for cost, count in counted]
        added = zip(ADDITIVE, map(sum, zip(*rows, strict=True)), strict=True)
        peaks = zip(*(_peaks(cost) for cost, _ in counted), strict=True)
        return StageCost(**dict(added), **dict(zip(PEAKS, map(_largest, peaks), strict=True)))

    def to_dict(self) -> dict[str, Any]:
        """Every field and every derived figure, in the order in which reports show them."""
        return {name: getattr(self, name) for name in (*FIELDS, *DERIVED)}


FIELDS: tuple[str, ...] = tuple(field.name for field in fields(StageCost))
"""The exact fields, in declaration order."""

PEAKS: tuple[str, ...] = ("peak_activation_bytes", "ideal_peak_activation_bytes")
"""The fields that are maxima over moments."""

ADDITIVE: tuple[str, ...] = tuple(name for name in FIELDS if name not in PEAKS)
"""The fields that are sums over parts."""

_sums = operator.attrgetter(*ADDITIVE)
_peaks = operator.attrgetter(*PEAKS)

DERIVED: tuple[str, ...] = (
    "flops",
    "io_bytes",
    "flops_tflops",
    "io_tb",
    "activations_gb",
    "peak_activations_gb",
    "kv_gb",
    "weights_gb",
    "arithmetic_intensity",
)
"""The figures computed from them."""

ZERO = StageCost()


def _largest(values: tuple[Any, ...]) -> Any:
    if all(type(value) is int for value in values):
        return max(values)
    knowing = next((value for value in values if hasattr(value, "or_larger")), None)
    return reduce(_larger, values) if knowing is None else knowing.or_larger(*values)


def _larger(a: Any, b: Any) -> Any:
    """The larger of two sizes, element by element for arrays, as an expression for sympy values.

    A kind of number that knows better how, has ``or_larger``, which takes any number of others.
    """
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    if isinstance(a, int) and a == 0:
        return b
    if isinstance(b, int) and b == 0:
        return a
    for one, other in ((a, b), (b, a)):
        if hasattr(one, "or_larger"):
            return one.or_larger(other)
    return (a + b + abs(a - b)) // 2
