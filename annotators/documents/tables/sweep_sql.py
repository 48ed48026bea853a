"""Sweeps in SQLite: tables runs, points and stage_costs.

Counts are whole numbers of any size. Their columns have no type, so that SQLite keeps what it is given: an INTEGER
where 64 bits hold it, its decimal digits as TEXT where they do not (which sort after every INTEGER). ``int(value)``
reads both. Figures that are quotients are REAL.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from fxmeter.models.errors import FxmeterError
from fxmeter.models.names import Document, Fields
from fxmeter.models.stage_cost import FIGURES

DATABASE_VERSION = 1
_HEAD = (
    "schema_version",
    "analytic_model_version",
    "created",
    "versions",
    "model",
    "config_sha256",
    "conventions",
    "axes",
    "uncosted",
    "recorded",
)
_SIZES = ("point", "batch", "image_tokens", "prefill", "decode", "steps")
_STAGE = ("stage", "attention", "query_len", "past_len", "steps")
_AS_JSON = ("versions", "model", "conventions", "axes", "recorded")

SCHEMA = f"""
CREATE TABLE runs (run INTEGER PRIMARY KEY, name TEXT NOT NULL, {", ".join(f"{name} NOT NULL" for name in _HEAD)});
CREATE TABLE points (
    run INTEGER NOT NULL REFERENCES runs, point INTEGER NOT NULL, batch INTEGER NOT NULL, crop_rows INTEGER,
    crop_columns INTEGER, image_tokens INTEGER, prefill INTEGER, decode INTEGER, steps INTEGER NOT NULL,
    PRIMARY KEY (run, point)
) WITHOUT ROWID;
CREATE TABLE stage_costs (
    run INTEGER NOT NULL, point INTEGER NOT NULL, place INTEGER NOT NULL, stage TEXT NOT NULL, attention TEXT NOT NULL,
    query_len INTEGER, past_len INTEGER, steps INTEGER NOT NULL,
    {", ".join(name + ("" if figure.whole else " REAL") for name, figure in FIGURES.items())},
    PRIMARY KEY (run, point, place), FOREIGN KEY (run, point) REFERENCES points
) WITHOUT ROWID;
CREATE INDEX points_by_size ON points (run, batch, prefill, decode);
CREATE INDEX costs_by_stage ON stage_costs (run, stage, attention, point);
PRAGMA user_version = {DATABASE_VERSION};
"""


def check_database(path: Path) -> None:
    """See that a file is a database of sweeps that can be extended; a FxmeterError says what it is instead."""
    try:
        with closing(_opened(path)) as database:
            state = database.execute("PRAGMA quick_check").fetchone()[0]
            version = database.execute("PRAGMA user_version").fetchone()[0]
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            columns = tuple(name for (name,) in database.execute("SELECT name FROM pragma_table_info('stage_costs')"))
    except sqlite3.Error as error:
        raise FxmeterError(f"{path}: {error}; move it away, or name another folder") from None
    if state != "ok":
        raise FxmeterError(f"{path}: is damaged ({state.splitlines()[0]}); move it away, or name another folder")
    if version != DATABASE_VERSION or not {"runs", "points", "stage_costs"} <= tables:
        raise FxmeterError(f"{path}: is no database of sweeps of version {DATABASE_VERSION}; name another folder")
    if columns != ("run", "point", "place", *_STAGE, *FIGURES):
        raise FxmeterError(f"{path}: has the figures of another release of fxmeter; name another folder")


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)


def newest_run(path: Path) -> int:
    """The number of the newest run, 0 where there is no database yet."""
    if not path.exists():
        return 0
    with closing(_opened(path)) as database:
        return int(database.execute("SELECT coalesce(max(run), 0) FROM runs").fetchone()[0])


def add_run(source: Path, target: Path, data: Fields) -> None:
    """Make ``target``: what ``source`` has (if it exists) and one run more."""
    with closing(sqlite3.connect(target)) as database:
        database.execute("PRAGMA synchronous = FULL")
        if source.exists():
            with closing(_opened(source)) as before:
                before.backup(database)
        else:
            database.executescript(SCHEMA)
        with database:
            run = {"run": data["run"]}
            head = {name: json.dumps(data[name]) if name in _AS_JSON else data[name] for name in _HEAD}
            _insert(database, "runs", [{**run, "name": data["model"]["name"], **head}])
            _insert(database, "points", ({**run, **_point(point)} for point in data["points"]))
            costs = (
                {**run, "point": point["point"], "place": place, **stage, **stage["cost"]}
                for point in data["points"]
                for place, stage in enumerate(point["stages"])
            )
            _insert(database, "stage_costs", costs)
        database.execute("ANALYZE")


def _insert(database: sqlite3.Connection, table: str, rows: Iterable[Fields]) -> None:
    names = [name for (name,) in database.execute("SELECT name FROM pragma_table_info(?)", (table,))]
    values = ([stored(row[name]) for name in names] for row in rows)
    database.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(names))})", values)


def stored(value: Any) -> Any:
    """As SQLite can keep it: a whole number beyond 64 bits as its digits."""
    return str(value) if isinstance(value, int) and not -(2**63) <= value < 2**63 else value


def _point(point: Fields) -> Document:
    rows, columns = point["crops"] or (None, None)
    return {**point, "crop_rows": rows, "crop_columns": columns}


def read_run(path: Path, run: int | None = None) -> Document:
    """The document of a run (of the newest, where none is given), equal to what its sweep.json held."""
    check_database(path)
    with closing(_opened(path)) as database:
        database.row_factory = sqlite3.Row
        wanted = newest_run(path) if run is None else run
        row = database.execute("SELECT * FROM runs WHERE run = ?", (wanted,)).fetchone()
        if row is None:
            raise FxmeterError(f"{path}: has no run {wanted}")
        head = {name: json.loads(row[name]) if name in _AS_JSON else row[name] for name in _HEAD}
        points = {
            row["point"]: {
                **{name: row[name] for name in _SIZES},
                "crops": None if row["crop_rows"] is None else [row["crop_rows"], row["crop_columns"]],
                "stages": [],
            }
            for row in database.execute("SELECT * FROM points WHERE run = ? ORDER BY point", (wanted,))
        }
        for row in database.execute("SELECT * FROM stage_costs WHERE run = ? ORDER BY point, place", (wanted,)):
            cost = {name: int(row[name]) if figure.whole else row[name] for name, figure in FIGURES.items()}
            points[row["point"]]["stages"].append({**{name: row[name] for name in _STAGE}, "cost": cost})
        return {**head, "run": wanted, "points": list(points.values())}
