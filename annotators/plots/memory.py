"""Timelines as a picture: live bytes by kind along the pass. Needs matplotlib, which is an extra."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from fxmeter.annotators.studies.timeline import ACTIVATIONS, RESIDENT, Timeline
from fxmeter.annotators.units import unit_of

_COLOURS = {
    "matrix products": "#0072b2",
    "attention cores": "#d55e00",
    "reductions": "#e69f00",
    "other arithmetic": "#56b4e9",
    "copies": "#009e73",
    "inputs": "#999999",
    "KV cache": "#cc79a7",
    "weights": "#4d4d4d",
    "activations, all": "#8c564b",
}
_STEPS = 800
_LABELS = 8


def timeline_svg(timelines: Sequence[Timeline], name: str) -> str:
    """An SVG with a row for each pass: its activations by the op that made them, and everything in memory beside it."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    with mpl.rc_context({"svg.hashsalt": "fxmeter", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(13, 0.6 + 3.1 * len(timelines)), layout="constrained")
        FigureCanvasSVG(figure)
        figure.suptitle(f"{name}: memory in use along the pass", x=0.01, ha="left", fontweight="bold")
        handles = [Patch(color=colour, label=kind) for kind, colour in _COLOURS.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
        rows = figure.subplots(len(timelines), 2, squeeze=False, width_ratios=[2, 1])
        for (left, right), timeline in zip(rows, timelines, strict=True):
            moments, live = thinned(timeline)
            title = f"{timeline.title}, {timeline.attention}"
            _stack(left, timeline, moments, live, ACTIVATIONS, f"{title}: activations")
            _mark_peak(left, timeline)
            total = {**{kind: live[kind] for kind in RESIDENT}, "activations, all": _sum(live)}
            _stack(right, timeline, moments, total, (*reversed(RESIDENT), "activations, all"), "all memory")
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": "fxmeter"})
    return written.getvalue()


def thinned(timeline: Timeline) -> tuple[list[int], dict[str, list[int]]]:
    """(moments, kind → bytes in use from each of them on). A long pass in so many steps, each as its fullest moment."""
    points = list(timeline.live_bytes())
    size = -(-len(points) // _STEPS)
    kept = []
    for start in range(0, len(points), size):
        _, fullest = max(points[start : start + size], key=lambda point: sum(point[1][kind] for kind in ACTIVATIONS))
        kept.append((points[start][0], fullest))
    kept.append((timeline.end, kept[-1][1]))
    return [moment for moment, _ in kept], {
        kind: [live[kind] for _, live in kept] for kind in (*ACTIVATIONS, *RESIDENT)
    }


def _sum(live: Mapping[str, Sequence[int]]) -> list[int]:
    return [sum(values) for values in zip(*(live[kind] for kind in ACTIVATIONS), strict=True)]


def _stack(
    axes: Any, timeline: Timeline, moments: Sequence[int], live: Mapping[str, Sequence[int]], kinds: Any, title: str
) -> None:
    shown = [kind for kind in kinds if any(live[kind])]
    unit, name = unit_of(max(map(sum, zip(*(live[kind] for kind in shown), strict=True)), default=1), "memory")
    base = [0.0] * len(moments)
    for kind in shown:
        top = [low + value / unit for low, value in zip(base, live[kind], strict=True)]
        axes.fill_between(moments, base, top, step="post", color=_COLOURS[kind], linewidth=0)
        base = top
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_ylabel(name)
    axes.set_xlim(0, timeline.end)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    places = _places(timeline)
    axes.set_xticks([moment for moment, _ in places], [label for _, label in places], rotation=30, ha="right")


def _mark_peak(axes: Any, timeline: Timeline) -> None:
    unit, name = unit_of(timeline.peak_bytes, "memory")
    axes.axvline(timeline.peak, color="black", linewidth=0.6, linestyle=":")
    side, shift = ("right", -4) if timeline.peak > timeline.end / 2 else ("left", 4)
    axes.annotate(
        f"peak {timeline.peak_bytes / unit:.4g} {name}",
        (timeline.peak, axes.get_ylim()[1]),
        xytext=(shift, -9),
        textcoords="offset points",
        ha=side,
        fontsize=8,
    )


def _places(timeline: Timeline) -> list[tuple[int, str]]:
    """A few names of modules to find one's way by: the members of the outermost list, or else the outermost modules."""
    modules = [span for span in timeline.spans if not span.op and span.name]
    members = [span for span in modules if span.name.rpartition(".")[2].isdigit()]
    least = min((span.depth for span in members), default=1)
    shown = [span for span in members if span.depth == least] or [span for span in modules if span.depth == 1]
    step = -(-len(shown) // _LABELS) or 1
    return [(span.began, ".".join(span.name.split(".")[-2:])) for span in shown[::step]]
