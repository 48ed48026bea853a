"""Plots of a sweep, as SVG and PNG: what each stage computes, moves and keeps, along one axis.

Made for a column of a paper: units on every axis, the metric in the title, panels that are compared on one scale. The
same sweep gives the same SVG.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fxmeter.annotators.plots.axes import bytes_axis, counts_axis, crop_axis, length_axis, memory_axis, ratio_axis
from fxmeter.annotators.plots.families import Family, families
from fxmeter.annotators.plots.style import BLUE, COLUMN, GREEN, ORANGE, PAGE, RED, SKY, STAGES, STYLE, saved
from fxmeter.annotators.studies.sweep import Sweep
from fxmeter.models.stage_cost import FIGURES

MOST_FAMILIES = 12
"""Families of curves that are drawn of one sweep; the files have all of them."""

DARKER = {"vision": "#004D38", "encode": "#004D38", "prefill": "#003A5C", "decode": "#6B2F00"}
"""Eager's lines, on top of flash's: where both are the same, both are seen."""

DASHES: dict[str, Any] = {"flash": "-", "eager": (0, (3.5, 1.5))}
TRAFFIC = list(zip(FIGURES["io_bytes"].sources, itertools.cycle((BLUE, ORANGE, RED, SKY, GREEN)), strict=False))
"""What traffic is made of, and its colours."""


def draw(sweep: Sweep, smooth: Sweep | None = None) -> dict[str, bytes]:
    """Name → content of every plot; none for a sweep of a single point, or of what a model does not have.

    The curves are those of ``smooth``, the same sweep at more points, where it is given.
    """
    files: dict[str, bytes] = {}
    with mpl.rc_context(STYLE):
        drawn = families(smooth or sweep)[:MOST_FAMILIES]
        for family in drawn:
            suffix = "".join(f"-{name}{value}" for name, value in family.fixed) if len(drawn) > 1 else ""
            for name, (make, field) in PLOTS.items():
                if any(any(family.curve(*key, field)) for key in family.costs):
                    figure = make(family, f"{METRICS[name]}\n{_title(sweep, family)}")
                    for kind in ("svg", "png"):
                        files[f"plots/{name}{suffix}.{kind}"] = saved(figure, kind)
    return files


def index_page(model: str, files: Collection[str]) -> dict[str, bytes]:
    """A page that shows the pictures of a folder, each with its file's name; nothing where there are none."""
    if not files:
        return {}
    names = [Path(name).name for name in files if name.endswith(".svg")]
    shown = [
        f'<figure><img src="{name}"><figcaption>{name.removesuffix(".svg")}</figcaption></figure>' for name in names
    ]
    style = (
        "body{font:14px sans-serif;margin:2em}figure{display:inline-block;margin:1em;vertical-align:top}img{width:30em}"
    )
    page = ["<!doctype html>", '<meta charset="utf-8">', f"<title>{escape(model)}</title>", f"<style>{style}</style>"]
    return {"plots/index.html": "\n".join([*page, f"<h1>{escape(model)}</h1>", *shown, ""]).encode()}


def left_out(sweep: Sweep) -> int:
    """How many families of curves ``draw`` does not draw."""
    return max(0, len(families(sweep)) - MOST_FAMILIES)


def _title(sweep: Sweep, family: Family) -> str:
    symbols = {"batch": "B", "steps": "K", "prefill": "S"}
    fixed = [f"{symbols[name]} = {value:,}" for name, value in family.fixed if (name, value) != ("steps", 1)]
    return ", ".join([sweep.model.name, *fixed, sweep.model.dtype])


def _figure(
    title: str, *, panels: int = 1, rows: int = 1, height: float = 2.7, one_scale: Any = False
) -> tuple[Figure, list[list[Axes]]]:
    """``one_scale``: vertical axes that are compared have one scale, all ("all") or those of a column ("col")."""
    figure = Figure(figsize=(COLUMN if panels == 1 else PAGE, height), layout="constrained")
    axes = figure.subplots(rows, panels, squeeze=False, sharey=one_scale)
    figure.suptitle(title, fontsize=8, fontweight="bold")
    return figure, [list(row) for row in axes]


def _along(axes: Axes, family: Family, *, panels: int = 1, crops: bool = True) -> None:
    """The horizontal axis, and that of crop grids above it."""
    room = 0.21 if panels > 2 else 0.13
    length_axis(axes, family, room=room)
    if crops and family.along == "image tokens":
        crop_axis(axes, family, room=room)


def _legend(axes: Axes, lines: Sequence[Any]) -> None:
    """Inside of the axes, where it hides least."""
    columns = 2 if len(lines) == 4 else 1
    axes.legend(
        handles=list(lines), loc="best", ncols=columns, fontsize=6, handlelength=1.8, frameon=True, edgecolor="none"
    )


def _line(color: str, label: str, dashes: Any = "-", **more: Any) -> Line2D:
    return Line2D([], [], color=color, label=label, linestyle=dashes, **more)


def _what(stage: str) -> str:
    return "decode, per token" if stage == "decode" else stage


def _finished(figure: Figure, axes: Axes, family: Family, label: str, lines: Sequence[Any]) -> Figure:
    """A figure of memory in one panel."""
    memory_axis(axes, label)
    _along(axes, family)
    _legend(axes, lines)
    return figure


def _flops(family: Family, title: str) -> Figure:
    stages = family.stages
    figure, rows = _figure(title, panels=max(2, len(stages)), height=2.6, one_scale="all")
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
    _legend(rows[0][0], handles)
    return figure


def _traffic(family: Family, title: str) -> Figure:
    stages, kinds = family.stages, family.attentions
    figure, rows = _figure(
        title, panels=max(2, len(stages)), rows=len(kinds), height=0.7 + 1.9 * len(kinds), one_scale="col"
    )
    for line, attention in zip(rows, kinds, strict=True):
        for axes, stage in zip(line, stages, strict=False):
            curves = [family.curve(stage, attention, field) for field, _ in TRAFFIC]
            axes.stackplot(family.xs, curves, colors=[color for _, color in TRAFFIC], linewidth=0)
            axes.set_title(f"{_what(stage)}, {attention}")
            bytes_axis(axes)
            _along(axes, family, panels=len(stages), crops=False)
        for axes in line[len(stages) :]:
            axes.remove()
    _legend(rows[0][0], [_line(color, FIGURES[field].label, linewidth=5) for field, color in TRAFFIC])
    return figure


def _intensity(family: Family, title: str) -> Figure:
    figure, ((axes,),) = _figure(title)
    handles = _stage_lines(axes, family, "arithmetic_intensity", _what)
    ratio_axis(axes, f"{FIGURES['arithmetic_intensity'].label} moved")
    _along(axes, family)
    _legend(axes, handles)
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
    for stage in (stage for stage in family.stages if stage in ("prefill", "decode")):
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
            name = {"vision": "vision tower", "encode": "encoder"}.get(stage, "decoder")
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

METRICS = {
    "flops": "FLOPs",
    "io": "bytes moved",
    "intensity": "FLOP per byte",
    "activations": "activations made",
    "peak_activations": "peak of activations",
    "kv": "KV cache",
    "weights": "weights",
}
"""Name of a plot → what its title says."""
