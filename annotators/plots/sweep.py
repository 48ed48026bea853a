"""Plots of a sweep, as SVG and PNG: what each stage computes, moves and keeps, along one axis.

Made for a column of a paper: 8-point type, colours that colour-blind readers tell apart (Okabe and Ito's), units on
every axis, legends beside the data. The same sweep gives the same SVG.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fxmeter.annotators.plots.axes import bytes_axis, counts_axis, crop_axis, length_axis, memory_axis, ratio_axis
from fxmeter.annotators.plots.families import Family, families
from fxmeter.annotators.studies.sweep import Sweep
from fxmeter.models.stage_cost import FIGURES

MOST_FAMILIES = 12
"""Families of curves that are drawn of one sweep; the files have all of them."""

COLUMN, PAGE = 3.5, 7.16
"""Widths in inches: one column, and the page, of a two-column paper."""

BLUE, ORANGE, GREEN, RED, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9"
STAGES = {"vision": GREEN, "prefill": BLUE, "decode": RED}
DARKER = {"vision": "#004D38", "prefill": "#003A5C", "decode": "#6B2F00"}
"""Eager's lines, on top of flash's: where both are the same, both are seen."""

DASHES: dict[str, Any] = {"flash": "-", "eager": (0, (3.5, 1.5))}
TRAFFIC = list(zip(FIGURES["io_bytes"].sources, itertools.cycle((BLUE, ORANGE, RED, SKY, GREEN)), strict=False))
"""What traffic is made of, and its colours."""

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "legend.columnspacing": 1.2,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "lines.linewidth": 1.3,
    "svg.hashsalt": "fxmeter",
    "svg.fonttype": "path",
    "figure.dpi": 100,
    "savefig.dpi": 300,
}


def draw(sweep: Sweep) -> dict[str, bytes]:
    """Name → content of every plot; none for a sweep of a single point, or of what a model does not have."""
    files: dict[str, bytes] = {}
    with mpl.rc_context(STYLE):
        drawn = families(sweep)[:MOST_FAMILIES]
        for family in drawn:
            suffix = "".join(f"-{name}{value}" for name, value in family.fixed) if len(drawn) > 1 else ""
            for name, (make, field) in PLOTS.items():
                if any(any(family.curve(*key, field)) for key in family.costs):
                    figure = make(family, _title(sweep, family))
                    for kind in ("svg", "png"):
                        files[f"plots/{name}{suffix}.{kind}"] = _saved(figure, kind)
    return files


def left_out(sweep: Sweep) -> int:
    """How many families of curves ``draw`` does not draw."""
    return max(0, len(families(sweep)) - MOST_FAMILIES)


def _saved(figure: Figure, kind: str) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format=kind, metadata={"Date": None} if kind == "svg" else {})
    return out.getvalue()


def _title(sweep: Sweep, family: Family) -> str:
    symbols = {"batch": "B", "steps": "K", "prefill": "S"}
    fixed = [f"{symbols[name]} = {value:,}" for name, value in family.fixed if (name, value) != ("steps", 1)]
    return ", ".join([sweep.model.name, *fixed, sweep.model.dtype])


def _figure(title: str, *, panels: int = 1, rows: int = 1, height: float = 2.7) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=(COLUMN if panels == 1 else PAGE, height), layout="constrained")
    axes = figure.subplots(rows, panels, squeeze=False)
    figure.suptitle(title, fontsize=8, fontweight="bold")
    return figure, [list(row) for row in axes]


def _along(axes: Axes, family: Family, *, panels: int = 1, crops: bool = True) -> None:
    """The horizontal axis, and that of crop grids above it."""
    room = 0.21 if panels > 2 else 0.13
    length_axis(axes, family, room=room)
    if crops and family.along == "image tokens":
        crop_axis(axes, family, room=room)


def _legend(figure: Figure, lines: Sequence[Any], *, columns: int) -> None:
    figure.legend(handles=list(lines), loc="outside lower center", ncols=columns)


def _line(color: str, label: str, dashes: Any = "-", **more: Any) -> Line2D:
    return Line2D([], [], color=color, label=label, linestyle=dashes, **more)


def _what(stage: str) -> str:
    return "decode, per token" if stage == "decode" else stage


def _finished(figure: Figure, axes: Axes, family: Family, label: str, lines: Sequence[Any]) -> Figure:
    """A figure of memory in one panel."""
    memory_axis(axes, label)
    _along(axes, family)
    _legend(figure, lines, columns=2)
    return figure


def _flops(family: Family, title: str) -> Figure:
    stages = family.stages
    figure, rows = _figure(title, panels=max(2, len(stages)), height=2.6)
    shown = {"flops": (BLUE, 2.6, 0.45), "matmul_flops": (BLUE, 1.0, 1.0), "vector_flops": (ORANGE, 1.2, 1.0)}
    for axes, stage in zip(rows[0], stages, strict=False):
        for attention in family.attentions:
            for field, (color, width, alpha) in shown.items():
                if field == "vector_flops" or attention == family.attentions[-1]:
                    style = DASHES[attention] if field == "vector_flops" else "-"
                    curve = family.curve(stage, attention, field)
                    axes.plot(family.xs, curve, color=color, linewidth=width, alpha=alpha, linestyle=style)
        axes.set_title(_what(stage))
        counts_axis(axes, "FLOP")
        _along(axes, family, panels=len(stages))
    for axes in rows[0][len(stages) :]:
        axes.remove()
    handles = [_line(BLUE, "total", linewidth=2.6, alpha=0.45), _line(BLUE, "matmul", linewidth=1.0)]
    handles += [_line(ORANGE, f"vector, {kind}", DASHES[kind]) for kind in family.attentions]
    _legend(figure, handles, columns=4)
    return figure


def _traffic(family: Family, title: str) -> Figure:
    stages, kinds = family.stages, family.attentions
    figure, rows = _figure(title, panels=max(2, len(stages)), rows=len(kinds), height=0.7 + 1.9 * len(kinds))
    for line, attention in zip(rows, kinds, strict=True):
        for axes, stage in zip(line, stages, strict=False):
            curves = [family.curve(stage, attention, field) for field, _ in TRAFFIC]
            axes.stackplot(family.xs, curves, colors=[color for _, color in TRAFFIC], linewidth=0)
            axes.set_title(f"{_what(stage)}, {attention}")
            bytes_axis(axes)
            _along(axes, family, panels=len(stages), crops=False)
        for axes in line[len(stages) :]:
            axes.remove()
    _legend(figure, [_line(color, FIGURES[field].label, linewidth=5) for field, color in TRAFFIC], columns=5)
    return figure


def _intensity(family: Family, title: str) -> Figure:
    figure, ((axes,),) = _figure(title)
    handles = _stage_lines(axes, family, "arithmetic_intensity", _what)
    ratio_axis(axes, f"{FIGURES['arithmetic_intensity'].label} moved")
    _along(axes, family)
    _legend(figure, handles, columns=2)
    return figure


def _activations(family: Family, title: str) -> Figure:
    """The one that matters: decode with flash does not know how long the context is."""
    figure, ((axes,),) = _figure(title, height=3.0)
    handles = _stage_lines(axes, family, "activation_bytes")
    return _finished(figure, axes, family, f"{FIGURES['activation_bytes'].label} in one pass", handles)


def _peaks(family: Family, title: str) -> Figure:
    figure, ((axes,),) = _figure(title, height=3.0)
    handles = _stage_lines(axes, family, "peak_activation_bytes")
    return _finished(figure, axes, family, "peak of activations alive", handles)


def _stage_lines(axes: Axes, family: Family, field: str, named: Callable[[str], str] = str) -> list[Line2D]:
    """A line for each stage and attention; the lines of a legend."""
    handles = []
    for attention in reversed(family.attentions):
        for stage in family.stages:
            color = DARKER[stage] if attention == "eager" else STAGES[stage]
            style = DASHES[attention]
            axes.plot(family.xs, family.curve(stage, attention, field), color=color, linestyle=style)
            handles.append(_line(color, f"{named(stage)}, {attention}", style))
    return handles


def _cache(family: Family, title: str) -> Figure:
    figure, ((axes,),) = _figure(title)
    lines = []
    for stage in (stage for stage in family.stages if stage != "vision"):
        width = 3.0 if stage == "prefill" else 1.3
        curve = family.curve(stage, family.attentions[-1], "kv_bytes")
        axes.plot(family.xs, curve, color=STAGES[stage], linewidth=width)
        lines.append(_line(STAGES[stage], f"after {stage}", linewidth=width))
    return _finished(figure, axes, family, "KV cache resident", lines)


def _weights(family: Family, title: str) -> Figure:
    figure, ((axes,),) = _figure(title)
    attention = family.attentions[-1]
    handles = []
    for stage in family.stages:
        resident = family.curve(stage, attention, "weight_bytes")
        if stage != "prefill" or "decode" not in family.stages:
            color = STAGES[stage]
            name = "vision tower" if stage == "vision" else "decoder"
            axes.plot(family.xs, resident, color=color, linestyle=":", linewidth=1.3)
            handles.append(_line(color, f"{name}, resident", ":"))
        axes.plot(family.xs, family.curve(stage, attention, "weight_read_bytes"), color=STAGES[stage])
        handles.append(_line(STAGES[stage], f"read in {_what(stage)}"))
    return _finished(figure, axes, family, "weights", handles)


PLOTS: dict[str, tuple[Callable[[Family, str], Figure], str]] = {
    "flops": (_flops, "flops"),
    "io": (_traffic, "io_bytes"),
    "intensity": (_intensity, "arithmetic_intensity"),
    "activations": (_activations, "activation_bytes"),
    "peak_activations": (_peaks, "peak_activation_bytes"),
    "kv": (_cache, "kv_bytes"),
    "weights": (_weights, "weight_bytes"),
}
"""Name of a plot → what draws it, and the figure without which there is nothing to draw."""
