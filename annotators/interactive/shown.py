"""Rows that show themselves as a table: as text at a prompt, as HTML in a notebook."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Generic, TypeVar, overload

from rich.console import Console, RenderableType
from rich.padding import Padding

from fxmeter.annotators.units import percentage
from fxmeter.annotators.views.console import FILE_WIDTH, Cell, Grid

Row = TypeVar("Row")

STYLE = """
<style>
.fxmeter { font-size: 13px; line-height: 1.6; font-variant-numeric: tabular-nums; overflow-x: auto; }
.fxmeter table { border-collapse: collapse; font-size: inherit; }
.fxmeter caption { text-align: left; }
.fxmeter th, .fxmeter td { padding: 1px 10px; text-align: right; white-space: nowrap; vertical-align: top; }
.fxmeter th { border-bottom: 1px solid currentColor; font-weight: 600; white-space: pre-line; }
.fxmeter .name { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.fxmeter .bar { display: inline-block; width: 60px; height: 8px; margin: 0 6px;
  background: color-mix(in srgb, currentColor 14%, transparent); vertical-align: middle; }
.fxmeter .bar i { display: block; height: 8px; background: #2a9db5; }
.fxmeter .tree { max-width: 1000px; min-width: 700px; }
.fxmeter .share { display: inline-block; min-width: 3em; }
.fxmeter details { padding-left: 1.2em; }
.fxmeter details > summary { margin-left: -1.2em; }
.fxmeter summary { cursor: pointer; }
.fxmeter .figures { float: right; }
.fxmeter .figures > span { display: inline-block; text-align: right; }
</style>
"""
"""Colours are those of the page around it, so that it reads in a dark and in a light one."""


@dataclass(frozen=True, slots=True, repr=False)
class Shown(Sequence[Row], Generic[Row]):
    """Rows as data, and the table of them that a person is shown."""

    rows: tuple[Row, ...]
    grid: Grid

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Row, ...]: ...
    def __getitem__(self, index: int | slice) -> Row | tuple[Row, ...]:
        return self.rows[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return as_text(self.grid)

    def _repr_html_(self) -> str:
        heads = "".join(f"<th{_class(role)}>{escape(heading)}</th>" for heading, role in self.grid.columns)
        roles = [role for _, role in self.grid.columns]
        lines = (
            "".join(f"<td{_class(role)}>{_cell(cell)}</td>" for cell, role in zip(row, roles, strict=True))
            for row in self.grid.rows
        )
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        title = f"<caption><b>{escape(self.grid.title)}</b></caption>"
        return f'{STYLE}<div class="fxmeter"><table>{title}<tr>{heads}</tr>{body}</table></div>'


class Words(str):
    """A text that a prompt shows as it reads, not as it is typed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def as_text(view: RenderableType) -> str:
    """What is printed of it to a file, lines without the blanks behind them."""
    out = io.StringIO()
    Console(file=out, width=FILE_WIDTH, highlight=False, color_system=None, force_jupyter=False).print(view)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def bar(share: float) -> str:
    """A share as a bar and a percentage."""
    width = f"{max(0.0, min(1.0, share)):.1%}"
    return f'<span class="bar"><i style="width:{width}"></i></span><span class="share">{percentage(share)}</span>'


def _class(role: str) -> str:
    return ' class="name"' if role == "name" else ""


def _cell(cell: Cell) -> str:
    if isinstance(cell, float):
        return bar(cell)
    if isinstance(cell, Padding):
        return "&emsp;" * (cell.left // 2) + escape(str(cell.renderable))
    return escape(str(cell)).replace("\n", "<br>")
