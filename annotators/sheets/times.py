"""The time of closed forms: kernels with polynomial amounts, at many sizes at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import ArrayLike

from fxmeter.annotators.sheets.grid import SizeGrid
from fxmeter.annotators.sheets.piece import Part, Piece
from fxmeter.annotators.sheets.region import Point
from fxmeter.annotators.sheets.sheet import Sheet
from fxmeter.annotators.sheets.tables import within
from fxmeter.annotators.symbolic import value_at
from fxmeter.annotators.symbolic.values import Values
from fxmeter.annotators.timing.kernel import AMOUNTS, Kernel
from fxmeter.annotators.timing.limits import beyond
from fxmeter.annotators.timing.roofline import ROOFS, kernel_time
from fxmeter.annotators.timing.stage_time import (
    ZERO,
    StageTime,
    Time,
    TimedKernel,
    by_module,
    host_time,
    joined,
    stage_time,
)
from fxmeter.models.devices.device import Device
from fxmeter.models.names import Kwargs
from fxmeter.models.scenario import Scenario
from fxmeter.models.stage_cost import Size


def times_at(sheet: Sheet, part: Part, sizes: Sequence[ArrayLike], device: Device) -> Time:
    """The time of a module, one instance of it, or of a pipeline stage and what it sends, at every point of a grid of
    sizes, as arrays of the grid's shape."""
    grid = SizeGrid(sizes, sheet.for_time)
    columns = np.zeros((3 + len(ROOFS), *grid.shape))
    flat = columns.reshape(len(columns), -1)
    for places, piece, values in grid.parts():
        time = reduce(add, (one * times for one, times in _timed_in(part, piece, values, device)), ZERO)
        for column, amount in zip(flat, (time.bound_s, time.estimate_s, time.launch_s, *time.roofs_s), strict=True):
            column[places] = amount
    bound, estimate, launch, *roofs = columns
    time = Time(bound, estimate, launch, tuple(roofs))
    return time + host_time(device, sheet.stage) if part == "" else time


def extrapolated_at(sheet: Sheet, point: Point, device: Device) -> tuple[str, ...]:
    """Why the estimate at a point was not held to measurements."""
    return beyond(sheet.for_time.piece(point).kernels, device, sheet.subject.scenario(point))


def time_of_pass(sheet: Sheet, point: Point, device: Device) -> StageTime:
    """The time of one pass, what ``annotate(...).time(device)`` gives, by module and by kernel."""
    piece = sheet.for_time.piece(point)
    kernels = [
        replace(each, **{name: value_at(getattr(each, name), point) for name in AMOUNTS}) for each in piece.kernels
    ]
    times = {path: module.times for path, module in piece.modules.items()}
    return stage_time(kernels, device, times, sheet.subject.scenario(point))


def time_of_steps(sheet: Sheet, scenario: Scenario, device: Device) -> StageTime:
    """The time of a generation: that of all of its steps, by module and by kernel.

    A kernel's amounts, and ``one``, are means of its launches.
    """
    pasts = scenario.past_len + scenario.query_len * np.arange(scenario.steps, dtype=np.int64)
    grid = SizeGrid((scenario.batch, scenario.query_len, pasts), sheet.for_time)
    found = []
    for places, piece, values in grid.parts():
        steps = len(places)
        timed = [(kernel, _over(one, steps)) for kernel, one in _timed(piece.kernels, values, device)]
        kernels = tuple(
            TimedKernel(_mean(kernel, values, steps), one * (1 / steps), one * kernel.times, steps)
            for kernel, one in timed
        )
        modules = by_module(timed, {path: module.times for path, module in piece.modules.items()})
        reasons = beyond(piece.kernels, device, scenario)
        found.append(StageTime(device, modules.get("", ZERO), modules, kernels, steps, reasons))
    final = scenario.step(scenario.steps - 1)
    last = time_of_pass(sheet, (final.batch, final.query_len, final.past_len), device)
    return replace(joined(device, found), last=last)


def _mean(kernel: Kernel, values: Values, steps: int) -> Kernel:
    """A kernel with the means of its amounts over steps."""
    amounts = {name: np.broadcast_to(values.of(getattr(kernel, name)), (steps,)) for name in AMOUNTS}
    return replace(kernel, **{name: sum(amount.tolist()) / steps for name, amount in amounts.items()})


def _over(one: Time, steps: int) -> Time:
    """The sum over steps of what is the same at some of them, or has a value at each."""
    bound, estimate, launch, *roofs = (
        np.broadcast_to(amount, (steps,)) for amount in (one.bound_s, one.estimate_s, one.launch_s, *one.roofs_s)
    )
    return Time(bound, estimate, launch, tuple(roofs)).summed()


def _timed_in(part: Part, piece: Piece, values: Values, device: Device) -> Iterator[tuple[Time, int]]:
    """The time of one launch of each kernel of a part, as arrays, and how often it is launched there."""
    if isinstance(part, str):
        instances = piece.modules[part].times
        inside = [kernel for kernel in piece.kernels if within(kernel.module, part)]
        launches = [kernel.times // instances for kernel in inside]
    else:
        stage = piece.pipeline[part]
        sent = [] if stage.send is None else [stage.send]
        inside, launches = [*piece.kernels, *sent], [*stage.launches, *(1 for _ in sent)]
    launched = [(kernel, times) for kernel, times in zip(inside, launches, strict=True) if times]
    timed = _timed([kernel for kernel, _ in launched], values, device)
    return ((one, times) for (_, one), (_, times) in zip(timed, launched, strict=True))


def _timed(kernels: Iterable[Kernel], values: Values, device: Device) -> Iterator[tuple[Kernel, Time]]:
    """Each kernel and the time of one launch, as arrays."""

    def amount(size: Size) -> np.ndarray:
        return values.of(size).astype(np.float64)

    for kernel in kernels:
        amounts: Kwargs = {name: amount(getattr(kernel, name)) for name in AMOUNTS}
        yield kernel, Time.of(kernel_time(replace(kernel, **amounts), device))
