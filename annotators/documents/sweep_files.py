"""A sweep as files: one document, as JSON, as rows of an SQLite database that holds many of them, and as CSV.

    sweep.json      the newest run
    sweep.csv       the same, a line for each stage of each point
    sweep.sqlite    every run: tables runs, points, stage_costs

Every file is written beside its place and moved into it when all of them are whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fxmeter.annotators.documents.sweep import to_csv, to_json
from fxmeter.annotators.documents.sweep_sql import add_run, check_database, newest_run
from fxmeter.annotators.studies.sweep import Sweep
from fxmeter.models.errors import FxmeterError

JSON, SQLITE, CSV = "sweep.json", "sweep.sqlite", "sweep.csv"


def prepare(folder: str | Path) -> Path:
    """See that a folder can be made, or extended, and return it: what could not be written is refused before the work.

    Raises FxmeterError for a path that is no folder, that cannot be written, or holds a database that is not ours.
    """
    place = Path(folder).absolute()
    there = next(path for path in (place, *place.parents) if path.exists() or path.is_symlink())
    if not there.is_dir():
        raise FxmeterError(f"--out {folder}: {there} is no folder; name another one")
    if not os.access(there, os.W_OK | os.X_OK):
        raise FxmeterError(f"--out {folder}: the folder {there} is not writable; name another one")
    database = place / SQLITE
    if database.exists():
        check_database(database)
    elif (place / JSON).exists():
        raise FxmeterError(f"--out {folder}: has a {JSON} but no {SQLITE} to extend; name another folder")
    return place


def write(sweep: Sweep, folder: Path, drawn: Mapping[str, bytes] | None = None) -> dict[str, Any]:
    """Write all files of a sweep, and ``drawn`` ones (name → content), into a folder that :func:`prepare` has seen.

    All are whole on the disk before the first takes its place, so that what goes wrong leaves the folder as it was.
    Returns the document. Raises FxmeterError, with nothing changed, where the disk is full or the folder has gone.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder), tempfile.TemporaryDirectory(prefix=".sweep-", dir=folder) as scratch:
            staged = Path(scratch)
            database = folder / SQLITE
            if database.exists():
                check_database(database)
            run = newest_run(database) + 1
            data = to_json(sweep, run)
            add_run(database, staged / SQLITE, data)
            _put(staged / JSON, (json.dumps(data, indent=1) + "\n").encode())
            _put(staged / CSV, to_csv(data).encode())
            for name, content in (drawn or {}).items():
                _put(staged / name, content)
            _move(staged, folder)
            return data
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FxmeterError(f"--out {folder}: {reason}; nothing was changed there") from None


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _move(staged: Path, folder: Path) -> None:
    """Every staged file into its place, the database last; an interruption waits until it is done."""
    files = sorted((p for p in staged.rglob("*") if p.is_file()), key=lambda path: (path.name == SQLITE, path))
    with _undisturbed():
        for path in files:
            target = folder / path.relative_to(staged)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One writer at a time in a folder, where the system has locks."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
