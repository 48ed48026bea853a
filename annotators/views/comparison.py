"""A trace laid over its prediction, on the console. No arithmetic but the choice of a unit."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding

from fxmeter.annotators.studies.measured.comparison import Comparison, Part
from fxmeter.annotators.studies.measured.rows import Row, missing_rows, module_rows, op_rows, unmatched_rows
from fxmeter.annotators.studies.report import title_of
from fxmeter.annotators.units import duration, four_digits, in_unit, quantity
from fxmeter.annotators.views.console import Cell, Grid, Heading, names, numbers
from fxmeter.annotators.views.words import Line


def comparison_view(found: Comparison, model: str, *, depth: int, ops: int) -> RenderableType:
    """The whole comparison, for a terminal of any width or a file."""
    parts: list[RenderableType] = [Line(line, style="bold") for line in in_words(found, model)]
    parts += [Line(f"warning: {line}", style="yellow") for line in found.warnings]
    parts += ["", _grid("By module", "", module_rows(found, depth), found)]
    if ops:
        parts += ["", _grid("By op", "op", op_rows(found, ops), found)]
    if rows := unmatched_rows(found, ops):
        parts += ["", _left_over("What ran and was not recorded", rows)]
    if rows := missing_rows(found, ops):
        parts += ["", _missing(rows)]
    return Group(*parts)


def in_words(found: Comparison, model: str) -> list[str]:
    """What was measured, how much of it was matched, and what the prediction says of it."""
    whole, stage = found.whole, found.stage
    passes = "1 pass" if found.passes == 1 else f"mean of {found.passes:,} passes"
    what = "kernels on the device" if found.on_device else "ops on the CPU"
    lines = [
        f"{model}, {title_of(stage)}, {stage.attention}: {duration(whole.seconds)} of {what}, "
        f"{duration(found.wall_s)} from begin to end ({passes})",
        f"matched: {found.matched_share:.1%} of that time; "
        f"outside of these passes: {duration(found.outside_s) if found.outside_ns else 'nothing'}",
    ]
    if found.device is not None:
        lines.append(
            f"on {found.device.name}: estimate {duration(whole.estimate_s)}, bound {duration(whole.bound_s)}; measured "
            f"is {four_digits(whole.over_estimate)} times the estimate; MFU {found.mfu:.1%} measured, "
            f"{found.predicted_mfu:.1%} estimated"
        )
    if found.peak_bytes is not None:
        cost = stage.cost
        lines.append(
            f"most allocated by a pass: {quantity(found.peak_bytes, 'memory')}; predicted peak of activations: "
            f"{quantity(cost.peak_activation_bytes, 'memory')}, KV cache after: {quantity(cost.kv_bytes, 'memory')}"
        )
    return lines


def _grid(title: str, heading: str, rows: list[Row], found: Comparison) -> Grid:
    columns: list[Heading] = [*names(heading), *numbers("×", "measured"), ("share", "share")]
    columns += numbers("TFLOP/s", "TB/s")
    if found.device is not None:
        columns += numbers("estimate", "measured / estimate", "of the roof")
    cells = [_cells(row, found.device is not None) for row in rows]
    return Grid(title, columns, cells, ["bold" if not heading and not row.depth else "" for row in rows])


def _cells(row: Row, timed: bool) -> list[Cell]:
    part = row.part
    cells: list[Cell] = [
        Padding(row.label.removeprefix("aten.").removeprefix("fxmeter."), (0, 0, 0, 2 * row.depth)),
        f"{row.count:,}",
        duration(part.seconds),
        row.share,
        _rate(part.flops_per_s, "TFLOP"),
        _rate(part.bytes_per_s, "TB"),
    ]
    return [*cells, *_against(part)] if timed else cells


def _against(part: Part) -> list[Cell]:
    if not part.estimate_s:
        return ["–", "–", "–"]
    return [duration(part.estimate_s), four_digits(part.over_estimate), f"{part.roof_share:.1%}"]


def _rate(value: float, unit: str) -> str:
    return in_unit(value, unit) if value else "–"


def _left_over(title: str, rows: list[Row]) -> Grid:
    cells: list[list[Cell]] = [[row.label, f"{row.count:,}", duration(row.part.seconds), row.share] for row in rows]
    return Grid(title, [*names("op"), *numbers("×", "measured"), ("share", "share")], cells)


def _missing(rows: list[Row]) -> Grid:
    cells: list[list[Cell]] = [
        [row.label, f"{row.count:,}", quantity(row.part.flops, "flop"), quantity(row.part.io_bytes, "byte")]
        for row in rows
    ]
    return Grid("What was recorded and did not run", [*names("op"), *numbers("×", "FLOPs", "I/O")], cells)
