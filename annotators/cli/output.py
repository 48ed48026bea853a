"""What commands print and write, and how they end: the result on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fxmeter.models.errors import FxmeterError

if TYPE_CHECKING:
    from rich.console import RenderableType

EXIT_ERROR, EXIT_USAGE, EXIT_UNCOSTED, EXIT_INTERRUPTED = 1, 2, 3, 130


class Failed(Exception):  # noqa: N818  a finding, not a mistake
    """The result is out, and it is no success: one line says why, the exit code which kind."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def complain(message: str) -> None:
    """One line on stderr."""
    print(f"fxmeter: {message}", file=sys.stderr)


@contextmanager
def progress(first: str) -> Iterator[Callable[[str], None]]:
    """A line on stderr that says what is going on, gone when it is over. Yields what changes the line."""
    from rich.console import Console

    with Console(stderr=True).status(first) as status:
        yield status.update


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, gone when it is over. Yields what moves it on."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as line:
        task = line.add_task(what, total=total)
        yield lambda count: line.advance(task, count)


def show(view: RenderableType) -> None:
    """Print on stdout."""
    from fxmeter.annotators.views.console import stdout_console

    stdout_console().print(view)


def check_writable(option: str, path: str | None) -> None:
    """Refuse before the work what could not be written after it."""
    if path is None or path == "-":
        return
    target = Path(path).resolve()
    if target.is_dir():
        raise FxmeterError(f"{option} {path}: is a folder; name a file")
    if not target.parent.is_dir():
        raise FxmeterError(f"{option} {path}: there is no folder {target.parent}")
    place = target.parent if target.is_file() or not target.exists() else target
    if not os.access(place, os.W_OK):
        raise FxmeterError(f"{option} {path}: {place} is not writable")


def write_json(data: object, path: str) -> None:
    """JSON to stdout ("-"), or to the file of --json."""
    text = json.dumps(data, indent=2) + "\n"
    if path == "-":
        sys.stdout.write(text)
    else:
        write_file("--json", text, path)


def write_file(option: str, content: str | bytes, path: str) -> None:
    """The file that an option names, whole or not at all."""
    from fxmeter.annotators.sheets.kept.files import write_whole

    try:
        write_whole(Path(path), content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise FxmeterError(f"{option} {path}: {error.strerror or error}") from None


def refuse_two_ways(markdown: bool, json_path: str | None) -> None:
    """A usage error where a command is told to print as Markdown and as JSON."""
    if markdown and json_path:
        raise click.UsageError("--markdown and --json both say how to print; give one")


def exit_unless_costed(uncosted: int, allowed: bool) -> None:
    """End with the exit code for ops without a rule, unless there are none or --allow-uncosted accepts them."""
    if uncosted and not allowed:
        raise Failed(
            f"{uncosted} op executions have no rule; their FLOPs are missing (--allow-uncosted accepts that)",
            EXIT_UNCOSTED,
        )
