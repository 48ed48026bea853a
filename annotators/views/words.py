"""Words on the console: sentences and names in lines of a width, in which no number is cut."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

_UNIT = re.compile(r"(?<=\d) (?=\S)")
_BOUND = "\N{NO-BREAK SPACE}"
WORD = re.compile(r"(?<= )(?!(?<=\d )(?:[kMGTP]?FLOP|[kKMGTP]?i?B|[mun]?s)\b)")
_PATH = re.compile(r"(?<=[^\d]\.)|(?<=\d\.)(?!\d)")
PIECE = re.compile(
    r"(?<=[_/])|(?<=\d×)"  # of names and shapes
    r"|(?<=[^\d][.,])|(?<=\d\.)(?!\d)|(?<=\d,)(?!…|\d{3}(?!\d))"  # of paths and lists of layers, no decimal point
    r"|(?<=[a-z])(?=[A-Z])|(?<=\d)(?=[A-Z][a-z])|(?<=[a-z]-)"  # of classes and devices
)
_LETTER = re.compile(r"(?<=\D)(?![.,]\d)|(?<=\d)(?![\d.,])")
"""Where a line may end: between words, the names of a path, pieces of a name, letters. Never in a number."""


@dataclass(frozen=True, slots=True)
class Line:
    """A sentence as wide as the console, whose lines end between words, but not between a number and its unit."""

    text: str
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        parts = _UNIT.sub(_BOUND, self.text).split("\n")
        lines = [
            line for part in parts for line in textwrap.wrap(part, options.max_width, break_on_hyphens=False) or [""]
        ]
        yield Text("\n".join(lines).replace(_BOUND, " "), self.style, no_wrap=True, overflow="ignore")


def folded(text: str, width: int) -> str:
    """A name in lines of ``width``, which end between words; of a word that is wider, between its pieces."""
    return "\n".join(part for line in text.split("\n") for part in _fold(line, width, (WORD, _PATH, PIECE, _LETTER)))


def longest(text: str, between: re.Pattern[str]) -> int:
    """Cells of the longest part of a text that is split ``between`` its words or pieces."""
    parts = (part.rstrip() for line in text.split("\n") for word in WORD.split(line) for part in between.split(word))
    return max(map(cell_len, parts), default=0)


def _fold(line: str, width: int, ways: tuple[re.Pattern[str], ...]) -> list[str]:
    if cell_len(line.rstrip()) <= width or not ways:
        return [line]
    lines = [""]
    for part in ways[0].split(line):
        if cell_len((lines[-1] + part).rstrip()) <= width:
            lines[-1] += part
        else:
            lines += _fold(part, width, ways[1:])
    return [kept for each in lines if (kept := each.rstrip() if each is not lines[-1] else each)]
