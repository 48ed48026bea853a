"""Explored architectures as files beside their table: Parquet, the Pareto front as CSV, pictures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from fxmeter.annotators.documents.tables.explored import PARETO, PARQUET, Explored
from fxmeter.annotators.sheets.kept.files import staged
from fxmeter.annotators.studies.architectures.pareto import Front
from fxmeter.models.errors import FxmeterError
from fxmeter.models.names import Document, Fields

ROWS = 50_000
"""Rows of a group of a Parquet file."""


def write_beside(table: Explored, front: Front | None, drawn: Mapping[str, bytes]) -> list[str]:
    """Write what follows from the table; returns the files' names. Whole, or not there."""
    try:
        with staged(table.folder) as scratch:
            names = list(drawn)
            for name, content in drawn.items():
                (scratch / name).write_bytes(content)
            if front is not None:
                (scratch / PARETO).write_text(_csv(front), encoding="utf-8")
                names.insert(0, PARETO)
            if find_spec("pyarrow") is not None:
                _parquet(table, scratch / PARQUET)
                names.insert(0, PARQUET)
            return names
    except OSError as error:
        raise FxmeterError(f"--out {table.folder}: {error.strerror or error}; the table itself is written") from None


def _csv(front: Front) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = list(dict.fromkeys(name for row in front.rows for name in row["fields"]))
    writer.writerow([*names, front.first.name, front.second.name])
    for row in front.rows:
        writer.writerow([*(row["fields"].get(n) for n in names), row[front.first.name], row[front.second.name]])
    return out.getvalue()


def _parquet(table: Explored, path: Path) -> None:
    """The rows that are kept, one column for each field; a field that a row does not set is as the config has it."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    fields: dict[str, set[type]] = {}
    large: set[str] = set()
    for row in table.rows():
        for name, value in row["fields"].items():
            fields.setdefault(name, set()).add(type(value))
        large |= {name for name in table.columns if isinstance(row[name], int) and row[name] >= 2**63}
    types = {name: _arrow(pa, kinds) for name, kinds in fields.items()}
    for column in table.question.columns:
        whole = pa.decimal128(38, 0) if column.name in large else pa.int64()
        types[column.name] = whole if column.whole else pa.string() if column.kind == "word" else pa.float64()
    schema = pa.schema(
        [("key", pa.string()), *types.items()], {"fxmeter": json.dumps(table.question.facts, default=str)}
    )
    with ParquetWriter(path, schema) as writer:
        rows = (_flat(row, fields, table) for row in table.rows())
        while some := list(islice(rows, ROWS)):
            writer.write_table(pa.Table.from_pylist(some, schema=schema))


def _arrow(pa: Any, kinds: Iterable[type]) -> Any:
    """A column's type for values of these types; JSON's text for a mix."""
    known = set(kinds) - {type(None)}
    if known <= {int}:
        return pa.int64()
    if known <= {int, float}:
        return pa.float64()
    return pa.bool_() if known <= {bool} else pa.string()


def _flat(row: Fields, fields: Mapping[str, set[type]], table: Explored) -> Document:
    values = {name: row["fields"].get(name, table.question.base.get(name)) for name in fields}
    text = {
        n for n, kinds in fields.items() if not kinds - {type(None)} <= {int, float} and not kinds <= {bool, type(None)}
    }
    shown = {n: v if n not in text or v is None or isinstance(v, str) else json.dumps(v) for n, v in values.items()}
    return {"key": row["key"], **shown, **{name: row[name] for name in table.columns}}
