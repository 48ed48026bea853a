"""A sweep as files: one document, as JSON, as rows of an SQLite database that holds many of them, and as CSV.

    sweep.json      the newest run
    sweep.csv       the same, a line for each stage of each point
    sweep.sqlite    every run: tables runs, points, stage_costs

All files are whole, or none is changed (:mod:`fxmeter.annotators.sheets.kept.files`).
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

from fxmeter.annotators.documents.tables.sweep import to_csv, to_json
from fxmeter.annotators.documents.tables.sweep_sql import add_run, check_database, newest_run
from fxmeter.annotators.sheets.kept.files import staged
from fxmeter.annotators.studies.sweep import Sweep
from fxmeter.models.errors import FxmeterError
from fxmeter.models.names import Document

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


def write(sweep: Sweep, folder: Path, drawn: Mapping[str, bytes] | None = None) -> Document:
    """Write all files of a sweep, and ``drawn`` ones (name → content), into a folder that :func:`prepare` has seen.

    All are whole on the disk before the first takes its place, so that what goes wrong leaves the folder as it was.
    Returns the document. Raises FxmeterError, with nothing changed, where the disk is full or the folder has gone.
    """
    database = folder / SQLITE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder), staged(folder, last=SQLITE) as scratch:
            if database.exists():
                check_database(database)
            data = to_json(sweep, newest_run(database) + 1)
            add_run(database, scratch / SQLITE, data)
            (scratch / JSON).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
            (scratch / CSV).write_text(to_csv(data), encoding="utf-8")
            for name, content in (drawn or {}).items():
                (scratch / name).parent.mkdir(exist_ok=True)
                (scratch / name).write_bytes(content)
        return data
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FxmeterError(f"--out {folder}: {reason}; nothing was changed there") from None


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
