"""Sweeps in SQLite: tables runs, points and stage_costs.

Counts are whole numbers of any size. Their columns have no type, so that SQLite keeps what it is given: an INTEGER
where 64 bits hold it, its decimal digits as TEXT where they do not (which sort after every INTEGER). ``int(value)``
reads both. Figures that are quotients are REAL.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from fxmeter.models.errors import FxmeterError
from fxmeter.models.stage_cost import FIGURES

DATABASE_VERSION = 1
_COSTS = tuple(FIGURES)
_QUOTIENTS = tuple(name for name, figure in FIGURES.items() if not figure.whole)
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
    {", ".join(name + (" REAL" if name in _QUOTIENTS else "") for name in _COSTS)},
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
    if columns != ("run", "point", "place", *_STAGE, *_COSTS):
        raise FxmeterError(f"{path}: has the figures of another release of fxmeter; name another folder")


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)


def newest_run(path: Path) -> int:
    """The number of the newest run, 0 where there is no database yet."""
    if not path.exists():
        return 0
    with closing(_opened(path)) as database:
        return int(database.execute("SELECT coalesce(max(run), 0) FROM runs").fetchone()[0])


def add_run(source: Path, target: Path, data: Mapping[str, Any]) -> None:
    """Make ``target``: what ``source`` has (if it exists) and one run more."""
    with closing(sqlite3.connect(target)) as database:
        database.execute("PRAGMA synchronous = FULL")
        if source.exists():
            with closing(_opened(source)) as before:
                before.backup(database)
        else:
            database.executescript(SCHEMA)
        with database:
            head = [json.dumps(data[name]) if name in _AS_JSON else data[name] for name in _HEAD]
            _insert(database, "runs", [(data["run"], data["model"]["name"], *head)])
            _insert(database, "points", (_point(data["run"], point) for point in data["points"]))
            rows = (
                _cost(data["run"], point["point"], place, stage)
                for point in data["points"]
                for place, stage in enumerate(point["stages"])
            )
            _insert(database, "stage_costs", rows)
        database.execute("ANALYZE")


def _insert(database: sqlite3.Connection, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
    width = len(database.execute(f"PRAGMA table_info({table})").fetchall())
    database.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * width)})", rows)


def _point(run: int, point: Mapping[str, Any]) -> tuple[Any, ...]:
    rows, columns = point["crops"] or (None, None)
    rest = (point[name] for name in ("image_tokens", "prefill", "decode", "steps"))
    return (run, point["point"], point["batch"], rows, columns, *rest)


def _cost(run: int, point: int, place: int, stage: Mapping[str, Any]) -> tuple[Any, ...]:
    head = (stage[name] for name in _STAGE)
    return (run, point, place, *head, *(_stored(stage["cost"][name]) for name in _COSTS))


def _stored(value: float) -> Any:
    return str(value) if isinstance(value, int) and not -(2**63) <= value < 2**63 else value


def read_run(path: Path, run: int | None = None) -> dict[str, Any]:
    """The document of a run (of the newest, where none is given), equal to what its sweep.json held."""
    check_database(path)
    with closing(_opened(path)) as database:
        database.row_factory = sqlite3.Row
        wanted = newest_run(path) if run is None else run
        row = database.execute("SELECT * FROM runs WHERE run = ?", (wanted,)).fetchone()
        if row is None:
            raise FxmeterError(f"{path}: has no run {wanted}")
        head = {name: json.loads(row[name]) if name in _AS_JSON else row[name] for name in _HEAD}
        costs = database.execute("SELECT * FROM stage_costs WHERE run = ? ORDER BY point, place", (wanted,))
        stages: dict[int, list[dict[str, Any]]] = {}
        for cost in costs:
            stages.setdefault(cost["point"], []).append(_stage_of(cost))
        points = database.execute("SELECT * FROM points WHERE run = ? ORDER BY point", (wanted,))
        return {**head, "run": wanted, "points": [_point_of(point, stages) for point in points]}


def _stage_of(row: sqlite3.Row) -> dict[str, Any]:
    head = {name: row[name] for name in _STAGE}
    return {**head, "cost": {name: row[name] if name in _QUOTIENTS else int(row[name]) for name in _COSTS}}


def _point_of(row: sqlite3.Row, stages: Mapping[int, list[dict[str, Any]]]) -> dict[str, Any]:
    crops = None if row["crop_rows"] is None else [row["crop_rows"], row["crop_columns"]]
    rest = {name: row[name] for name in ("image_tokens", "prefill", "decode", "steps")}
    head = {"point": row["point"], "batch": row["batch"], "crops": crops}
    return {**head, **rest, "stages": stages.get(row["point"], [])}
