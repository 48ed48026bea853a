"""The module tree of a stage as HTML that folds, without a script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from fxmeter.annotators.interactive.shown import STYLE, bar
from fxmeter.annotators.sheets.tables import StageTables
from fxmeter.annotators.studies.breakdown import TreeRow, module_tree
from fxmeter.annotators.studies.report import title_of
from fxmeter.annotators.units import quantity
from fxmeter.annotators.views.reports.summary import summary_lines

ALL_LEVELS = 99
OPEN = 2
"""Levels that are open before anybody clicks."""
_WIDTHS = ("8em", "9em", "7em", "9em", "7em")
_HEADINGS = ("FLOPs", "", "I/O", "", "activations")


def tree_html(stage: StageTables) -> str:
    """A stage in a notebook: what it is, its figures, its modules with their shares of FLOPs and of bytes."""
    figures = "".join(
        f'<tr><td class="name">{escape(label)}</td><td>{escape(value)}</td></tr>'
        for label, value in summary_lines(stage)
    )
    root = stage.modules[""].class_name
    title = f"<b>{escape(root)}: {escape(title_of(stage))}</b>, {escape(stage.attention)}"
    heading = f'<div class="leaf"><b>modules</b>{_figures([f"<b>{each}</b>" for each in _HEADINGS])}</div>'
    tree = f'<div class="tree">{heading}{_nested(module_tree(stage, ALL_LEVELS))}</div>'
    return f'{STYLE}<div class="fxmeter"><div>{title}</div><table>{figures}</table>{tree}</div>'


def _nested(rows: Sequence[TreeRow]) -> str:
    """Rows in their order, each followed by those below it, as nested folds."""
    parts = []
    start = 0
    while start < len(rows):
        end = start + 1
        while end < len(rows) and rows[end].depth > rows[start].depth:
            end += 1
        parts.append(_fold(rows[start], rows[start + 1 : end]))
        start = end
    return "".join(parts)


def _fold(row: TreeRow, below: Sequence[TreeRow]) -> str:
    line = escape(row.label) + _figures(
        [
            quantity(row.cost.flops, "flop"),
            bar(row.flops_share),
            quantity(row.cost.io_bytes, "byte"),
            bar(row.io_share),
            quantity(row.cost.activation_bytes, "memory"),
        ]
    )
    if not below:
        return f'<div class="leaf">{line}</div>'
    opened = " open" if row.depth < OPEN else ""
    return f"<details{opened}><summary>{line}</summary>{_nested(below)}</details>"


def _figures(cells: Sequence[str]) -> str:
    spans = (f'<span style="width:{width}">{cell}</span>' for cell, width in zip(cells, _WIDTHS, strict=True))
    return f'<span class="figures">{"".join(spans)}</span>'
