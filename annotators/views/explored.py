"""What an exploration found, on the console. No arithmetic but the choice of a unit."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from fxmeter.annotators.studies.architectures.pareto import Front
from fxmeter.annotators.studies.architectures.question import Column, Question
from fxmeter.annotators.studies.architectures.refusals import Refusal
from fxmeter.annotators.units import duration, quantity
from fxmeter.annotators.views.console import Cell, Grid, numbers
from fxmeter.annotators.views.words import Line

MOST_ROWS = 20
"""Of a front on the screen; the file has all of it."""
MOST_REASONS = 6


def explored_view(
    question: Question,
    *,
    count: int,
    new: int,
    uncosted: int,
    refusals: Sequence[Refusal],
    folder: str,
    files: Sequence[str],
    front: Front | None,
) -> RenderableType:
    """How many architectures the table has, of which ``new`` ones were gone through now; why others have no figures;
    the front as a table."""
    parts: list[RenderableType] = [
        Text.assemble((question.model, "bold"), f"  {count:,} architectures priced; {new:,} gone through now"),
        Line(_how(question), style="dim"),
        Text(f"in {folder}", no_wrap=True, overflow="ignore"),
        Line(f"  {', '.join(files)}"),
    ]
    for each in refusals[:MOST_REASONS]:
        example = ", ".join(f"{name}={value}" for name, value in each.fields.items())
        parts.append(Line(f"refused {each.count:,}: {each.reason} ({example})", style="yellow"))
    if len(refusals) > MOST_REASONS:
        parts.append(Line(f"{len(refusals) - MOST_REASONS} more reasons are in the table", style="yellow"))
    if uncosted:
        parts.append(Line(f"{uncosted:,} op executions have no rule; their FLOPs are missing", style="red"))
    return Group(*parts) if front is None else Group(*parts, "", _grid(front))


def _how(question: Question) -> str:
    words = question.conventions.under(question.deployment).words
    words += [f"{question.deployment.kernels} kernels", f"{question.attention} attention"]
    words += [
        f"{one.stage} {one.past_len if one.stage == 'decode' else one.query_len:,} B={one.batch:,}"
        for _, one in question.scenarios
    ]
    return " · ".join([*words, *(device.name for device in question.devices)])


def _grid(front: Front) -> Grid:
    both = (front.first, front.second)
    fields = list(dict.fromkeys(name for row in front.rows for name in row["fields"]))
    step = -(-len(front.rows) // MOST_ROWS) or 1
    rows: list[list[Cell]] = [
        [*(_field(row["fields"].get(name)) for name in fields), *(_figure(row[column.name], column) for column in both)]
        for row in front.rows[::step]
    ]
    aims = " and ".join(f"{'most' if column.more_is_better else 'least'} {column.label}" for column in both)
    shown = "" if step == 1 else f", every {step}th shown"
    title = f"Pareto front, {aims}: {len(front.rows):,} of {front.count:,}{shown}"
    headings = (name.replace("_", " ") for name in fields)
    return Grid(title, numbers(*headings, *(column.label for column in both)), rows)


def _field(value: object) -> str:
    return f"{value:,}" if type(value) is int else "" if value is None else str(value)


def _figure(value: float, column: Column) -> str:
    if column.kind == "second":
        return duration(value)
    return f"{value:,}" if column.kind == "count" else quantity(value, column.kind)  # type: ignore[arg-type]
