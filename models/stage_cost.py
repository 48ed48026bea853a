"""What a pass, or any part of one, costs: the one record every number of fxmeter travels in."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from fxmeter.models.figures import Figure, Figures, PassFigures, table_of
from fxmeter.models.names import Document
from fxmeter.models.sizes import Size as Size


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost(Figures):
    """Exact counts for an op, a module or a whole stage; :class:`fxmeter.models.figures.Figures` has what they are.

    Every field is an integer of any size (hand-written layer models and closed forms may also put numpy arrays
    or sympy expressions in them). Costs of parts that run one after another add up with ``+``; ``n * cost`` is
    the cost of n identical parts. The two peaks are not sums: ``a + b`` has the larger of both, ``n * a`` that of a.

    FLOPs count 2 per multiply-accumulate. Bytes follow each tensor's own dtype.
    """

    def __add__(self, other: StageCost) -> StageCost:
        added = zip(ADDITIVE, map(operator.add, _sums(self), _sums(other)), strict=True)
        larger = zip(PEAKS, map(_larger, _peaks(self), _peaks(other)), strict=True)
        return StageCost(**dict(added), **dict(larger))

    def __mul__(self, count: Size) -> StageCost:
        if is_nothing(count):
            return ZERO
        multiplied = zip(ADDITIVE, [value * count for value in _sums(self)], strict=True)
        return StageCost(**dict(multiplied), **dict(zip(PEAKS, _peaks(self), strict=True)))

    __rmul__ = __mul__

    def __sub__(self, other: StageCost) -> CostDifference:
        return CostDifference(self, other)

    @staticmethod
    def total(costs: Iterable[StageCost]) -> StageCost:
        """The sum of any number of costs (of none: all zeros)."""
        return StageCost.weighted((cost, 1) for cost in costs)

    @staticmethod
    def weighted(counted: Iterable[tuple[StageCost, Size]]) -> StageCost:
        """The sum of costs that are each there a number of times."""
        counted = list(counted)
        if not counted:
            return ZERO
        rows = [_sums(cost) if count == 1 else [v * count for v in _sums(cost)] for cost, count in counted]
        added = zip(ADDITIVE, map(sum, zip(*rows, strict=True)), strict=True)
        peaks = zip(*(_peaks(cost) for cost, _ in counted), strict=True)
        return StageCost(**dict(added), **dict(zip(PEAKS, map(_largest, peaks), strict=True)))

    def to_dict(self) -> Document:
        """Every field and every derived figure, in the order in which reports show them."""
        return {name: getattr(self, name) for name in FIGURES}


@dataclass(frozen=True, slots=True, repr=False)
class CostDifference:
    """``cost - less``, figure by figure and with its sign: every figure of a cost is an attribute.

    It is no cost: a figure may be negative, and differences of peaks or of quotients do not add up.
    """

    cost: StageCost
    less: StageCost

    def __getattr__(self, name: str) -> Any:
        if name not in FIGURES:
            raise AttributeError(f"a difference of costs has no figure {name!r}")
        return getattr(self.cost, name) - getattr(self.less, name)

    to_dict = StageCost.to_dict

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value:+,}" for name in EXACT if (value := getattr(self, name)))
        return f"CostDifference({told})"


FIGURES: Mapping[str, Figure] = table_of(StageCost)
"""Name → figure of a cost: the exact fields, then what is derived from them."""

PASS_FIGURES: Mapping[str, Figure] = table_of(PassFigures)
"""The same of what only a whole pass has."""

ALL_FIGURES: Mapping[str, Figure] = {**FIGURES, **PASS_FIGURES}

FIELDS: tuple[str, ...] = tuple(name for name, figure in FIGURES.items() if not figure.sources)
"""The exact fields, in declaration order."""

DERIVED: tuple[str, ...] = tuple(name for name, figure in FIGURES.items() if figure.sources)
"""The figures computed from them."""

EXACT: tuple[str, ...] = tuple(name for name, figure in FIGURES.items() if figure.whole)
"""The fields and the exact sums of them: whole numbers."""

PEAKS: tuple[str, ...] = tuple(name for name in FIELDS if FIGURES[name].over_parts == "max")
"""The fields that are maxima over moments."""

ADDITIVE: tuple[str, ...] = tuple(name for name in FIELDS if name not in PEAKS)
"""The fields that are sums over parts."""

_sums = operator.attrgetter(*ADDITIVE)
_peaks = operator.attrgetter(*PEAKS)

ZERO = StageCost()

Cost = StageCost
"""The same record by another name, for an op or a module, which are no stages."""


def is_nothing(amount: Size) -> bool:
    """Whether an amount is the number 0. An expression never is, not even where its value would be."""
    return isinstance(amount, int) and amount == 0


def _largest(values: tuple[Size, ...]) -> Size:
    if all(type(value) is int for value in values):
        return max(values)
    knowing = next((value for value in values if hasattr(value, "or_larger")), None)
    return reduce(_larger, values) if knowing is None else knowing.or_larger(*values)


def _larger(a: Size, b: Size) -> Size:
    """The larger of two sizes, element by element for arrays, as an expression for sympy values.

    A kind of number that knows better how, has ``or_larger``, which takes any number of others.
    """
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    if is_nothing(a):
        return b
    if is_nothing(b):
        return a
    for one, other in ((a, b), (b, a)):
        if hasattr(one, "or_larger"):
            return one.or_larger(other)
    return (a + b + abs(a - b)) // 2
