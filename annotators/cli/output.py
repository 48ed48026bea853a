"""What commands share: progress on stderr, complaints in one line, JSON that is written whole or not at all."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fxmeter.models.errors import FxmeterError

EXIT_ERROR, EXIT_USAGE, EXIT_UNCOSTED, EXIT_INTERRUPTED = 1, 2, 3, 130


def complain(message: str) -> None:
    """One line on stderr."""
    print(f"fxmeter: {message}", file=sys.stderr)


@contextmanager
def progress(first: str) -> Iterator[Callable[[str], None]]:
    """A line on stderr that says what is going on, gone when it is over. Yields what changes the line."""
    from rich.console import Console

    with Console(stderr=True).status(first) as status:
        yield lambda text: status.update(text)


def quiet_transformers() -> None:
    """Keep the libraries' own log lines and warnings off stderr: what is wrong with a config is said in one line."""
    import logging
    import warnings

    import transformers

    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity(logging.CRITICAL)
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)


def check_writable(option: str, path: str | None) -> None:
    """Refuse before the work what could not be written after it."""
    if path is None or path == "-":
        return
    folder = Path(path).absolute().parent
    if Path(path).is_dir():
        raise FxmeterError(f"{option} {path}: is a folder; name a file")
    if not folder.is_dir():
        raise FxmeterError(f"{option} {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise FxmeterError(f"{option} {path}: the folder {folder} is not writable")


def write_json(option: str, data: Any, path: str) -> None:
    """JSON to stdout ("-"), or to a file."""
    text = json.dumps(data, indent=2) + "\n"
    if path == "-":
        sys.stdout.write(text)
    else:
        write_file(option, text, path)


def _umask() -> int:
    """What new files of this process must not allow: a temporary file is its owner's alone."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write_file(option: str, text: str, path: str) -> None:
    """A file that is whole or not there: written beside its place, then moved into it."""
    target = Path(path).absolute()
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=target.parent, prefix=f".{target.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            try:
                os.fchmod(file.fileno(), 0o666 & ~_umask())
                file.write(text)
                file.flush()
                temporary.replace(target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise FxmeterError(f"{option} {path}: {error.strerror or error}") from None
