"""The consoles that commands print on, without torch."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

FILE_WIDTH = 100


def stdout_console() -> Console:
    """stdout: as wide as the terminal, 100 columns where it is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=FILE_WIDTH)


def plain_table(*, title: str | None = None) -> Table:
    """A table with a rule under its heading and no frame."""
    return Table(
        title=title,
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        title_justify="left",
        title_style="bold",
    )
