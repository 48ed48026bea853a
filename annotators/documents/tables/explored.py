"""Explored architectures in SQLite: a row each, added batch by batch, so that whatever ends the work loses none.

    explore.sqlite     what was asked (table question), and every architecture (table architectures)
    explore.parquet    the same table, where pyarrow is there: every field in a column of its own

A row is known by its key, a hash of its config and of what was asked: the same architecture comes once, whoever prices
it and how often. ``fields`` is JSON; in SQL, ``fields ->> '$.hidden_size'``. Whole numbers are as in
:mod:`fxmeter.annotators.documents.tables.sweep_sql`.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fxmeter.annotators.documents.tables.sweep_sql import stored
from fxmeter.annotators.studies.architectures.pricing import DIED, Architecture, is_kept
from fxmeter.annotators.studies.architectures.question import Question
from fxmeter.models.errors import FxmeterError, ScenarioError
from fxmeter.models.names import Document

SQLITE, PARQUET, PARETO = "explore.sqlite", "explore.parquet", "pareto.csv"
DATABASE_VERSION = 1
_APPLICATION = 0x66786D65
"""Says whose file it is: "fxme"."""


class Explored:
    """The table of a folder, for what one question asks. ``defaults`` has the fields that conditions read and no row
    sets."""

    def __init__(self, database: sqlite3.Connection, folder: Path, question: Question, defaults: Document) -> None:
        self._database, self.folder, self.question, self.defaults = database, folder, question, defaults
        self.columns = tuple(column.name for column in question.columns)

    def known(self) -> set[str]:
        """Keys of what needs no work any more: refused, priced, or left out by the conditions that there are now."""
        done = "complete OR (refused NOT NULL AND refused != ?)"
        keys = {key for (key,) in self._database.execute(f"SELECT key FROM architectures WHERE {done}", (DIED,))}
        return keys | {row["key"] for row in self._rows("NOT complete AND refused IS NULL") if not self._kept(row)}

    def add(self, batch: Iterable[Architecture]) -> None:
        """Write a batch, whole. A row that is there already is replaced by one that knows more."""
        rows = [self._row(each) for each in batch]
        marks = ", ".join("?" * (4 + len(self.columns)))
        with self._database:
            self._database.executemany(f"INSERT OR REPLACE INTO architectures VALUES ({marks})", rows)

    def rows(self) -> Iterator[Document]:
        """What was priced and the conditions let through, by key: ``fields`` as set, and every figure."""
        return (row for row in self._rows("complete") if self._kept(row))

    def totals(self) -> tuple[int, int]:
        """How many architectures :meth:`rows` has, and how many executions of ops without a rule they have."""
        count = missing = 0
        names = [f"{name}_uncosted" for name, _ in self.question.scenarios]
        for row in self.rows():
            count += 1
            missing += sum(row[name] for name in names)
        return count, missing

    def refused(self) -> Iterator[tuple[str, Document]]:
        """(reason, fields) of what could not be."""
        asked = self._database.execute("SELECT refused, fields FROM architectures WHERE refused NOT NULL ORDER BY key")
        return ((reason, json.loads(fields)) for reason, fields in asked)

    def _row(self, one: Architecture) -> list[Any]:
        complete = len(one.figures) == len(self.columns)
        figures = [stored(one.figures.get(name)) for name in self.columns]
        return [one.key, json.dumps(one.fields), one.refused, int(complete), *figures]

    def _rows(self, condition: str) -> Iterator[Document]:
        """Rows of a kind, with numbers as numbers again."""
        whole = {column.name for column in self.question.columns if column.whole}
        names = ("key", "fields", "refused", "complete", *self.columns)
        for values in self._database.execute(f"SELECT * FROM architectures WHERE {condition} ORDER BY key"):
            row = dict(zip(names, values, strict=True))
            row["fields"] = json.loads(row["fields"])
            yield {n: int(v) if n in whole and isinstance(v, str) else v for n, v in row.items()}

    def _kept(self, row: Document) -> bool:
        figures = {name: row[name] for name in self.columns if row[name] is not None}
        try:
            return is_kept(self.question, {**self.defaults, **row["fields"], **figures})
        except ScenarioError:  # a condition that cannot be computed of it
            return False


@contextmanager
def explored(folder: str | Path, question: Question, defaults: Document) -> Iterator[Explored]:
    """The table of a folder, which is made, or goes on where it ended.

    Raises FxmeterError in one line: no folder, another question's, no database of ours, a full disk. What was written
    stays.
    """
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        if not os.access(place, os.W_OK | os.X_OK):
            raise FxmeterError(f"--out {folder}: the folder is not writable; name another one")
        database = sqlite3.connect(place / SQLITE, timeout=60)
        try:
            _prepare(database, folder, question)
            yield Explored(database, place, question, defaults)
        finally:
            database.close()
    except OSError as error:
        raise FxmeterError(f"--out {folder}: {error.strerror or error}") from None
    except sqlite3.Error as error:
        raise FxmeterError(f"--out {folder}: {SQLITE}: {error}; what was written before is kept") from None


def _prepare(database: sqlite3.Connection, folder: str | Path, question: Question) -> None:
    with database:
        database.execute("BEGIN IMMEDIATE")
        if not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            _create(database, question)
        mark, version = (
            database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if (mark, version) != (_APPLICATION, DATABASE_VERSION):
            raise FxmeterError(f"--out {folder}: {SQLITE} is no exploration of this release; name another folder")
        before = json.loads(database.execute("SELECT facts FROM question").fetchone()[0])
    now = json.loads(json.dumps(question.facts, default=str))
    if other := [name for name in now if now[name] != before.get(name)]:
        raise FxmeterError(
            f"--out {folder}: was asked with another {' and '.join(other).replace('_', ' ')}; name another folder"
        )


def _create(database: sqlite3.Connection, question: Question) -> None:
    kinds = (
        (column.name, "" if column.whole else "TEXT" if column.kind == "word" else "REAL")
        for column in question.columns
    )
    columns = ", ".join(f"{name} {kind}".strip() for name, kind in kinds)
    database.execute("CREATE TABLE question (facts TEXT NOT NULL)")
    database.execute("INSERT INTO question VALUES (?)", (json.dumps(question.facts, default=str),))
    database.execute(
        "CREATE TABLE architectures (key TEXT PRIMARY KEY, fields TEXT NOT NULL, refused TEXT, "
        f"complete INTEGER NOT NULL, {columns}) WITHOUT ROWID"
    )
    database.execute(f"PRAGMA application_id = {_APPLICATION}")
    database.execute(f"PRAGMA user_version = {DATABASE_VERSION}")
