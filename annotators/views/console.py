"""What commands print on and with: the console, and tables that fit it without cutting what they say. Without torch."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fxmeter.annotators.units import percentage
from fxmeter.annotators.views.words import PIECE, WORD, Line, folded, longest

FILE_WIDTH = 100
_BLOCKS = " ▏▎▍▌▋▊▉█"
_BAR = 5
LEAST_NAME = 11
"""Columns that a name folds to at the least."""

Cell = str | Text | Padding | float
Role = Literal["name", "number", "spare", "share"]
Heading = tuple[str, Role]
Item = TypeVar("Item")


def stdout_console() -> Console:
    """stdout: as wide as the terminal, 100 columns where it is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=FILE_WIDTH)


def plain_table() -> Table:
    """A table with a rule under its heading and no frame."""
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)


def names(*headings: str) -> list[Heading]:
    """Columns of words, which fold where there is no room."""
    return [(heading, "name") for heading in headings]


def numbers(*headings: str) -> list[Heading]:
    """Columns of figures, which are never cut."""
    return [(heading, "number") for heading in headings]


class _Way(NamedTuple):
    """How a table is shown: headings broken at their spaces, bars beside shares, cells between columns, and whether
    spare columns are there."""

    broken: bool = False
    bars: bool = True
    gap: int = 3
    spare: bool = True


_WAYS = (_Way(), _Way(True), _Way(True, False), _Way(True, False, 2), _Way(True, False, 2, False))
"""From the widest to the narrowest."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table as data. It takes the width that there is by giving up what says least, and cuts nothing:

    headings break at their spaces, then shares lose their bars, then columns move closer, then spare columns go (a line
    says which), then names fold. Where that is not enough, the columns are in several tables, each with the names that
    the rows begin with.

    Attributes:
        title: above the table.
        columns: heading and role of each. A "share" is a number from 0 to 1, shown as a bar and a percentage.
        rows: the cells of each.
        styles: of the rows; () for plain ones.
        total: whether the last row is a sum, with a rule above it.
    """

    title: str
    columns: Sequence[Heading]
    rows: Sequence[Sequence[Cell]]
    styles: Sequence[str] = ()
    total: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        fitting = next((way for way in _WAYS if self.width(way) <= options.max_width), None)
        if fitting is None and self._least_width() > options.max_width and len(self._parts(2)) > 1:
            counts = [self._parts(count) for count in range(2, len(self.columns) + 1)]
            fits = (parts for parts in counts if max(part._least_width() for part in parts) <= options.max_width)
            yield from between(next(fits, counts[-1]))
            return
        if self.title:
            yield Line(self.title, "bold")
        yield self._table(_WAYS[-1], self._name_widths(options.max_width)) if fitting is None else self._table(fitting)
        spare = [heading for heading, role in self.columns if role == "spare"]
        if spare and fitting in (None, _WAYS[-1]):
            yield Line(f"in a wider terminal also: {', '.join(spare)}", "dim")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(self.width(_WAYS[-1]), self.width(_WAYS[0]))

    def width(self, way: _Way) -> int:
        """Columns that the table takes, shown in one of the ways."""
        kept = self._kept(way.spare)
        return sum(self._cell_width(index, way) for index in kept) + way.gap * (len(kept) - 1)

    def _name_widths(self, width: int) -> dict[int, int]:
        """What each column of names has in a table of ``width``: the widest gives way first, down to its longest word,
        then to its longest piece of one."""
        kept = self._kept(spare=False)
        wanted = {index: self._cell_width(index) for index in kept}
        widths = {index: wanted[index] for index in kept if self.columns[index][1] == "name"}
        room = width - sum(wanted.values()) + sum(widths.values()) - _WAYS[-1].gap * (len(kept) - 1)
        for floor in (self._longest(WORD), self._longest(PIECE), dict.fromkeys(widths, 1)):
            while sum(widths.values()) > room and (wide := [index for index in widths if widths[index] > floor[index]]):
                widths[max(wide, key=widths.__getitem__)] -= 1
        return widths

    def _longest(self, between: re.Pattern[str]) -> dict[int, int]:
        """Of each column of names the least that it takes when its cells end lines there."""
        found = {}
        for index, (heading, role) in enumerate(self.columns):
            if role == "name":
                cells = [heading, *(row[index] for row in self.rows)]
                indents = (cell.left if isinstance(cell, Padding) else 0 for cell in cells)
                texts = (_plain(cell).lstrip() for cell in cells)
                least = max(left + longest(text, between) for left, text in zip(indents, texts, strict=True))
                found[index] = max(least, min(LEAST_NAME, self._cell_width(index)))
        return found

    def _kept(self, spare: bool) -> list[int]:
        return [index for index, (_, role) in enumerate(self.columns) if spare or role != "spare"]

    def _least_width(self) -> int:
        """With names folded as far as they can still be read, and without what is spare."""
        kept, least = self._kept(spare=False), self._longest(PIECE)
        return sum(least.get(index, self._cell_width(index)) for index in kept) + _WAYS[-1].gap * (len(kept) - 1)

    def _cell_width(self, index: int, way: _Way | None = None) -> int:
        """The widest line of a column; None for the narrowest way."""
        chosen = way or _WAYS[-1]
        heading = self._wrapped(index) if chosen.broken else self.columns[index][0]
        cells = (_plain(row[index], chosen.bars) for row in self.rows)
        return max(cell_len(line) for text in (heading, *cells) for line in text.split("\n"))

    def _parts(self, count: int) -> list[Grid]:
        """The columns in ``count`` tables, each with those that come before the first number."""
        leading = next((i for i, (_, role) in enumerate(self.columns) if role != "name"), len(self.columns))
        others = [i for i in self._kept(spare=False) if i >= leading]
        parts = []
        for place, run in enumerate(in_parts(others, count) if others else []):
            kept = [*range(leading), *run]
            title = f"{self.title}, continued" if place and self.title else self.title
            rows = [[row[index] for index in kept] for row in self.rows]
            parts.append(Grid(title, [self.columns[index] for index in kept], rows, self.styles, self.total))
        return parts

    def _table(self, way: _Way, widths: Mapping[int, int] | None = None) -> Table:
        """The table; with ``widths`` its names are folded to them."""
        table = plain_table()
        table.padding = (0, 1) if way.gap == 3 else (0, way.gap - 1, 0, 0)
        kept, folds = self._kept(way.spare), widths or {}
        for index in kept:
            heading, role = self.columns[index]
            heading = (
                folded(heading, folds[index]) if index in folds else self._wrapped(index) if way.broken else heading
            )
            table.add_column(heading, justify="right" if role in ("number", "spare") else "left", no_wrap=True)
        for place, row in enumerate(self.rows):
            if self.total and place == len(self.rows) - 1:
                table.add_section()
            cells = (
                _shown(_folded(row[index], folds[index]) if index in folds else row[index], way.bars) for index in kept
            )
            table.add_row(*cells, style=self.styles[place] if self.styles else "")
        return table

    def _wrapped(self, index: int) -> str:
        """A heading no wider than its column's cells, as far as its words allow."""
        widest = max((cell_len(line) for row in self.rows for line in _plain(row[index]).split("\n")), default=1)
        lines = self.columns[index][0].split("\n")
        return "\n".join(part for line in lines for part in textwrap.wrap(line, max(1, widest), break_long_words=False))


def markdown_table(grid: Grid) -> str:
    """A grid as Markdown; what is under another is indented, and a bar is left out."""
    rule = "".join("---:|" if role in ("number", "spare") else "---|" for _, role in grid.columns)
    heading = [heading.replace("\n", " ") for heading, _ in grid.columns]
    rows = [[_as_markdown(cell) for cell in row] for row in grid.rows]
    first, *others = [f"| {' | '.join(cells)} |" for cells in (heading, *rows)]
    return "\n".join([f"### {grid.title}", "", first, f"|{rule}", *others])


def _as_markdown(cell: Cell) -> str:
    if isinstance(cell, Padding):
        return "&nbsp;" * 2 * cell.left + str(cell.renderable)
    return str(_shown(cell, False)).strip().replace("\n", "<br>")


def short_op(op: str) -> str:
    """An op's name without what every op has: "aten.mm.default" is "mm"."""
    return op.removeprefix("aten.").removeprefix("fxmeter.").removesuffix(".default")


def in_parts(items: Sequence[Item], count: int) -> list[Sequence[Item]]:
    """The items in order, in about ``count`` runs of nearly the same length."""
    size = -(-len(items) // count)
    return [items[start : start + size] for start in range(0, len(items), size)]


@dataclass(frozen=True, slots=True)
class FirstThatFits:
    """The first of several ways to show the same, the widest first, that the console has the width for, or the last."""

    ways: Sequence[Sequence[Grid]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        fitting = (way for way in self.ways if max(grid.width(_WAYS[-1]) for grid in way) <= options.max_width)
        chosen = next(fitting, self.ways[-1])
        yield from between(chosen)


def between(grids: Sequence[Grid]) -> Iterator[RenderableType]:
    """Tables with an empty line between two."""
    for place, grid in enumerate(grids):
        yield from [""] if place else []
        yield grid


def _shown(cell: Cell, bars: bool) -> str | Text | Padding:
    if not isinstance(cell, float):
        return cell
    percent = f"{percentage(cell):>4}"
    return Text.assemble((_bar(cell), "cyan"), " ", percent) if bars else percent


def _folded(cell: Cell, width: int) -> Cell:
    if isinstance(cell, Padding):
        return Padding(folded(str(cell.renderable), max(1, width - cell.left)), (0, 0, 0, cell.left))
    return folded(cell, width) if isinstance(cell, str) else cell


def _plain(cell: Cell, bars: bool = False) -> str:
    """A cell as text, with its indent."""
    return " " * cell.left + str(cell.renderable) if isinstance(cell, Padding) else str(_shown(cell, bars))


def _bar(share: float) -> str:
    full, eighths = divmod(round(max(0.0, min(1.0, share)) * _BAR * 8), 8)
    return ("█" * full + (_BLOCKS[eighths] if eighths else "")).ljust(_BAR)
