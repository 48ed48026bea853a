"""What has moved since a lock was written, as tables for the console or as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from rich.console import Group, RenderableType

from fxmeter.annotators.differences.difference import title_in
from fxmeter.annotators.differences.lock import Checked
from fxmeter.annotators.units import quantity
from fxmeter.annotators.views.console import Cell, Grid, markdown_table, names, numbers
from fxmeter.annotators.views.words import Line
from fxmeter.models.names import Document
from fxmeter.models.stage_cost import ALL_FIGURES


def lock_view(lock: Document, path: str) -> RenderableType:
    """What a lock has, in a line."""
    passes = ", ".join(title_in(stage) for stage in lock["stages"])
    modules, ops = (sum(len(stage[key]) for stage in lock["stages"]) for key in ("modules", "ops"))
    return Line(f"{path}: every figure of {lock['model']['name']}, {passes}: {modules:,} modules, {ops:,} ops")


def check_view(found: Checked) -> RenderableType:
    """The verdict, then what has moved."""
    style = "bold red" if found.moved else "bold green"
    verdict = Line(_verdict(found), style=style)
    return Group(verdict, *(part for grid in _moved(found) for part in ("", grid)))


def check_markdown(found: Checked) -> str:
    """The same as Markdown."""
    return "\n\n".join([f"**{_verdict(found)}**", *map(markdown_table, _moved(found))]) + "\n"


def _verdict(found: Checked) -> str:
    if found.moved:
        modules = list(dict.fromkeys(item.module for item in found.moved if item.module))
        others = f" and {len(modules) - 1} more" if len(modules) > 1 else ""
        where = f", in {modules[0]}{others}" if modules else ""
        return f"{moved_in_words(found)}{where}: {found.reason}"
    return "no figure has moved" if found.difference.same else "no figure has moved by more than it may"


def moved_in_words(found: Checked) -> str:
    """ "1 figure has moved", "12 figures have moved"."""
    return f"{len(found.moved)} {'figure has' if len(found.moved) == 1 else 'figures have'} moved"


def _moved(found: Checked) -> Iterator[Grid]:
    """For each pass, the figures of it and of modules."""
    for stage, items in groupby(found.moved, lambda item: item.stage):
        rows: list[list[Cell]] = []
        for item in items:
            figure = ALL_FIGURES[item.figure]
            module = f"{item.module or 'the pass'}{f' ({item.times}×)' if item.times > 1 else ''}"
            rows.append([module, figure.label, *(quantity(value, figure.unit) for value in (item.before, item.after))])
        yield Grid(f"What has moved: {stage}", [*names("module", "figure"), *numbers("locked", "now")], rows)
