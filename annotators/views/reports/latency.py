"""Latencies as tables, for the console or as Markdown. No arithmetic but the choice of a unit."""

from __future__ import annotations

from rich.console import Group, RenderableType

from fxmeter.annotators.studies.planning.latency import MOST_BATCH, MOST_CONTEXT, Latencies, Latency
from fxmeter.annotators.units import duration, four_digits
from fxmeter.annotators.views.console import Cell, Grid, markdown_table, names, numbers
from fxmeter.annotators.views.reports.times import estimated, extrapolation, one_device_in_title
from fxmeter.annotators.views.words import Line

TITLES = {
    "encode": "Before the prompt (encoder)",
    "prefill": "Time to first token (prefill)",
    "decode": "Time per output token (decode)",
}


def latency_view(found: Latencies, model: str) -> RenderableType:
    """The report for a terminal."""
    parts: list[RenderableType] = [Line(model, style="bold"), Line(_how(found), style="dim")]
    for grid in grids(found):
        parts += ["", grid]
    return Group(*parts, "", *(Line(line, style="dim") for line in _sources(found)))


def latency_markdown(found: Latencies, model: str) -> str:
    """The same as Markdown."""
    tables = map(markdown_table, grids(found))
    return "\n\n".join([f"**{model}**", _how(found), *tables, *_sources(found)]) + "\n"


def grids(found: Latencies) -> list[Grid]:
    """One table for each stage, devices one below the other, and where the bound changes."""
    drafted = {"decode": "Time per step (decode)"} if found.step.query_len > 1 else {}
    tables = [
        _times(drafted.get(stage, title), rows)
        for stage, title in TITLES.items()
        if (rows := [r for r in found.rows if r.stage == stage])
    ]
    if found.turns:
        turns: list[list[Cell]] = [
            [turn.device, f"{turn.context:,}", f"more than {MOST_BATCH:,}" if turn.batch is None else f"{turn.batch:,}"]
            for turn in found.turns
        ]
        columns = [*names("device"), *numbers("context", "from batch")]
        tables.append(Grid("Where decode turns compute-bound", columns, turns))
    if found.crossings:
        crossings: list[list[Cell]] = [
            [f"{item.batch:,}", f"more than {MOST_CONTEXT:,}" if item.context is None else f"{item.context:,}"]
            for item in found.crossings
        ]
        tables.append(Grid("Where a step reads as much cache as weights", numbers("batch", "from context"), crossings))
    return tables


def _times(title: str, found: list[Latency]) -> Grid:
    rows: list[list[Cell]] = [
        [
            row.device,
            f"{row.length:,}",
            f"{row.batch:,}",
            duration(row.bound_s),
            estimated(row.estimate_s, row.extrapolated),
            four_digits(row.tokens_per_s_each),
            four_digits(row.tokens_per_s),
            row.bound_by,
            *([] if row.slowest_s is None else [duration(row.slowest_s), f"{row.slowest}"]),
        ]
        for row in found
    ]
    columns = numbers("tokens", "batch", "bound", "estimate", "tokens/s each", "tokens/s in all")
    stages = numbers("slowest", "stage") if found[0].slowest_s is not None else []
    return one_device_in_title(Grid(title, [*names("device"), *columns, *names("bound by"), *stages], rows))


def _how(found: Latencies) -> str:
    how = "attention cores compute what their masks let through; logits of the last position; no scheduler"
    if found.encoder_len is not None:
        how += "; a first token takes the encoder and the prefill, one after the other"
    if any(row.slowest is not None for row in found.rows):
        how += "; tokens/s in all with a pass in each pipeline stage, paced by the slowest (the first is stage 0)"
    prompt = found.prompt
    how += f"; prompts after {prompt.past_len:,} cached tokens" if prompt.past_len else ""
    how += f"; prompts in chunks of {prompt.chunk:,} tokens" if prompt.chunk is not None else ""
    if found.step.query_len > 1:
        expected = four_digits(found.step.tokens_per_step)
        how += f"; a decode step checks {found.step.query_len - 1:,} drafted tokens and gives {expected}"
    return how


def _sources(found: Latencies) -> list[str]:
    reasons = extrapolation(reason for row in found.rows for reason in row.extrapolated)
    return [*reasons, *(f"{device}, efficiency from: {source}" for device, source in found.sources)]
