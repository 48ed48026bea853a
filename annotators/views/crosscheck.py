"""The cross-check on the console: its verdict, then for each stage what must be equal and what must be close."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from fxmeter.annotators.studies.breakdown import path_label
from fxmeter.annotators.studies.comparing.crosscheck import BANDED, Comparison, StageCheck, tally
from fxmeter.annotators.studies.report import title_of
from fxmeter.annotators.units import quantity
from fxmeter.annotators.views.console import Cell, Grid, names, numbers
from fxmeter.annotators.views.words import Line
from fxmeter.models.stage_cost import FIGURES

_COSTS, _CACHE = ("matmul_flops", "weight_bytes"), ("kv_bytes", "kv_read_bytes")
_CLOSE = ("activation_bytes", "io_bytes")


def crosscheck_view(model: str, checks: Sequence[StageCheck], depth: int | None) -> RenderableType:
    """One line that says whether everything holds, a line for each stage, and down to ``depth`` every comparison."""
    sums = tally(checks)
    text = (
        f"{sums.equal:,} of {sums.exact:,} exact quantities are equal to the unit; "
        f"{sums.close:,} of {sums.banded:,} banded ones are in their band, {sums.same:,} of them equal too."
    )
    parts: list[RenderableType] = [
        Text.assemble((model, "bold"), ": traced beside hand-written"),
        Line(text, style="green" if sums.holds else "bold red"),
        "",
        _by_stage(checks),
    ]
    if depth is None:
        return Group(*parts, "", Line("--all shows every comparison, module by module", style="dim"))
    for check in checks:
        parts += ["", _exact(check, depth, _COSTS), "", _banded(check, depth)]
        if check.stage.cost.kv_bytes:
            parts += ["", _exact(check, depth, _CACHE)]
    return Group(*parts)


def _by_stage(checks: Sequence[StageCheck]) -> Grid:
    rows: list[list[Cell]] = []
    for check in checks:
        sums = tally([check])
        rows.append(
            [
                f"{title_of(check.stage)} {check.stage.attention}",
                f"{sums.equal:,} of {sums.exact:,}",
                f"{sums.close:,} of {sums.banded:,}",
            ]
        )
    return Grid("", [*names("stage"), *numbers("equal to the unit", "in their band")], rows)


def _modules(check: StageCheck, depth: int) -> list[tuple[str, Mapping[str, Comparison]]]:
    return [
        (path_label(path, check.stage), fields) for path, fields in check.by_module().items() if path.count(".") < depth
    ]


def _exact(check: StageCheck, depth: int, columns: Sequence[str]) -> Grid:
    rows: list[list[Cell]] = []
    for label, fields in _modules(check, depth):
        cells: list[Cell] = [label]
        for field in columns:
            row = fields[field]
            cells += [*_sides(row), _difference(row)]
        if any(fields[field].traced or fields[field].hand_written for field in columns):
            rows.append(cells)
    headings = [heading for field in columns for heading in (FIGURES[field].label, "by hand", "Δ")]
    title = f"{title_of(check.stage)}, {check.stage.attention}: must be equal"
    return Grid(title, [*names(""), *numbers(*headings)], rows)


def _banded(check: StageCheck, depth: int) -> Grid:
    rows: list[list[Cell]] = []
    for label, fields in _modules(check, depth):
        cells: list[Cell] = [label]
        for field in _CLOSE:
            row = fields[field]
            ratio = Text(f"{row.ratio:.4f}", style="" if row.ok else "bold red")
            cells += [*_sides(row), ratio]
        rows.append([*cells, _band(next(fields[field].band for field in BANDED))])
    columns = names("")
    for field in _CLOSE:
        columns += [*numbers(FIGURES[field].label), ("by hand", "spare"), *numbers("ratio")]
    title = f"{title_of(check.stage)}, {check.stage.attention}: must be close"
    return Grid(title, [*columns, *numbers("band")], rows)


def _band(band: tuple[float, float] | None) -> str:
    low, high = band or (1.0, 1.0)
    if low == high:
        return "equal"
    return f"≤ {high:.3f}" if low > 0.999 else f"≥ {low:.3g}" if high == 1.0 else f"{low:.3g}–{high:.3f}"


def _sides(row: Comparison) -> list[str]:
    """Traced and hand-written."""
    unit = FIGURES[row.field].unit
    sides = (row.traced, row.hand_written)
    return [quantity(value, unit).replace("FLOP", "").rstrip() if value else "0" for value in sides]


def _difference(row: Comparison) -> Text:
    return Text("0", style="green") if row.difference == 0 else Text(f"{row.difference:,}", style="bold red")
