"""Pictures of time: kernels under a device's roofs, time by part, first tokens over prompts, what batches bring."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from fxmeter.annotators.plots.style import COLOURS, GREY, LIGHT, PAGE, STAGES, STYLE, saved
from fxmeter.annotators.studies.curves import HOST, OTHER, LatencyCurve, ThroughputCurve, dots, parts, stage_of
from fxmeter.annotators.studies.times import StageTiming
from fxmeter.annotators.units import duration
from fxmeter.models.devices import Device
from fxmeter.models.scenario import Scenario

LARGEST_DOT, SMALLEST_DOT = 320.0, 6.0
"""Areas, in square points, of a kernel that takes all the time of its stage, and of one that takes none."""


def kind_of(path: str) -> str:
    """What a file's name asks for: "svg", "png" or "pdf"."""
    return Path(path).suffix.removeprefix(".").lower()


def report_plot(timings: Sequence[StageTiming], title: str, kind: str) -> bytes:
    """Of stages on devices: a roofline for each device, and the time of each stage by part."""
    devices = tuple({item.time.device.name: item.time.device for item in timings}.values())
    with mpl.rc_context(STYLE):
        figure, rows = _panels(title, len(devices))
        colours = _colours(timings)
        for (left, right), device in zip(rows, devices, strict=True):
            mine = [item for item in timings if item.time.device.name == device.name]
            roofline(left, device, mine)
            bars(right, device, mine, colours)
        return saved(figure, kind)


def latency_plot(first: Sequence[LatencyCurve], batches: Sequence[ThroughputCurve], title: str, kind: str) -> bytes:
    """Time to first token over the prompt, and tokens a second of a sequence against those of the device."""
    with mpl.rc_context(STYLE):
        figure, ((left, right),) = _panels(title, 1)
        first_tokens(left, first)
        throughput(right, batches)
        return saved(figure, kind)


def _panels(title: str, rows: int) -> tuple[Figure, Any]:
    figure = Figure(figsize=(PAGE, 3.2 * rows), layout="constrained")
    figure.suptitle(title, fontsize=8, fontweight="bold")
    return figure, figure.subplots(rows, 2, squeeze=False)


def roofline(axes: Axes, device: Device, timings: Sequence[StageTiming]) -> None:
    """Each kernel as a dot, as large as its share of its stage, under the peaks of the dtypes that compute."""
    found = dots(timings)
    stages = list(dict.fromkeys(map(stage_of, timings)))
    low = 2.0 ** math.floor(math.log2(min([dot.intensity for dot in found], default=1) / 2))
    high = 2.0 ** math.ceil(math.log2(max([*(dot.intensity for dot in found), 1.0]) * 2))
    high = max(high, 4 * max(device.ridge(item.dtype) for item in timings))
    x = np.geomspace(low, high, 200)
    peaks = {device.matrix(item.dtype) for item in timings} | {("vector", device.vector("fp32"))}
    for name, peak in sorted(peaks, key=lambda pair: -pair[1]):
        axes.plot(x, np.minimum(x * device.bandwidth_bytes_per_s, peak), color="black", linewidth=0.9)
        axes.annotate(
            f"{name} {peak / 1e12:,.0f} TFLOP/s", (high, peak), xytext=(-2, 2), textcoords="offset points", ha="right",
            fontsize=6.5,
        )  # fmt: skip
    for stage in stages:
        mine = [dot for dot in found if dot.stage == stage]
        sizes = [SMALLEST_DOT + (LARGEST_DOT - SMALLEST_DOT) * dot.share for dot in mine]
        axes.scatter(
            [dot.intensity for dot in mine], [dot.flops_per_s for dot in mine], s=sizes, color=STAGES[stage],
            alpha=0.55, linewidths=0.4, edgecolors="white",
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(top=3 * max(peak for _, peak in peaks))
    step = max(1, round(math.log2(high / low) / 7))
    axes.xaxis.set_major_locator(
        FixedLocator([2.0**k for k in range(int(math.log2(low)), int(math.log2(high)) + 1, step)])
    )
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    axes.yaxis.set_major_locator(LogLocator(numticks=8))
    axes.yaxis.set_major_formatter(EngFormatter(unit="FLOP/s", sep="\N{THIN SPACE}"))
    _only_major(axes)
    axes.set_xlabel("FLOP per byte")
    axes.set_title(f"roofline, {device.name}: kernels sized by time")
    axes.legend(handles=[_dot(stage) for stage in stages], loc="lower right")


def _colours(timings: Sequence[StageTiming]) -> dict[str, str]:
    """A colour for each part, the same in every panel."""
    names = dict.fromkeys(name for item in timings for name in parts(item) if name not in (HOST, OTHER))
    return {**dict(zip(names, itertools.cycle(COLOURS), strict=False)), OTHER: LIGHT, HOST: GREY}


def bars(axes: Axes, device: Device, timings: Sequence[StageTiming], colours: Mapping[str, str]) -> None:
    """The time of each stage as a bar of parts, as shares, its length in words beside it."""
    columns = [parts(item) for item in timings]
    names = [name for name in colours if any(name in column for column in columns)]
    for place, (item, column) in enumerate(zip(timings, columns, strict=True)):
        base = 0.0
        for name, seconds in column.items():
            share = seconds / item.time.estimate_s
            axes.barh(place, share, left=base, color=colours[name], height=0.6, label=name)
            base += share
    labels = [f"{_words(item)}\n{duration(item.pass_s)}" for item in timings]
    axes.set_yticks(range(len(timings)), labels)
    axes.invert_yaxis()
    axes.set_ylim(len(timings) - 0.5, -0.5 - 0.3 * math.ceil(len(names) / 2))
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.grid(visible=False, axis="y")
    axes.set_title(f"time by part, {device.name}")
    handles = [Line2D([], [], color=colours[name], linewidth=5, label=name) for name in names]
    axes.legend(handles=handles, loc="upper center", ncols=2, handlelength=0.8)


def first_tokens(axes: Axes, curves: Sequence[LatencyCurve]) -> None:
    """The estimate, and the bound below it."""
    for colour, curve in zip(COLOURS, curves, strict=False):
        axes.plot(curve.tokens, curve.estimate_s, color=colour, label=curve.device)
        axes.plot(curve.tokens, curve.bound_s, color=colour, linewidth=0.8, linestyle=":")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlim(curves[0].tokens[0], curves[0].tokens[-1])
    _sizes(axes, "x", int(curves[0].tokens[0]), int(curves[0].tokens[-1]))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter(EngFormatter(unit="s", sep="\N{THIN SPACE}"))
    _only_major(axes)
    axes.set_xlabel("prompt (tokens)")
    axes.set_title("time to first token; dotted: bound")
    axes.legend(loc="upper left")


def throughput(axes: Axes, curves: Sequence[ThroughputCurve]) -> None:
    """What a user gets against what the device makes, along the batch; faint where the memory does not hold it."""
    for colour, curve in zip(COLOURS, curves, strict=False):
        axes.plot(curve.each, curve.whole, color=colour, alpha=0.3)
        axes.plot(curve.each[curve.fits], curve.whole[curve.fits], color=colour, label=curve.device)
        marked = [place for place, size in enumerate(curve.batch) if size & (size - 1) == 0 and curve.fits[place]]
        axes.plot(curve.each[marked], curve.whole[marked], "o", color=colour, markersize=2.5)
        for place in marked[:: max(1, len(marked) // 5)]:
            axes.annotate(
                f"B={curve.batch[place]}", (curve.each[place], curve.whole[place]), xytext=(3, 3),
                textcoords="offset points", fontsize=6, color=colour,
            )  # fmt: skip
    axes.set_xlabel("tokens/s of one sequence")
    axes.set_ylabel("tokens/s of the device")
    axes.set_xlim(left=0)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    _only_major(axes)
    axes.set_title(f"decode at {curves[0].context:,} tokens; faint: does not fit")
    axes.legend(loc="best")


def _sizes(axes: Axes, which: str, first: int, last: int) -> None:
    """Ticks at powers of two, as 512, 1k, 32k."""
    powers = range(math.ceil(math.log2(first)), math.floor(math.log2(last)) + 1)
    step = max(1, math.ceil(len(powers) / 7))
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator([2.0**k for k in powers[::step]]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1024:g}k" if value >= 1024 else f"{value:g}"))


def _only_major(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())


def _plain(value: float, _: int = 0) -> str:
    return f"{value:,g}" if value >= 1 else f"1/{1 / value:g}"


def _dot(stage: str) -> Line2D:
    return Line2D([], [], color=STAGES[stage], marker="o", linestyle="", label=stage)


def _words(item: StageTiming) -> str:
    scenario = item.stage.scenario
    if not isinstance(scenario, Scenario):
        return stage_of(item)
    tokens = scenario.past_len if scenario.stage == "decode" else scenario.query_len
    return f"{scenario.stage} {tokens:,}\n{item.stage.attention}, B={scenario.batch}"
