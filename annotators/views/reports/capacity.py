"""Capacity reports as tables, for the console or as Markdown. No arithmetic but the choice of a unit."""

from __future__ import annotations

from rich.console import Group, RenderableType

from fxmeter.annotators.documents.head import in_words
from fxmeter.annotators.studies.planning.capacity import Capacity, Need, Shortfall
from fxmeter.annotators.studies.planning.rates import Rates, Utilisation
from fxmeter.annotators.units import duration_as_typed, four_digits, quantity
from fxmeter.annotators.views.console import Cell, Grid, markdown_table, names, numbers
from fxmeter.annotators.views.reports.serving import device_grids, device_notes, fit_cell
from fxmeter.annotators.views.reports.shape import shape
from fxmeter.annotators.views.words import Line


def capacity_view(capacity: Capacity) -> RenderableType:
    """The report for a terminal."""
    first, *others = _lines(capacity)
    parts: list[RenderableType] = [Line(first, style="bold"), *(Line(line, style="dim") for line in others)]
    for grid in grids(capacity):
        parts += ["", grid]
    notes = _notes(capacity)
    return Group(*parts, *([""] if notes else []), *(Line(note, style="dim") for note in notes))


def capacity_markdown(capacity: Capacity) -> str:
    """The same as Markdown."""
    first, *others = _lines(capacity)
    tables = map(markdown_table, grids(capacity))
    return "\n\n".join([f"**{first}**", "  \n".join(others), *tables, *_notes(capacity)]) + "\n"


def grids(capacity: Capacity) -> list[Grid]:
    """The tables that a report has: rates reached or needed, cache, memory, what fits, and what was measured."""
    reached = device_grids(capacity)
    tables = [*(reached or [_rates(capacity)]), _cache(capacity), _memory(capacity)]
    tables += [] if capacity.memory_bytes is None or reached else [_fits(capacity, capacity.memory_bytes)]
    return [*tables, _used(capacity)] if capacity.utilisation else tables


def _lines(capacity: Capacity) -> list[str]:
    model = capacity.model
    ttft, tpot = duration_as_typed(capacity.ttft_s), duration_as_typed(capacity.tpot_s)
    into = "" if capacity.memory_bytes is None else f" · memory {quantity(capacity.memory_bytes, 'memory')}"
    return [
        f"{model.name}, {capacity.attention} attention, {model.dtype}",
        f"time to first token {ttft} · time per output token {tpot}{into}",
        f"2 FLOP/MAC · {in_words(model, capacity.conventions)}{_chunks(capacity)}",
        *_in_flight(capacity),
    ]


def _in_flight(capacity: Capacity) -> list[str]:
    stages = capacity.needs[0].memory.in_flight
    if stages == 1:
        return []
    places = sorted({need.memory.place for need in capacity.needs if need.memory.place is not None})
    return [
        f"{stages} pipeline stages with a pass of the batch in each, so that each keeps the caches of {stages}; "
        f"memory is that of the fullest, stage {' or '.join(map(str, places))} (the first is 0)"
    ]


def _chunks(capacity: Capacity) -> str:
    most = capacity.demand.max_batched_tokens
    return "" if most is None else f" · prefill in passes of at most {most:,} tokens"


def _notes(capacity: Capacity) -> list[str]:
    fits = [fit for need in capacity.needs for fit in need.fits]
    notes = [_shortfall(shortfall) for fit in fits for shortfall in fit.shortfalls]
    notes += [_held(need) for need in capacity.needs if need.memory.holds_more]
    notes += [f"warning: {warning}" for warning in capacity.warnings]
    notes += [f"The model's own limit is {capacity.model.max_positions:,} positions."] if capacity.exceeds_model else []
    notes += [f"Recorded point by point: {reason}" for reason in capacity.recorded]
    return list(dict.fromkeys([*notes, *device_notes(capacity)]))


def _held(need: Need) -> str:
    held = quantity(need.memory.kv_storage_bytes, "memory")
    return (
        f"{shape(need.point)}: transformers holds up to {held} for the cache, whose windows are slices of the prompt's."
    )


def _shortfall(shortfall: Shortfall) -> str:
    memory = shortfall.memory
    weights, kv, peak = (
        quantity(size, "memory") for size in (memory.weight_bytes, memory.kv_bytes, memory.peak_activation_bytes)
    )
    return (
        f"None fits: {shape(shortfall.point)} takes {quantity(memory.total_bytes, 'memory')}, "
        f"{quantity(shortfall.missing_bytes, 'memory')} too much: "
        f"weights {weights} + KV {kv} + peak activations {peak} ({memory.peak_stage})"
    )


def _grid(title: str, headings: list[str], capacity: Capacity, rows: list[list[Cell]]) -> Grid:
    """A row for each input shape."""
    labelled = [[shape(need.point), *row] for need, row in zip(capacity.needs, rows, strict=True)]
    return Grid(title, [*names("input shape"), *numbers(*headings)], labelled)


def _rates(capacity: Capacity) -> Grid:
    prompts = ["TTFT\nTFLOP/s", "TTFT\nTB/s", "TB/s\nif fused"] if capacity.needs[0].ttft is not None else []
    rows = [[*_cells(need.ttft), *_cells(need.tpot)] for need in capacity.needs]
    headings = [*prompts, "TPOT\nTFLOP/s", "TPOT\nTB/s", "TB/s\nif fused"]
    return _grid("Needed to meet the targets", headings, capacity, rows)


def _cells(rates: Rates | None) -> list[Cell]:
    return [] if rates is None else [four_digits(value) for value in (rates.tflops, rates.tbps, rates.fused_tbps)]


def _cache(capacity: Capacity) -> Grid:
    rows = []
    for memory in (need.memory for need in capacity.needs):
        prompt = [] if memory.kv_after_prefill_bytes is None else [memory.kv_after_prefill_bytes]
        rows.append(_sizes(*prompt, memory.kv_bytes, memory.kv_bytes_per_sequence))
    prompts = ["after prefill"] if capacity.needs[0].memory.kv_after_prefill_bytes is not None else []
    return _grid("KV cache", [*prompts, "after decode", "per sequence"], capacity, rows)


def _sizes(*sizes: int) -> list[Cell]:
    return [quantity(size, "memory") for size in sizes]


def _memory(capacity: Capacity) -> Grid:
    rows = []
    for memory in (need.memory for need in capacity.needs):
        parts = _sizes(memory.weight_bytes, memory.kv_bytes, memory.peak_activation_bytes)
        rows.append([*parts, memory.peak_stage, *_sizes(memory.total_bytes)])
    return _grid("Memory", ["weights", "+ KV", "+ peak activations", "of", "= total"], capacity, rows)


def _fits(capacity: Capacity, memory_bytes: int) -> Grid:
    fits = [need.fit for need in capacity.needs if need.fit is not None]
    rows: list[list[Cell]] = [[fit_cell(fit.largest_batch), fit_cell(fit.longest_context)] for fit in fits]
    title = f"What fits in {quantity(memory_bytes, 'memory')}"
    return _grid(title, ["largest batch", "longest context"], capacity, rows)


def _used(capacity: Capacity) -> Grid:
    columns = numbers("time", "TFLOP/s", "MFU", "TB/s", "of peak", "TB/s\nif fused", "of peak")
    return Grid("Utilisation", [*names("measured"), *columns], [_used_row(used) for used in capacity.utilisation])


def _used_row(used: Utilisation) -> list[str]:
    return [
        used.stage,
        duration_as_typed(used.seconds),
        four_digits(used.tflops),
        _share(used.mfu),
        four_digits(used.tbps),
        _share(used.bandwidth),
        four_digits(used.fused_tbps),
        _share(used.fused_bandwidth),
    ]


def _share(value: float | None) -> str:
    return "–" if value is None else quantity(value, "share")
