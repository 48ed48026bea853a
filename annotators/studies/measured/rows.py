"""A comparison as rows: layers of the same place together, ops by name, what was left over."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fxmeter.annotators.sheets.tables import CONTAINERS
from fxmeter.annotators.studies.measured.comparison import Comparison, MeasuredOp, Part


@dataclass(frozen=True, slots=True)
class Row:
    """Parts together under one label: ``count`` modules, ops or calls, and their ``share`` of the time of the passes'
    ops. ``depth`` is how far inside of the model it is."""

    label: str
    count: int
    part: Part
    share: float
    depth: int = 0


def module_rows(comparison: Comparison, depth: int) -> list[Row]:
    """The module tree down to ``depth``, each module with all that is inside of it, those that are members of one list
    as one. Modules in which nothing ran are left out."""
    found: dict[str, tuple[int, Part]] = {}
    for path, part in comparison.modules.items():
        if part.ns and comparison.stage.modules[path].class_name not in CONTAINERS:
            place = _place(path)
            count, sum_ = found.get(place, (0, Part(passes=comparison.passes)))
            found[place] = count + 1, sum_ + part
    rows = []
    for place, (count, part) in found.items():
        above = [other for other in found if other and other != place and place.startswith(f"{other}.")]
        inside = 0 if not place else 1 + len(above)
        if inside <= depth:
            label = place.removeprefix(f"{max(above, key=len)}." if above else "") or comparison.class_name
            rows.append(Row(label, count, part, comparison.share_of(part.ns), inside))
    return rows


def op_rows(comparison: Comparison, count: int) -> list[Row]:
    """Recorded ops by name, the longest first."""
    return _grouped(comparison, comparison.ops, lambda op: op.op)[:count]


def missing_rows(comparison: Comparison, count: int) -> list[Row]:
    """What was recorded and did not run, by op and place, what moves most first."""
    rows = _grouped(comparison, comparison.missing, lambda op: f"{op.op} in {_place(op.module) or '(root)'}")
    return sorted(rows, key=lambda row: -row.part.io_bytes)[:count]


def unmatched_rows(comparison: Comparison, count: int) -> list[Row]:
    """What ran, took time and was not recorded, by name and place, the longest first."""
    found: dict[str, tuple[int, int]] = {}
    for item in comparison.unmatched:
        label = f"{item.name} in {_place(item.module) or '(root)'}"
        calls, ns = found.get(label, (0, 0))
        found[label] = calls + item.count, ns + item.ns
    rows = [
        Row(label, calls, Part(ns, comparison.passes), comparison.share_of(ns))
        for label, (calls, ns) in found.items()
        if ns
    ]
    return sorted(rows, key=lambda row: -row.part.ns)[:count]


def _grouped(comparison: Comparison, ops: Iterable[MeasuredOp], label_of: Callable[[MeasuredOp], str]) -> list[Row]:
    found: dict[str, tuple[int, Part]] = {}
    for op in ops:
        count, part = found.get(label_of(op), (0, Part(passes=comparison.passes)))
        found[label_of(op)] = count + 1, part + op.part
    rows = [Row(label, count, part, comparison.share_of(part.ns)) for label, (count, part) in found.items()]
    return sorted(rows, key=lambda row: -row.part.ns)


def _place(path: str) -> str:
    """A path with "*" for the numbers of list members."""
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", path)
