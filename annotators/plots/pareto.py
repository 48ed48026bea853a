"""A picture of two figures of many architectures: all of them, and those that none beats."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from fxmeter.annotators.plots.style import BLUE, COLUMN, GREY, STYLE, saved
from fxmeter.annotators.studies.architectures.pareto import Front

_UNITS = {"second": "s", "byte": "B", "memory": "B", "flop": "FLOP"}


def pareto_plot(front: Front, title: str, kind: str) -> bytes:
    """The front as a line of steps through the cloud of the rest; axes are logarithmic where all values are above 0."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN * 1.4, COLUMN), layout="constrained")
        axes = figure.subplots()
        axes.set_title(title)
        axes.plot(
            *zip(*front.points, strict=True), ".", color=GREY, markersize=2.5, rasterized=len(front.points) > 2000
        )
        best = [(row[front.first.name], row[front.second.name]) for row in front.rows]
        where = "pre" if front.first.more_is_better else "post"
        axes.plot(*zip(*best, strict=True), "o-", color=BLUE, markersize=3, drawstyle=f"steps-{where}")
        for column, axis, scale in (
            (front.first, axes.xaxis, axes.set_xscale),
            (front.second, axes.yaxis, axes.set_yscale),
        ):
            axis.set_label_text(f"{column.label} ({'more' if column.more_is_better else 'less'} is better)")
            place = (front.first, front.second).index(column)
            if all(point[place] > 0 for point in front.points):
                scale("log")
            axis.set_major_formatter(EngFormatter(_UNITS.get(column.kind, "")))
            axis.set_minor_formatter(EngFormatter(_UNITS.get(column.kind, "")))
        return saved(figure, kind)
