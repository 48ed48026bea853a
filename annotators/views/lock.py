"""What has moved since a lock was written, as tables for the console or as Markdown."""

from __future__ import annotations

from rich.console import Group, RenderableType

from fxmeter.annotators.differences.lock import Checked
from fxmeter.annotators.units import quantity
from fxmeter.annotators.views.console import Cell, Grid, markdown_table, names, numbers
from fxmeter.annotators.views.words import Line
from fxmeter.models.stage_cost import ALL_FIGURES


def check_view(found: Checked) -> RenderableType:
    """The verdict, then what has moved."""
    style = "bold red" if found.moved else "bold green"
    verdict = Line(_verdict(found), style=style)
    return Group(verdict, "", _moved(found)) if found.moved else verdict


def check_markdown(found: Checked) -> str:
    """The same as Markdown."""
    return "\n\n".join([f"**{_verdict(found)}**", *([markdown_table(_moved(found))] if found.moved else [])]) + "\n"


def _verdict(found: Checked) -> str:
    if found.moved:
        several = "1 figure has" if len(found.moved) == 1 else f"{len(found.moved)} figures have"
        return f"{several} moved: {found.reason}"
    return "no figure has moved" if found.difference.same else "no figure has moved by more than it may"


def _moved(found: Checked) -> Grid:
    rows: list[list[Cell]] = []
    for item in found.moved:
        figure = ALL_FIGURES[item.figure]
        values = [quantity(value, figure.unit) for value in (item.before, item.after)]
        rows.append([item.stage, item.module or "the pass", figure.label, *values])
    return Grid("What has moved", [*names("stage", "module", "figure"), *numbers("locked", "now")], rows)
