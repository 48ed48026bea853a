"""Capacity reports as tables, for the console or as Markdown. No arithmetic but the choice of a unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from fxmeter.annotators.studies.capacity import Capacity, Need
from fxmeter.annotators.studies.rates import Rates, Utilisation
from fxmeter.annotators.units import four_digits, quantity
from fxmeter.annotators.views.console import plain_table


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: its title, headings (of which the first column's is left-aligned) and rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def capacity_view(found: Capacity) -> RenderableType:
    """The report for a terminal of 100 columns."""
    parts: list[RenderableType] = [Text(_lines(found)[0], style="bold")]
    parts += [Text(line, style="dim") for line in _lines(found)[1:]]
    for grid in grids(found):
        table = plain_table(title=grid.title)
        for index, heading in enumerate(grid.columns):
            table.add_column(heading, justify="right" if index else "left", no_wrap=True)
        for row in grid.rows:
            table.add_row(*row)
        parts += ["", table]
    notes = _notes(found)
    return Group(*parts, "", *(Text(note, style="dim") for note in notes)) if notes else Group(*parts)


def capacity_markdown(found: Capacity) -> str:
    """The same as Markdown."""
    parts = [f"**{_lines(found)[0]}**", "  \n".join(_lines(found)[1:])]
    for grid in grids(found):
        heading = "| " + " | ".join(column.replace("\n", " ") for column in grid.columns) + " |"
        rule = "|---|" + "---:|" * (len(grid.columns) - 1)
        rows = ["| " + " | ".join(row) + " |" for row in grid.rows]
        parts.append("\n".join([f"### {grid.title}", "", heading, rule, *rows]))
    return "\n\n".join([*parts, *_notes(found)]) + "\n"


def grids(found: Capacity) -> list[Grid]:
    """The tables that a report has: rates, cache, memory, what fits, and what was measured."""
    made = [_rates(found), _cache(found), _memory(found)]
    made += [] if found.memory_bytes is None else [_fits(found, quantity(found.memory_bytes, "memory"))]
    return [*made, _used(found.utilisation)] if found.utilisation else made


def _lines(found: Capacity) -> list[str]:
    model, chosen = found.model, found.conventions
    into = "" if found.memory_bytes is None else f" · memory {quantity(found.memory_bytes, 'memory')}"
    return [
        f"{model.name}, {found.attention} attention, {model.dtype}",
        f"time to first token {found.ttft_s:g} s · time per output token {found.tpot_s * 1000:g} ms{into}",
        f"2 FLOP/MAC · causal {chosen.causal} · logits {chosen.logits} · routing {chosen.routing}",
    ]


def _notes(found: Capacity) -> list[str]:
    notes = []
    limit = found.model.max_positions
    longest = [need.fit.longest_context for need in found.needs if need.fit and need.fit.longest_context is not None]
    if limit is not None and any(context > limit for context in longest):
        notes.append(f"The model's own limit is {limit:,} positions.")
    notes += [f"Recorded point by point: {reason}" for reason in found.recorded]
    return notes


def shape(need: Need) -> str:
    """A point in a few words."""
    point = need.point
    parts = [] if point.crops is None else [f"{point.crops[0]}x{point.crops[1]} crops"]
    if point.prefill is not None and point.crops is None:
        parts.append(f"S={point.prefill:,}")
    if point.decode is not None and point.decode != point.prefill:
        parts.append(f"C={point.decode:,}")
    parts += [f"K={point.steps:,}"] if point.steps > 1 else []
    return ", ".join([*parts, f"B={point.batch:,}"])


def _rates(found: Capacity) -> Grid:
    prompts = any(need.ttft is not None for need in found.needs)
    columns = ("TTFT\nTFLOP/s", "TTFT\nTB/s", "TB/s\nif fused") if prompts else ()
    rows = [
        (shape(need), *(_cells(need.ttft) if need.ttft is not None else ()), *_cells(need.tpot)) for need in found.needs
    ]
    title = "Needed to meet the targets"
    return Grid(title, ("input shape", *columns, "TPOT\nTFLOP/s", "TPOT\nTB/s", "TB/s\nif fused"), tuple(rows))


def _cells(rates: Rates) -> tuple[str, str, str]:
    return four_digits(rates.tflops), four_digits(rates.tbps), four_digits(rates.fused_tbps)


def _cache(found: Capacity) -> Grid:
    rows = []
    for need in found.needs:
        prompt, sequence = need.memory.kv_after_prefill_bytes, need.memory.kv_bytes_per_sequence
        after = () if prompt is None else (quantity(prompt, "memory"),)
        rows.append((shape(need), *after, quantity(need.memory.kv_bytes, "memory"), quantity(sequence, "memory")))
    prompts = found.needs[0].memory.kv_after_prefill_bytes is not None
    columns = ("input shape", *(("after prefill",) if prompts else ()), "after decode", "per sequence")
    return Grid("KV cache", columns, tuple(rows))


def _memory(found: Capacity) -> Grid:
    rows = []
    for need in found.needs:
        memory = need.memory
        parts = (memory.weight_bytes, memory.kv_bytes, memory.peak_activation_bytes, memory.total_bytes)
        weights, kv, peak, total = (quantity(size, "memory") for size in parts)
        rows.append((shape(need), weights, kv, peak, memory.peak_stage, total))
    return Grid("Memory", ("input shape", "weights", "+ KV", "+ peak activations", "of", "= total"), tuple(rows))


def _fits(found: Capacity, size: str) -> Grid:
    rows = [
        (shape(need), _fit(need.fit.largest_batch), _fit(need.fit.longest_context)) for need in found.needs if need.fit
    ]
    return Grid(f"What fits in {size}", ("input shape", "largest batch", "longest context"), tuple(rows))


def _fit(size: int | None) -> str:
    if size is None:
        return "–"
    return "none fits" if size == 0 else f"{size:,}"


def _used(utilisation: Sequence[Utilisation]) -> Grid:
    columns = ("measured", "ms", "TFLOP/s", "MFU", "TB/s", "of peak", "TB/s\nif fused", "of peak")
    return Grid("Utilisation", columns, tuple(_used_row(used) for used in utilisation))


def _used_row(used: Utilisation) -> tuple[str, ...]:
    return (
        used.stage,
        f"{used.seconds * 1000:g}",
        four_digits(used.tflops),
        _share(used.mfu),
        four_digits(used.tbps),
        _share(used.bandwidth),
        four_digits(used.fused_tbps),
        _share(used.fused_bandwidth),
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
