"""Times on the console. No arithmetic but the choice of a unit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rich.padding import Padding

from fxmeter.annotators.sheets.steps import per_step
from fxmeter.annotators.sheets.tables import StageTables
from fxmeter.annotators.studies.report import title_of
from fxmeter.annotators.studies.times import StageTiming, longest_ops, main_traffic, timed_tree
from fxmeter.annotators.units import duration, four_digits, quantity
from fxmeter.annotators.views.console import Cell, Grid, Heading, names, numbers, short_op
from fxmeter.models.scenario import Scenario

MODULE = "module (n×: all n)"
TIMED: list[Heading] = [*numbers("time"), ("share", "share"), *names("bound by")]


def in_words(timing: StageTiming) -> str:
    """What binds a stage, and how long it takes, in one sentence."""
    stage, device, bound_by = timing.stage, timing.time.device.name, timing.time.bound_by
    line = f"{_subject(stage)} is bound by {bound_by}: {duration(timing.pass_s)}{_per(stage)} on {device}"
    if timing.tokens_per_s is None:
        return line
    line += f", {four_digits(timing.tokens_per_s)} tokens/s"
    if bound_by != "memory":
        return line
    what, share = main_traffic(stage.cost, fused=True)
    return f"{line}; {what} {'is' if what.endswith('cache') else 'are'} {share:.0%} of its traffic"


def cost_in_words(stage: StageTables) -> str:
    """What a stage costs, in one sentence."""
    cost = per_step(stage.cost, getattr(stage.scenario, "steps", 1))
    flops, moved = quantity(cost.flops, "flop"), quantity(cost.io_bytes, "byte")
    what, share = main_traffic(cost, fused=False)
    return f"{_subject(stage)} takes {flops} and moves {moved}{_per(stage)}, {share:.0%} of it {what}"


def _subject(stage: StageTables) -> str:
    """The stage as a sentence begins with it."""
    scenario = stage.scenario
    if not isinstance(scenario, Scenario) or scenario.stage == "encode":
        return title_of(stage)
    batch = f", batch {scenario.batch:,}," if scenario.batch > 1 else ""
    if scenario.stage == "decode":
        return f"decode at {scenario.past_len:,} tokens{batch}"
    behind = f" behind {scenario.past_len:,}" if scenario.past_len else ""
    return f"prefill of {scenario.query_len:,} tokens{behind}{batch}"


def _per(stage: StageTables) -> str:
    """What a figure of a stage is for: of a generation one of its steps."""
    scenario = stage.scenario
    if not isinstance(scenario, Scenario) or scenario.stage != "decode":
        return ""
    if scenario.acceptance is not None:
        return f" a step of {four_digits(scenario.tokens_per_step)} tokens expected"
    return " a token" if scenario.batch * scenario.query_len == 1 else " a step"


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
        *numbers("bound", "estimate", "of it launches", "tokens/s", "bound by"),
        ("FLOP per byte if fused", "spare"),
        ("ridge", "spare"),
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
    first = names(MODULE)
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
