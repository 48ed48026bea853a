"""The cross-check on the console: one table of what must be equal, one of what must be close, for each stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fxmeter.annotators.studies.crosscheck import BANDED, Comparison, StageCheck
from fxmeter.annotators.studies.report import title_of
from fxmeter.annotators.units import Kind, quantity
from fxmeter.annotators.views.console import plain_table
from fxmeter.annotators.views.tables import path_label

_NAME_WIDTH = 26
_Shown = tuple[str, str, Kind]
"""Heading, field, unit."""
_FLOPS: _Shown = ("FLOPs", "matmul_flops", "flop")
_WEIGHTS: _Shown = ("weights", "weight_bytes", "memory")
_KV: _Shown = ("KV after", "kv_bytes", "memory")
_KV_READ: _Shown = ("KV read", "kv_read_bytes", "byte")
_BANDED_COLUMNS: tuple[_Shown, ...] = (("activations", "activation_bytes", "memory"), ("I/O", "io_bytes", "byte"))


def crosscheck_view(model: str, checks: Sequence[StageCheck], depth: int) -> RenderableType:
    """All stages, then one line that says whether everything holds."""
    parts: list[RenderableType] = [Text.assemble((model, "bold"), ": traced, hand-written, difference")]
    for check in checks:
        parts += ["", _exact(check, depth, (_FLOPS, _WEIGHTS)), "", _banded(check, depth)]
        if check.stage.cost.kv_bytes:
            parts += ["", _exact(check, depth, (_KV, _KV_READ))]
    rows = [row for check in checks for row in check.rows]
    equal = [row for row in rows if row.band is None]
    banded = [row for row in rows if row.band is not None]
    good, close = sum(row.ok for row in equal), sum(row.ok for row in banded)
    same = sum(row.difference == 0 for row in banded)
    text = (
        f"{good:,} of {len(equal):,} exact quantities are equal to the unit; "
        f"{close:,} of {len(banded):,} banded ones are in their band, {same:,} of them equal too."
    )
    holds = good == len(equal) and close == len(banded)
    return Group(*parts, "", Text(text, style="green" if holds else "bold red"))


def _rows(check: StageCheck, depth: int) -> list[tuple[str, Mapping[str, Comparison]]]:
    return [
        (_short_name(path_label(path, check.stage)), fields)
        for path, fields in check.by_module().items()
        if path.count(".") < depth
    ]


def _short_name(path: str) -> str:
    return path if len(path) <= _NAME_WIDTH else f"…{path[1 - _NAME_WIDTH :]}"


def _exact(check: StageCheck, depth: int, columns: Sequence[_Shown]) -> Table:
    table = plain_table(title=f"{title_of(check.stage)}, {check.stage.attention}: must be equal")
    table.add_column("", no_wrap=True)
    for name, _, _ in columns:
        for heading in (name, "by hand", "Δ"):
            table.add_column(heading, justify="right", no_wrap=True)
    for label, fields in _rows(check, depth):
        if not any(fields[field].traced or fields[field].hand_written for _, field, _ in columns):
            continue
        cells: list[str | Text] = [label]
        for _, field, kind in columns:
            row = fields[field]
            cells += [_short(row.traced, kind), _short(row.hand_written, kind), _difference(row)]
        table.add_row(*cells)
    return table


def _banded(check: StageCheck, depth: int) -> Table:
    table = plain_table(title=f"{title_of(check.stage)}, {check.stage.attention}: must be close")
    table.add_column("", no_wrap=True)
    for name, _, _ in _BANDED_COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
        table.add_column("by hand", justify="right", no_wrap=True)
        table.add_column("ratio", justify="right", no_wrap=True)
    table.add_column("band", justify="right", no_wrap=True)
    for label, fields in _rows(check, depth):
        cells: list[str | Text] = [label]
        for _, field, kind in _BANDED_COLUMNS:
            row = fields[field]
            style = "" if row.ok else "bold red"
            cells += [_short(row.traced, kind), _short(row.hand_written, kind), Text(f"{row.ratio:.4f}", style=style)]
        cells.append(_band(next(fields[field].band for field in BANDED)))
        table.add_row(*cells)
    return table


def _band(band: tuple[float, float] | None) -> str:
    low, high = band or (1.0, 1.0)
    if low == high:
        return "equal"
    return f"≤ {high:.3f}" if low > 0.999 else f"≥ {low:.3g}" if high == 1.0 else f"{low:.3g}–{high:.3f}"


def _short(value: int, kind: Kind) -> str:
    return quantity(value, kind).replace("FLOP", "").rstrip() if value else "0"


def _difference(row: Comparison) -> Text:
    return Text("0", style="green") if row.difference == 0 else Text(f"{row.difference:,}", style="bold red")
