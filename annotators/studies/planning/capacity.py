"""What a machine must do, and hold, to serve a model: rates for latency targets, memory, what fits, what devices reach.

    rate that a target needs      FLOPs (or bytes) of the stage / target
    time to first token           vision (of a page) and prefill
    time per output token         one decode step, the mean of the steps
    memory                        weights + cache after the last step + peak activations, the most of any stage
    MFU                           matmul FLOPs / (measured time · peak)
    bandwidth utilisation         bytes moved / (measured time · peak)

Memory is what tensors hold: no allocator's rounding, no kernel's workspace, no runtime's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.sheets.steps import per_step
from fxmeter.annotators.studies.axes import Axes, SweepPoint
from fxmeter.annotators.studies.planning.memory import Memory, memory_at, stage_columns
from fxmeter.annotators.studies.planning.rates import UNMEASURED, Measured, Rates, Utilisation
from fxmeter.annotators.studies.planning.search import largest_that_fits
from fxmeter.annotators.studies.planning.serving import NOTHING_ASKED, Demand, Reached, peaks_on, reached
from fxmeter.annotators.studies.sweep import StageFigures, StageForms, recorded, uncosted
from fxmeter.models.choices import Attention, StageName
from fxmeter.models.errors import DeploymentError
from fxmeter.models.model_info import ModelInfo
from fxmeter.models.sizes import LARGEST_SIZE
from fxmeter.models.stage_cost import StageCost


@dataclass(frozen=True, slots=True)
class Shortfall:
    """The smallest ``point`` of a search, which does not fit: ``missing_bytes`` of its ``memory`` are not there."""

    point: SweepPoint
    memory: Memory
    missing_bytes: int


@dataclass(frozen=True, slots=True)
class Fit:
    """The largest batch at a point's lengths, and the longest context at its batch, that fit. 0 if nothing does, which
    ``shortfalls`` explain; None where there is no such axis (a page has its own context). The search ends at
    LARGEST_SIZE."""

    largest_batch: int
    longest_context: int | None
    shortfalls: tuple[Shortfall, ...] = ()


@dataclass(frozen=True, slots=True)
class OnDevice:
    """What an input shape reaches on a device, and what fits there."""

    reached: Reached
    fit: Fit


@dataclass(frozen=True, slots=True)
class Need:
    """What one input shape needs, and what it gets ``on`` devices. ``ttft`` is None where no prompt is processed."""

    point: SweepPoint
    ttft: Rates | None
    tpot: Rates
    memory: Memory
    fit: Fit | None
    on: tuple[OnDevice, ...] = ()

    @property
    def fits(self) -> tuple[Fit, ...]:
        """In the memory that was given, and on devices."""
        return (*([] if self.fit is None else [self.fit]), *(one.fit for one in self.on))


@dataclass(frozen=True, slots=True)
class Capacity:
    """The needs of every input shape; ``memory_bytes`` is what they were fitted into, if anything."""

    model: ModelInfo
    conventions: Conventions
    attention: Attention
    ttft_s: float
    tpot_s: float
    memory_bytes: int | None
    demand: Demand
    needs: tuple[Need, ...]
    utilisation: tuple[Utilisation, ...]
    uncosted: int
    recorded: tuple[str, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Lengths that the model is not made for."""
        return self.model.warnings(max(need.point.tokens for need in self.needs), self.needs[0].point.encoder_len or 0)

    @property
    def exceeds_model(self) -> bool:
        """Whether a context that fits is longer than the model's own limit."""
        fits = [fit.longest_context for need in self.needs for fit in need.fits]
        return self.model.max_positions is not None and any((fit or 0) > self.model.max_positions for fit in fits)


def capacity(
    forms: StageForms,
    axes: Axes,
    *,
    attention: Attention = "flash",
    ttft_s: float = 1.0,
    tpot_s: float = 0.05,
    memory_bytes: int | None = None,
    measured: Measured = UNMEASURED,
    demand: Demand = NOTHING_ASKED,
    advance: Callable[[int], None] = lambda _: None,
) -> Capacity:
    """The needs of every point of ``axes``, and what they get on the devices of ``demand`` (in their own memory, or in
    ``memory_bytes`` of it). A measured time is of the first point. ``advance`` is told how many points are done."""
    points = axes.points()
    _check_stages(forms, points[0], measured)
    rows = stage_columns(forms, attention, points, demand.max_batched_tokens)
    needs = []
    for point, stages in zip(points, rows, strict=True):

        def fit_into(size: int, point: SweepPoint = point) -> Fit:
            return fitted(forms, attention, point, size, demand.max_batched_tokens)

        fit = None if memory_bytes is None else fit_into(memory_bytes)
        fits = [(device, fit or fit_into(device.memory_bytes)) for device in demand.devices]
        on = tuple(
            OnDevice(reached(forms, attention, point, device, room.largest_batch, demand, tpot_s), room)
            for device, room in fits
        )
        memory = memory_at(forms, attention, point, demand.max_batched_tokens)
        needs.append(replace(_need(point, stages, memory, ttft_s, tpot_s, fit), on=on))
        advance(len(needs))
    keys = [(stage, attention) for stage in rows[0]]
    return Capacity(
        model=forms.info,
        conventions=forms.conventions,
        attention=attention,
        ttft_s=ttft_s,
        tpot_s=tpot_s,
        memory_bytes=memory_bytes,
        demand=demand,
        needs=tuple(needs),
        utilisation=_utilisation(forms, attention, points[0], rows[0], measured, demand),
        uncosted=uncosted(forms, keys),
        recorded=recorded(forms, keys),
    )


def _check_stages(forms: StageForms, point: SweepPoint, measured: Measured) -> None:
    """A DeploymentError for what capacity does not say of pipeline stages."""
    if forms.deployment.pp > 1 and (point.crops is not None or point.encoder_len is not None):
        raise DeploymentError("pipeline stages share the layers of a decoder: leave --pp out, or pages and encoders")
    if forms.deployment.pp > 1 and measured:
        raise DeploymentError("a measured time is held to one device's peaks; leave it out, or --pp")


def _need(
    point: SweepPoint,
    stages: Mapping[StageName, StageFigures],
    memory: Memory,
    ttft_s: float,
    tpot_s: float,
    fit: Fit | None,
) -> Need:
    first = StageCost.total(figures.cost for stage, figures in stages.items() if stage != "decode")
    return Need(
        point=point,
        ttft=Rates.of(first, ttft_s) if "prefill" in stages else None,
        tpot=Rates.of(_one_pass(stages["decode"]), tpot_s),
        memory=memory,
        fit=fit,
    )


def _utilisation(
    forms: StageForms,
    attention: Attention,
    point: SweepPoint,
    stages: Mapping[StageName, StageFigures],
    measured: Measured,
    demand: Demand,
) -> tuple[Utilisation, ...]:
    """Of each stage that was measured, held to the peaks that were given, else to those of the first device."""
    times: dict[StageName, float | None] = {"prefill": measured.prefill_s, "decode": measured.decode_s}
    found = []
    for stage, seconds in times.items():
        if seconds is not None:
            held = (
                measured.on(*peaks_on(forms, attention, point, stage, seconds, demand)) if demand.devices else measured
            )
            found.append(Utilisation.of(stage, _one_pass(stages[stage]), seconds, held))
    return tuple(found)


def _one_pass(figures: StageFigures) -> StageCost:
    return per_step(figures.cost, figures.steps)


def fitted(
    forms: StageForms,
    attention: Attention,
    point: SweepPoint,
    memory_bytes: int,
    max_batched_tokens: int | None = None,
) -> Fit:
    """The largest batch and the longest context that fit, each to the last unit."""

    def memory(changed: SweepPoint) -> Memory:
        return memory_at(forms, attention, changed, max_batched_tokens)

    def at_batch(size: int) -> SweepPoint:
        return replace(point, batch=size)

    def at_context(size: int) -> SweepPoint:
        return replace(point, decode=size, prefill=size if point.prefill == point.decode else point.prefill)

    def search(at: Callable[[int], SweepPoint], start: int, most: int) -> tuple[int, tuple[Shortfall, ...]]:
        size = largest_that_fits(lambda size: memory(at(size)).total_bytes <= memory_bytes, start=start, most=most)
        if size:
            return size, ()
        most_held = memory(at(1))
        return 0, (Shortfall(at(1), most_held, most_held.total_bytes - memory_bytes),)

    batch, too_many = search(at_batch, point.batch, LARGEST_SIZE)
    if point.crops is not None or point.decode is None:
        return Fit(batch, None, too_many)
    context, too_long = search(at_context, max(1, point.decode), LARGEST_SIZE - point.steps)
    return Fit(batch, context, too_many + too_long)
