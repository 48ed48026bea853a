"""What commands print on and with: the console, and tables that fit it without cutting what they say. Without torch."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fxmeter.annotators.units import percentage

FILE_WIDTH = 100
_UNLIMITED = 10_000
_BLOCKS = " ▏▎▍▌▋▊▉█"
_BAR = 5
GAP = 3
LEAST_NAME = 11
"""Columns between two of a table, and those that a name folds to at the least."""

Cell = str | Text | Padding | float
Role = Literal["name", "number", "spare", "share"]
Heading = tuple[str, Role]
Item = TypeVar("Item")


def stdout_console() -> Console:
    """stdout: as wide as the terminal, 100 columns where it is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=FILE_WIDTH)


def plain_table(*, title: str | None = None) -> Table:
    """A table with a rule under its heading and no frame."""
    return Table(
        title=title or None,
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        title_justify="left",
        title_style="bold",
    )


def names(*headings: str) -> list[Heading]:
    """Columns of words, which fold where there is no room."""
    return [(heading, "name") for heading in headings]


def numbers(*headings: str) -> list[Heading]:
    """Columns of figures, which are never cut."""
    return [(heading, "number") for heading in headings]


@dataclass(frozen=True, slots=True)
class Grid:
    """A table as data. It takes the width that there is by giving up what says least, and cuts nothing:

    headings break at their spaces, then shares lose their bars, then spare columns go, then names fold. Where that is
    not enough, the columns are in several tables, each with the names that the rows begin with.

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
        tables = self._tables()
        fitting = next((table for table in tables if _width(console, options, table) <= options.max_width), None)
        if fitting is not None:
            yield fitting
        elif self._least_width() <= options.max_width or len(self._parts(2)) < 2:
            yield self._table(broken=True, bars=False, spare=False, name_width=self._name_width(options.max_width))
        else:
            ways = [self._parts(count) for count in range(2, len(self.columns) + 1)]
            fits = (way for way in ways if max(part._least_width() for part in way) <= options.max_width)
            yield from next(fits, ways[-1])

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        width = _width(console, options, self._tables()[-1])
        return Measurement(width, width)

    def _name_width(self, width: int) -> int | None:
        """What a table of ``width`` leaves for its names; None where they are in several columns."""
        kept = [index for index, (_, role) in enumerate(self.columns) if role != "spare"]
        others = [index for index in kept if self.columns[index][1] != "name"]
        if len(others) != len(kept) - 1:
            return None
        return width - sum(map(self._cell_width, others)) - GAP * len(others)

    def _least_width(self) -> int:
        """With names folded as far as they can still be read, and without what is spare."""
        kept = [index for index, (_, role) in enumerate(self.columns) if role != "spare"]
        widths = (self._cell_width(index) for index in kept)
        names = (LEAST_NAME if self.columns[index][1] == "name" else _UNLIMITED for index in kept)
        return sum(map(min, widths, names)) + GAP * (len(kept) - 1)

    def _cell_width(self, index: int) -> int:
        """The widest line of a column, its heading broken at its spaces and shares without bars."""
        cells = (str(_plain(row[index])) for row in self.rows)
        lines = [line for text in (self._wrapped(index), *cells) for line in text.split("\n")]
        return max(map(cell_len, lines))

    def _parts(self, count: int) -> list[Grid]:
        """The columns in ``count`` tables, each with those that come before the first number."""
        leading = next((i for i, (_, role) in enumerate(self.columns) if role != "name"), len(self.columns))
        others = [i for i in range(leading, len(self.columns)) if self.columns[i][1] != "spare"]
        parts = []
        for place, run in enumerate(in_parts(others, count) if others else []):
            kept = [*range(leading), *run]
            title = f"{self.title}, continued" if place and self.title else self.title
            rows = [[row[index] for index in kept] for row in self.rows]
            parts.append(Grid(title, [self.columns[index] for index in kept], rows, self.styles, self.total))
        return parts

    def _tables(self) -> list[Table]:
        """From the widest to the narrowest."""
        return [
            self._table(),
            self._table(broken=True),
            self._table(broken=True, bars=False),
            self._table(broken=True, bars=False, spare=False),
        ]

    def _table(
        self, *, broken: bool = False, bars: bool = True, spare: bool = True, name_width: int | None = None
    ) -> Table:
        table = plain_table(title=self.title)
        kept = [index for index, (_, role) in enumerate(self.columns) if spare or role != "spare"]
        for index in kept:
            heading, role = self.columns[index]
            if role == "name":
                table.add_column(heading, overflow="fold")
            else:
                heading = self._wrapped(index) if broken else heading
                table.add_column(heading, justify="left" if role == "share" else "right", no_wrap=True)
        for place, row in enumerate(self.rows):
            if self.total and place == len(self.rows) - 1:
                table.add_section()
            cells = [_shown(row[index], bars) for index in kept]
            if name_width is not None:
                cells = [
                    _folded(cell, name_width) if self.columns[index][1] == "name" else cell
                    for index, cell in zip(kept, cells, strict=True)
                ]
            table.add_row(*cells, style=self.styles[place] if self.styles else "")
        return table

    def _wrapped(self, index: int) -> str:
        """A heading no wider than its column's cells, as far as its words allow."""
        widest = max((cell_len(str(_shown(row[index], False))) for row in self.rows), default=1)
        lines = self.columns[index][0].split("\n")
        return "\n".join(part for line in lines for part in textwrap.wrap(line, widest, break_long_words=False))


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
        fitting = (way for way in self.ways if max(_width(console, options, grid) for grid in way) <= options.max_width)
        chosen = next(fitting, self.ways[-1])
        yield Group(*(part for grid in chosen for part in ("", grid)))


def _width(console: Console, options: ConsoleOptions, renderable: RenderableType) -> int:
    """Columns that it takes where there are enough."""
    return Measurement.get(console, options.update(width=_UNLIMITED), renderable).maximum


def _shown(cell: Cell, bars: bool) -> str | Text | Padding:
    if not isinstance(cell, float):
        return cell
    percent = f"{percentage(cell):>4}"
    return Text.assemble((_bar(cell), "cyan"), " ", percent) if bars else percent


def _folded(cell: str | Text | Padding, width: int) -> str | Text | Padding:
    """A name in lines of ``width``, which end behind a dot, an underscore or a space where there is one."""
    if isinstance(cell, Padding):
        return Padding(_folded(str(cell.renderable), max(1, width - cell.left)), (0, 0, 0, cell.left))
    if isinstance(cell, Text):
        return cell
    lines = []
    for line in cell.split("\n"):
        while len(line) > width:
            end = max(line.rfind(" ", 0, width + 1), *(line.rfind(mark, 0, width) for mark in "._")) + 1 or width
            lines.append(line[:end].rstrip())
            line = line[end:]
        lines.append(line)
    return "\n".join(lines)


def _plain(cell: Cell) -> str:
    """A cell as it takes least room."""
    return " " * cell.left + str(cell.renderable) if isinstance(cell, Padding) else str(_shown(cell, False))


def _bar(share: float) -> str:
    full, eighths = divmod(round(max(0.0, min(1.0, share)) * _BAR * 8), 8)
    return ("█" * full + (_BLOCKS[eighths] if eighths else "")).ljust(_BAR)
