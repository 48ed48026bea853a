"""Times on the console. No arithmetic but the choice of a unit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rich.padding import Padding

from fxmeter.annotators.studies.report import title_of
from fxmeter.annotators.studies.times import StageTiming, longest_ops, timed_tree
from fxmeter.annotators.units import duration, four_digits
from fxmeter.annotators.views.console import Cell, Grid, Heading, names, numbers, short_op
from fxmeter.models.scenario import Scenario

TIMED: list[Heading] = [*numbers("time"), ("share", "share"), *names("bound by")]


def in_words(timing: StageTiming) -> str:
    """What binds a stage, and how long it takes, in one sentence."""
    stage, device = timing.stage, timing.time.device.name
    scenario = stage.scenario
    took = duration(timing.pass_s)
    if not isinstance(scenario, Scenario) or timing.tokens_per_s is None:
        return f"{title_of(stage)} is bound by {timing.time.bound_by}: {took} on {device}"
    batch = f", batch {scenario.batch:,}," if scenario.batch > 1 else ""
    rate = f"{four_digits(timing.tokens_per_s)} tokens/s"
    if scenario.stage == "decode":
        per = "a token" if scenario.batch * scenario.query_len == 1 else "a step"
        if scenario.acceptance is not None:
            per += f" of {four_digits(scenario.tokens_per_step)} tokens expected"
        line = f"decode at {scenario.past_len:,} tokens{batch} is bound by {timing.time.bound_by}: {took} {per}"
    else:
        line = f"prefill of {scenario.query_len:,} tokens{batch} is bound by {timing.time.bound_by}: {took}"
    what, share = timing.main_traffic
    reading = f"; {what} are {share:.0%} of its traffic" if timing.time.bound_by == "memory" else ""
    return f"{line} on {device}, {rate}{reading.replace('cache are', 'cache is')}"


def times_grid(timings: Sequence[StageTiming]) -> Grid:
    """A line for each stage and device."""
    rows: list[list[Cell]] = [
        [
            f"{title_of(item.stage)} {item.stage.attention}",
            item.time.device.name,
            duration(item.time.bound_s),
            estimated(item.time.estimate_s, item.time.extrapolated),
            duration(item.time.launch_s),
            "–" if item.tokens_per_s is None else four_digits(item.tokens_per_s),
            item.time.bound_by,
            four_digits(item.intensity),
            four_digits(item.ridge),
        ]
        for item in timings
    ]
    columns: list[Heading] = [
        *names("stage", "device"),
        *numbers("bound", "estimate", "of it launches", "tokens/s", "bound by", "FLOP per byte", "ridge"),
    ]
    return one_device_in_title(Grid("Time", columns, rows))


def one_device_in_title(grid: Grid) -> Grid:
    """A table whose rows are all of one device says so in its title, not in every row."""
    place = next(index for index, (heading, _) in enumerate(grid.columns) if heading == "device")
    devices = {str(row[place]) for row in grid.rows}
    if len(devices) != 1:
        return grid
    rows = [[*row[:place], *row[place + 1 :]] for row in grid.rows]
    columns = [*grid.columns[:place], *grid.columns[place + 1 :]]
    return replace(grid, title=f"{grid.title} on {devices.pop()}", columns=columns, rows=rows)


def timed_modules(timing: StageTiming, depth: int) -> Grid:
    """The module tree by time."""
    tree = timed_tree(timing, depth)
    rows: list[list[Cell]] = [
        [
            Padding(item.row.label, (0, 0, 0, 2 * item.row.depth)),
            duration(item.time.estimate_s) if item.time.estimate_s else "–",
            item.share,
            item.time.bound_by if item.time.estimate_s else "in another's kernel",
        ]
        for item in tree
    ]
    title = f"Time by module: {title_of(timing.stage)}, {timing.stage.attention}, on {timing.time.device.name}"
    first = names("a folded line has all its layers")
    return Grid(title, [*first, *TIMED], rows, ["" if item.row.depth else "bold" for item in tree])


def timed_ops(timing: StageTiming, count: int) -> Grid:
    """The launches that take most time."""
    rows: list[list[Cell]] = [
        [
            short_op(item.op),
            item.where,
            str(item.launches),
            duration(item.time.estimate_s),
            item.share,
            item.time.bound_by,
        ]
        for item in longest_ops(timing, count)
    ]
    title = f"Heaviest ops by time: {title_of(timing.stage)}, {timing.stage.attention}, on {timing.time.device.name}"
    return Grid(title, [*names("kernel, by its first op", "in"), *numbers("×"), *TIMED], rows)


def efficiency_lines(timings: Sequence[StageTiming]) -> list[str]:
    """Where the efficiencies of each device are from."""
    sources = {item.time.device.name: item.time.device.efficiency.source for item in timings}
    reasons = extrapolation(reason for item in timings for reason in item.time.extrapolated)
    return [*reasons, *(f"{name}, efficiency from: {source}" for name, source in sources.items())]


def estimated(seconds: float, extrapolated: Sequence[str]) -> str:
    """An estimate, with a mark where it was not held to measurements."""
    return f"{'~' if extrapolated else ''}{duration(seconds)}"


def extrapolation(reasons: Iterable[str]) -> list[str]:
    """What the mark means, in a line; none where nothing is marked."""
    distinct = list(dict.fromkeys(reasons))
    return [f"~ extrapolated, not held to measurements: {'; '.join(distinct)}"] if distinct else []
