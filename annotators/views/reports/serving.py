"""What devices reach and serve, as tables. No arithmetic but the choice of a unit."""

from __future__ import annotations

from dataclasses import replace

from fxmeter.annotators.studies.planning.capacity import Capacity, Fit, Need, OnDevice
from fxmeter.annotators.studies.planning.serving import Served
from fxmeter.annotators.units import duration, duration_as_typed, four_digits, quantity
from fxmeter.annotators.views.console import Cell, Grid, names, numbers
from fxmeter.annotators.views.reports.shape import shape


def device_grids(capacity: Capacity) -> list[Grid]:
    """Latencies and what fits, then what is served; none without a device."""
    if not capacity.demand.devices:
        return []
    return [_latencies(capacity), _fits(capacity), _served(capacity)]


def device_notes(capacity: Capacity) -> list[str]:
    """What the tables leave out, and where the efficiencies are from."""
    if not capacity.demand.devices:
        return []
    notes = ["The device alone, always busy: no scheduler, no network to clients. Energy as if it drew its full power."]
    if max(need.point.steps for need in capacity.needs) == 1 and capacity.needs[0].ttft is not None:
        notes.append("Requests a second are of a prompt and its output: give --steps.")
    reasons = dict.fromkeys(reason for need in capacity.needs for one in need.on for reason in one.reached.extrapolated)
    notes += [f"Extrapolated, not held to measurements: {'; '.join(reasons)}"] if reasons else []
    return [
        *notes,
        *(f"{device.name}, efficiency from: {device.efficiency.source}" for device in capacity.demand.devices),
    ]


def _latencies(capacity: Capacity) -> Grid:
    prompts = ["TTFT", "of it bound"] if capacity.needs[0].ttft is not None else []
    rows = [[shape(need.point), *_latency(one)] for need in capacity.needs for one in need.on]
    columns = [*names("input shape", "device"), *numbers(*prompts, "TPOT", "of it bound"), *names("bound by")]
    return Grid("Reached", columns, rows)


def _latency(one: OnDevice) -> list[Cell]:
    found = one.reached
    times = [time for time in (found.ttft, found.tpot) if time is not None]
    cells = [cell for time in times for cell in (duration(time.estimate_s), duration(time.bound_s))]
    return [found.device.name, *cells, ", ".join(time.bound_by for time in times)]


def _fits(capacity: Capacity) -> Grid:
    """What fits on each device."""
    rows: list[list[Cell]] = [
        [shape(need.point), one.reached.device.name, _memory(capacity, one), *map(fit_cell, _sizes(one.fit))]
        for need in capacity.needs
        for one in need.on
    ]
    columns = [*names("input shape", "device"), *numbers("memory", "largest batch", "longest context")]
    return Grid("What fits", columns, rows)


def _memory(capacity: Capacity, one: OnDevice) -> str:
    return quantity(capacity.memory_bytes or one.reached.device.memory_bytes, "memory")


def _sizes(fit: Fit) -> tuple[int | None, int | None]:
    return fit.largest_batch, fit.longest_context


def fit_cell(size: int | None) -> str:
    """A largest size that fits."""
    if size is None:
        return "–"
    return "none fits" if size == 0 else f"{size:,}"


def _served(capacity: Capacity) -> Grid:
    """At the best batch, whatever the batch of a shape: shapes that differ in it alone are one."""
    demand = capacity.demand
    priced = ["price of 1M tokens"] if demand.price_per_h else []
    rated = [f"devices for {demand.rate:g}/s"] if demand.rate else []
    rows = [
        (_request(need), one.reached.device.name, *_serving(one, bool(rated), bool(priced)))
        for need in capacity.needs
        for one in need.on
    ]
    columns = numbers("batch", "TPOT", "decode tokens/s", "requests/s", *rated, *priced, "J a token")
    title = f"Served with at most {duration_as_typed(capacity.tpot_s)} a token"
    return Grid(title, [*names("request", "device"), *columns], list(dict.fromkeys(rows)))


def _request(need: Need) -> str:
    return shape(replace(need.point, batch=1)).removesuffix(", B=1")


def _serving(one: OnDevice, rated: bool, priced: bool) -> tuple[str, ...]:
    found = one.reached.served
    if found is None:
        reason = "none fits" if one.fit.largest_batch == 0 else "none meets it"
        return (reason, *["–"] * (4 + rated + priced))
    return (
        f"{found.batch:,}",
        duration(found.tpot_s),
        four_digits(found.decode_tokens_per_s),
        *_rest(found, rated, priced),
    )


def _rest(found: Served, rated: bool, priced: bool) -> list[str]:
    cells = [_figure(found.requests_per_s)]
    cells += [f"{found.devices:,}" if found.devices else "–"] if rated else []
    cells += [_figure(found.price_per_million_tokens)] if priced else []
    return [*cells, _figure(found.joules_per_token)]


def _figure(value: float | None) -> str:
    return "–" if value is None else four_digits(value)
