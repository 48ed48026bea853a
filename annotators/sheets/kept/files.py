"""Files that are whole or not there: written beside their places, then moved into them."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def staged(folder: Path, *, last: str = "") -> Iterator[Path]:
    """A scratch folder whose files move into ``folder`` when the block ends well, the one called ``last`` at the end.

    All of them are on the disk before the first takes its place; where the block fails, ``folder`` stays as it was.
    Raises OSError.
    """
    with tempfile.TemporaryDirectory(prefix=".fxmeter-", dir=folder) as scratch:
        yield Path(scratch)
        files = [path for path in Path(scratch).rglob("*") if path.is_file()]
        for path in files:
            _sync(path)
        with _undisturbed():
            for path in sorted(files, key=lambda path: (path.name == last, path)):
                target = folder / path.relative_to(scratch)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
            _sync(folder)


def write_whole(path: Path, content: bytes) -> None:
    """Write one file, through a link to where it leads; into what is no regular file (a device, a pipe) directly.

    Raises OSError.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        target.write_bytes(content)
        return
    with staged(target.parent) as scratch:
        (scratch / target.name).write_bytes(content)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """An interruption waits until the block is done, where the system can hold it back."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
