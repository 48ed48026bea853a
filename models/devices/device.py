"""What is known of an accelerator: peaks, bandwidths, sizes, and how much of them real kernels reach."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fxmeter.models.errors import DeviceError
from fxmeter.models.names import Document, Fields, near

WIDER = {
    "fp4": ("fp8", "int8", "bf16", "fp16", "fp32"),
    "int4": ("int8", "bf16", "fp16", "fp32"),
    "fp8": ("bf16", "fp16", "fp32"),
    "int8": ("bf16", "fp16", "fp32"),
    "bf16": ("fp16", "fp32"),
    "fp16": ("bf16", "fp32"),
    "tf32": ("fp32",),
    "fp32": (),
    "fp64": (),
}
"""What a device without a dtype computes in instead. Operands are widened; bf16 becomes fp16, as engines do with such
checkpoints on chips that have no bf16 (T4, V100, Apple)."""


FIELDS = (
    "name",
    "vendor",
    "aliases",
    "matrix_flops_per_s",
    "vector_flops_per_s",
    "bandwidth_bytes_per_s",
    "memory_bytes",
    "l2_bytes",
    "l3_bytes",
    "link_bytes_per_s",
    "pcie_generation",
    "power_w",
    "efficiency",
    "sources",
    "notes",
    "measured",
)
"""Fields of a device file. What ``calibrate`` measured (``measured``) and sizes that no time hangs on are only kept."""
FRESH = ("fresh_from_bytes", "fresh_bytes_per_s")
TABLES = {
    "product_flops_per_s": ("dtype", "layout", "elements", "rows"),
    "elementwise_bytes_per_s": ("dtype", "bytes"),
    "host_us": ("bytes",),
}
"""Of a measured device: what their entries are told apart by, "elements", "rows" and "bytes" being whole numbers."""
MEASURED_NOWHERE = "defaults from public GEMM timings on other devices: not measured on this one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """How much of each roof real kernels reach, and what a launch costs. ``source`` says where that is from.

    Sources of the defaults: 4,260 public GEMM timings on A100, H100 and A40 (M from 1 to 4,096) fit
    ``hypot(bytes / (0.8 · bandwidth), FLOPs / (0.74 · peak)) + 4 µs`` with a median error of 4 to 5 %; attention cores
    reach about 0.45 of the matrix peak, elementwise kernels 0.8 of the bandwidth; large ring all-reduces 0.55 of a
    link (155 to 175 of 300 GB/s on A100, 270 to 365 of 450 on H100), small ones take 10 µs. ``prefill_host_s`` is what
    an engine spends on a prompt outside of the device (preparing inputs and sampling; 1 to 5 ms in public traces):
    published first tokens of short prompts leave 2.7 ms unexplained (docs/validation_time.md); 2 is on the safe side.

    A measured device may say more (no default does). ``product_flops_per_s`` has, by dtype and layout
    (:data:`fxmeter.annotators.timing.kernel.Form`), what products reach by the elements that each row is multiplied by
    and by the number of rows: libraries multiply few rows, or by narrow matrices, far below what large ones reach, and
    some layouts not by their fast kernels at all. ``elementwise_bytes_per_s`` has, by dtype, the rate of an elementwise
    kernel by the bytes that it moves. An op that allocates ``fresh_from_bytes`` or more gets pages that the system
    hands out as they are first written, at ``fresh_bytes_per_s``. Op by op a launch takes ``host_us`` microseconds, by
    the bytes that a pass moves for each: they push out of a processor's caches what its host's work needs.
    """

    bandwidth: float = 0.80
    matrix: Mapping[str, float] = field(default_factory=dict)
    any_matrix: float = 0.74
    attention: float = 0.45
    elementwise: float = 0.80
    vector: float = 0.50
    network: float = 0.55
    launch_s: float = 4e-6
    collective_s: float = 10e-6
    prefill_host_s: float = 2e-3
    product_flops_per_s: Mapping[str, Mapping[str, Mapping[int, Mapping[int, float]]]] = field(default_factory=dict)
    elementwise_bytes_per_s: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    host_us: Mapping[int, float] = field(default_factory=dict)
    fresh_from_bytes: float | None = None
    fresh_bytes_per_s: float | None = None
    source: str = MEASURED_NOWHERE

    @property
    def launch_us(self) -> float:
        """``launch_s`` as device files have it."""
        return round(self.launch_s * 1e6, 9)

    @property
    def collective_us(self) -> float:
        """``collective_s`` as device files have it."""
        return round(self.collective_s * 1e6, 9)

    @property
    def prefill_host_us(self) -> float:
        """``prefill_host_s`` as device files have it."""
        return round(self.prefill_host_s * 1e6, 9)

    def of_matrix(self, dtype: str) -> float:
        """The share of the matrix peak of ``dtype`` that large products reach."""
        return self.matrix.get(dtype, self.any_matrix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One accelerator. Rates are per second, dense; ``link_bytes_per_s`` is one direction of a device's links.
    ``node_size`` devices have these links to one another, all of them unless it is given; ``across_bytes_per_s`` is
    what each device has to those of other nodes. No file says either: :meth:`in_nodes`.

    ``sources`` says what each key stands for, ``cited`` has for each number ("matrix_flops_per_s.bf16") the keys, or
    the words, of where it is from, and ``unconfirmed`` the numbers that nobody could look up.
    """

    name: str
    vendor: str
    aliases: tuple[str, ...]
    matrix_flops_per_s: Mapping[str, float]
    vector_flops_per_s: Mapping[str, float]
    bandwidth_bytes_per_s: float
    memory_bytes: int
    l2_bytes: int | None = None
    link_bytes_per_s: float | None = None
    node_size: int | None = None
    across_bytes_per_s: float | None = None
    power_w: float | None = None
    efficiency: Efficiency = field(default_factory=Efficiency)
    sources: Mapping[str, str] = field(default_factory=dict)
    cited: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unconfirmed: tuple[str, ...] = ()
    notes: str = ""

    def in_nodes(self, size: int | None, across_bytes_per_s: float | None) -> Device:
        """The device in nodes of ``size``, each with ``across_bytes_per_s`` to other nodes, in one direction."""
        return replace(self, node_size=size, across_bytes_per_s=across_bytes_per_s)

    def matrix(self, dtype: str) -> tuple[str, float]:
        """(dtype that computes, its peak): ``dtype`` itself, or what it is widened to where the device lacks it.

        Where no matrix unit is wide enough, the vector units compute.
        """
        for candidate in (dtype, *WIDER.get(dtype, ())):
            if candidate in self.matrix_flops_per_s:
                return candidate, self.matrix_flops_per_s[candidate]
        return "fp32", self.vector("fp32")

    def vector(self, dtype: str) -> float:
        """Peak of arithmetic outside of the matrix units: that of float32 unless the device has a faster one."""
        rates = self.vector_flops_per_s
        if not rates:  # a chip whose vector units nobody published: a small share of its slowest matrix rate
            return min(self.matrix_flops_per_s.values()) / 16
        return rates.get(dtype) or rates.get("fp32") or max(rates.values())

    def streams_of(self, dtype: str) -> Mapping[int, float]:
        """Measured rates of elementwise kernels in ``dtype`` by bytes, or in another that was; none if none were."""
        streams = self.efficiency.elementwise_bytes_per_s
        return streams.get(dtype) or next(iter(streams.values()), {})

    @property
    def fastest_stream(self) -> float | None:
        """Bytes a second that nothing beats, where what the pass makes may still be in a cache; None where nobody
        measured."""
        streams = self.efficiency.elementwise_bytes_per_s
        rates = [rate for of_dtype in streams.values() for rate in of_dtype.values()]
        return max(*rates, self.bandwidth_bytes_per_s) if rates else None

    def ridge(self, dtype: str) -> float:
        """FLOP per byte at which a product turns from memory-bound to compute-bound."""
        return self.matrix(dtype)[1] / self.bandwidth_bytes_per_s


def device_from(name: str, fields: Fields) -> Device:
    """A device from the fields of its file; DeviceError names the field that is missing or cannot be."""
    unconfirmed: list[str] = []
    cited: dict[str, tuple[str, ...]] = {}

    def number(label: str, value: Any, *, most: float = 1e19, zero: bool = False) -> float:
        entry = value if isinstance(value, Mapping) else {"value": value}
        amount = entry.get("value")
        if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not (0 < amount <= most or zero):
            raise DeviceError(f"device {name}: {label} must be a number above 0, not {amount!r}")
        if not math.isfinite(amount):
            raise DeviceError(f"device {name}: {label} must be finite")
        if entry.get("unconfirmed"):
            unconfirmed.append(label)
        named = entry.get("sources") or ([entry["source"]] if "source" in entry else [])
        if named:
            cited[label] = tuple(map(str, named))
        return amount

    def rates(label: str, required: bool) -> dict[str, float]:
        table = fields.get(label, {})
        if not isinstance(table, Mapping) or (required and not table):
            raise DeviceError(f"device {name}: {label} must map dtypes to rates")
        return {str(dtype): number(f"{label}.{dtype}", value) for dtype, value in table.items()}

    def optional(label: str) -> float | None:
        return number(label, fields[label]) if label in fields else None

    for label in fields:
        if label not in FIELDS:
            raise DeviceError(
                f"device {name}: a device file has no field {label!r}; {near(str(label), FIELDS)}"
                f"it has {', '.join(FIELDS)}"
            )
    for label in ("matrix_flops_per_s", "bandwidth_bytes_per_s", "memory_bytes"):
        if label not in fields:
            raise DeviceError(f"device {name}: {label} is missing")
    l2 = optional("l2_bytes")
    return Device(
        name=name,
        vendor=str(fields.get("vendor", "")),
        aliases=tuple(map(str, fields.get("aliases", ()))),
        matrix_flops_per_s=rates("matrix_flops_per_s", True),
        vector_flops_per_s=rates("vector_flops_per_s", False),
        bandwidth_bytes_per_s=number("bandwidth_bytes_per_s", fields["bandwidth_bytes_per_s"]),
        memory_bytes=int(number("memory_bytes", fields["memory_bytes"])),
        l2_bytes=None if l2 is None else int(l2),
        link_bytes_per_s=optional("link_bytes_per_s"),
        power_w=optional("power_w"),
        efficiency=_efficiency(name, fields.get("efficiency", {}), number),
        sources=dict(fields.get("sources", {})),
        cited=cited,
        unconfirmed=tuple(unconfirmed),
        notes=str(fields.get("notes", "")),
    )


def _efficiency(name: str, given: Any, number: Any) -> Efficiency:
    if not isinstance(given, Mapping):
        raise DeviceError(f"device {name}: efficiency must be an object of shares")
    if not given:
        return Efficiency()
    known = {"bandwidth", "attention", "elementwise", "vector", "network", "any_matrix"}
    values: Document = {
        label: number(f"efficiency.{label}", value, most=1) for label, value in given.items() if label in known
    }
    values["matrix"] = {
        str(dtype): number(f"efficiency.matrix.{dtype}", value, most=1)
        for dtype, value in given.get("matrix", {}).items()
    }
    for label, levels in TABLES.items():
        values[label] = _table(name, f"efficiency.{label}", given.get(label, {}), levels, number)
    for label in FRESH:
        if label in given:
            values[label] = number(f"efficiency.{label}", given[label])
    for label in ("launch", "collective", "prefill_host"):
        if f"{label}_us" in given:
            zero = label == "prefill_host"
            values[f"{label}_s"] = number(f"efficiency.{label}_us", given[f"{label}_us"], zero=zero) / 1e6
    cited = {entry["source"]: None for entry in _entries(given) if "source" in entry}
    others = {"matrix", "launch_us", "collective_us", "prefill_host_us", "source", *TABLES, *FRESH}
    unknown = set(given) - known - others
    if unknown:
        raise DeviceError(f"device {name}: efficiency has no {', '.join(sorted(unknown))}")
    return Efficiency(**values, source=str(given.get("source") or "; ".join(cited) or "the device's own file"))


def _table(name: str, label: str, given: Any, levels: Sequence[str], number: Any) -> Any:
    """A table of rates with these levels; DeviceError says which of them has no numbers."""
    if not levels:
        return number(label, given)
    whole = levels[0] in ("elements", "rows", "bytes")
    if not isinstance(given, Mapping) or (whole and not all(str(key).isdecimal() and int(key) for key in given)):
        raise DeviceError(f"device {name}: {label} must map {levels[0]} to rates")
    return {
        int(key) if whole else str(key): _table(name, f"{label}.{key}", each, levels[1:], number)
        for key, each in given.items()
    }


def _entries(given: Fields) -> list[Fields]:
    rows = [value for value in given.values() if isinstance(value, Mapping)]
    return [*rows, *(entry for row in rows for entry in row.values() if isinstance(entry, Mapping))]
