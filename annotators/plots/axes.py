"""Axes of plots: scales, ticks and units that a reader does not stumble over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import (
    EngFormatter,
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from fxmeter.annotators.plots.families import Family
from fxmeter.annotators.units import unit_of

_Value = TypeVar("_Value")
LOG_FROM = 12
"""A horizontal axis whose ends are this far apart is logarithmic."""
_LABELS = {
    "image tokens": "image tokens",
    "context": "context (tokens)",
    "batch": "batch (sequences)",
    "steps": "decoded tokens",
}


def length_axis(axes: Axes, family: Family, *, room: float) -> None:
    """Image tokens, context, batch or steps, from the first point to the last. ``room`` is the part of the axis that
    a label takes."""
    first, last = family.xs[0], family.xs[-1]
    axes.set_xlim(first, last)
    axes.set_xlabel(_LABELS[family.along])
    if first > 0 and last >= LOG_FROM * first:
        axes.set_xscale("log", base=2 if family.along != "image tokens" else 10)
        ticks = _lengths(first, last, family.along)
        axes.xaxis.set_major_locator(FixedLocator(_apart(ticks, [_share(axes, x, family) for x in ticks], room)))
        between = [k * 10**d for d in range(int(math.log10(last)) + 1) for k in range(2, 10)]
        axes.xaxis.set_minor_locator(FixedLocator(between) if family.along == "image tokens" else NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(max(2, int(0.7 / room)), integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(_length))


def _lengths(first: int, last: int, along: str) -> list[float]:
    """Round numbers between the ends, the roundest first."""
    if along == "image tokens":
        decades = range(int(math.log10(last)) + 1)
        every = [mantissa * 10**k for mantissa in (1, 2, 5) for k in decades]
    else:
        exponents = range(math.ceil(math.log2(first)), math.floor(math.log2(last)) + 1)
        step = max(1, math.ceil(len(exponents) / 6))
        every = [2**k for k in exponents[::-step]]
    return [float(value) for value in every if first <= value <= last]


def _apart(values: Sequence[_Value], shares: Sequence[float], room: float) -> list[_Value]:
    """The values that are far enough from all that come before them to be labelled."""
    kept: list[tuple[_Value, float]] = []
    for value, share in zip(values, shares, strict=True):
        if all(abs(share - other) >= room for _, other in kept):
            kept.append((value, share))
    return [value for value, _ in kept]


def _length(value: float, _: int = 0) -> str:
    for size, unit in ((2**20, "M"), (2**10, "k")):
        if value >= size and value % size == 0:
            return f"{int(value // size)}{unit}"
    return f"{value:,.0f}"


def crop_axis(axes: Axes, family: Family, *, room: float) -> None:
    """The crop grids of some points above the axis, as near to squares as there are, far enough apart to read."""
    above = axes.secondary_xaxis("top")
    ordered = sorted(zip(family.xs, family.points, strict=True), key=lambda pair: _oblong(pair[1].crops))
    named = [(x, f"{p.crops[0]}×{p.crops[1]}") for x, p in ordered if p.crops is not None]
    kept = _apart(named, [_share(axes, x, family) for x, _ in named], room)
    above.set_xticks([x for x, _ in kept], [name for _, name in kept])
    above.xaxis.set_minor_locator(NullLocator())
    above.tick_params(labelsize=6, length=2, pad=1)
    above.set_xlabel("crop grid (rows × columns)", fontsize=6.5, labelpad=2)


def _oblong(crops: tuple[int, int] | None) -> tuple[int, int]:
    rows, columns = crops or (0, 0)
    return abs(rows - columns), rows


def _share(axes: Axes, x: float, family: Family) -> float:
    """How far along the axis a value is drawn, from 0 to 1."""
    first, last = family.xs[0], family.xs[-1]
    if axes.get_xscale() == "log":
        return math.log(x / first) / math.log(last / first)
    return (x - first) / (last - first)


def counts_axis(axes: Axes, unit: str) -> None:
    """Logarithmic, with thousands: 1 G, 1 T."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=7))
    axes.yaxis.set_major_formatter(EngFormatter(unit=unit, sep="\N{THIN SPACE}"))
    axes.yaxis.set_minor_locator(NullLocator())


def bytes_axis(axes: Axes) -> None:
    """Linear from 0, by thousands, for what is stacked."""
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(EngFormatter(unit="B", sep="\N{THIN SPACE}"))


def memory_axis(axes: Axes, label: str) -> None:
    """Logarithmic, by powers of two: 1 MiB, 32 MiB, 1 GiB; never less than a factor of four high."""
    low, high = _limits(axes)
    axes.set_yscale("log", base=2)
    axes.set_ylim(low, high)
    bottom, top = math.ceil(math.log2(low)), math.floor(math.log2(high))
    step = max(1, math.ceil((top - bottom + 1) / 7))
    nice = next(size for size in (1, 2, 5, 10, 20) if size >= step or size == 20)
    ticks = [2.0**k for k in range(bottom, top + 1) if k % nice == 0]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(_binary))
    axes.set_ylabel(label)


def _limits(axes: Axes) -> tuple[float, float]:
    """Around the data, with a little room."""
    drawn = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.get_lines()])
    values = drawn[drawn > 0] if (drawn > 0).any() else np.ones(1)
    low, high = float(values.min()) / 1.5, float(values.max()) * 1.5
    return (low, high) if high / low >= 4 else (low / 2, high * 2)


def _binary(value: float, _: int = 0) -> str:
    size, name = unit_of(value, "memory")
    return f"{value / size:g} {name}"


def ratio_axis(axes: Axes, label: str) -> None:
    """Logarithmic, plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=7))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(label)
