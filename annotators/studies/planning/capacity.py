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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.sheets.steps import per_step
from fxmeter.annotators.studies.axes import Axes, SweepPoint
from fxmeter.annotators.studies.planning.rates import UNMEASURED, Measured, Rates, Utilisation
from fxmeter.annotators.studies.planning.search import largest_that_fits
from fxmeter.annotators.studies.planning.serving import NOTHING_ASKED, Demand, Reached, peaks_on, reached
from fxmeter.annotators.studies.sweep import StageFigures, StageForms, recorded, stage_column, uncosted
from fxmeter.models.choices import Attention, StageName
from fxmeter.models.errors import DeploymentError
from fxmeter.models.model_info import ModelInfo
from fxmeter.models.scenario import Scenario
from fxmeter.models.sizes import LARGEST_SIZE
from fxmeter.models.stage_cost import StageCost


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes resident at the end, and at the worst moment. ``peak_stage`` is the stage with the highest peak.

    ``kv_bytes`` are what a serving engine keeps. ``kv_storage_bytes`` are the most that transformers holds for it after
    a stage: its windows are slices of a whole prompt's keys and values.
    """

    weight_bytes: int
    kv_after_prefill_bytes: int | None
    kv_bytes: int
    kv_storage_bytes: int
    peak_activation_bytes: int
    peak_stage: StageName
    batch: int

    @property
    def holds_more(self) -> bool:
        """Whether transformers holds more for the cache than an engine keeps."""
        return self.kv_storage_bytes > max(self.kv_bytes, self.kv_after_prefill_bytes or 0)

    @property
    def kv_bytes_per_sequence(self) -> int:
        """The cache at the end of one sequence of the batch."""
        return self.kv_bytes // self.batch

    @property
    def total_bytes(self) -> int:
        """All three together: the weights, the whole cache, and the largest peak."""
        return self.weight_bytes + self.kv_bytes + self.peak_activation_bytes


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
    if forms.deployment.pp > 1:
        raise DeploymentError(
            "capacity is that of one device, of pipeline stages the fullest one, whose memory report --pp shows; "
            "without --pp it is that of all stages on one device"
        )
    points = axes.points()
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
        needs.append(replace(_need(point, stages, ttft_s, tpot_s, fit), on=on))
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


def stage_columns(
    forms: StageForms,
    attention: Attention,
    points: Sequence[SweepPoint],
    max_batched_tokens: int | None = None,
    *,
    sums: bool = True,
) -> list[dict[StageName, StageFigures]]:
    """Of each point, its stages (all points have the same ones), the prefill in passes of ``max_batched_tokens``;
    without ``sums`` only memory is right."""
    stages = points[0].stages
    columns = {stage: stage_column(forms, stage, attention, points) for stage in stages}
    if "prefill" in columns and max_batched_tokens is not None:
        prompts = forms.prompts(attention)
        columns["prefill"] = [
            replace(figures, cost=prompts.cost(figures.scenario, figures.cost, max_batched_tokens, sums=sums))
            for figures in columns["prefill"]
            if isinstance(figures.scenario, Scenario)
        ]
    return [dict(zip(stages, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _need(
    point: SweepPoint, stages: Mapping[StageName, StageFigures], ttft_s: float, tpot_s: float, fit: Fit | None
) -> Need:
    first = StageCost.total(figures.cost for stage, figures in stages.items() if stage != "decode")
    return Need(
        point=point,
        ttft=Rates.of(first, ttft_s) if "prefill" in stages else None,
        tpot=Rates.of(_one_pass(stages["decode"]), tpot_s),
        memory=memory_of(stages),
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


def memory_of(stages: Mapping[StageName, StageFigures]) -> Memory:
    """What the stages of one point hold. The tower of a page stays resident beside the decoder."""
    decode = stages["decode"].cost
    tower = stages["vision"].cost.weight_bytes if "vision" in stages else 0
    worst = max(stages, key=lambda stage: stages[stage].cost.peak_activation_bytes)
    return Memory(
        weight_bytes=decode.weight_bytes + tower,
        kv_after_prefill_bytes=stages["prefill"].cost.kv_bytes if "prefill" in stages else None,
        kv_bytes=decode.kv_bytes,
        kv_storage_bytes=max(figures.cost.kv_storage_bytes for figures in stages.values()),
        peak_activation_bytes=stages[worst].cost.peak_activation_bytes,
        peak_stage=worst,
        batch=stages["decode"].scenario.batch,
    )


def fitted(
    forms: StageForms,
    attention: Attention,
    point: SweepPoint,
    memory_bytes: int,
    max_batched_tokens: int | None = None,
) -> Fit:
    """The largest batch and the longest context that fit, each to the last unit."""

    def memory_at(changed: SweepPoint) -> Memory:
        (stages,) = stage_columns(forms, attention, [changed], max_batched_tokens, sums=False)
        return memory_of(stages)

    def at_batch(size: int) -> SweepPoint:
        return replace(point, batch=size)

    def at_context(size: int) -> SweepPoint:
        return replace(point, decode=size, prefill=size if point.prefill == point.decode else point.prefill)

    def search(at: Callable[[int], SweepPoint], start: int, most: int) -> tuple[int, tuple[Shortfall, ...]]:
        size = largest_that_fits(lambda size: memory_at(at(size)).total_bytes <= memory_bytes, start=start, most=most)
        if size:
            return size, ()
        memory = memory_at(at(1))
        return 0, (Shortfall(at(1), memory, memory.total_bytes - memory_bytes),)

    batch, too_many = search(at_batch, point.batch, LARGEST_SIZE)
    if point.crops is not None or point.decode is None:
        return Fit(batch, None, too_many)
    context, too_long = search(at_context, max(1, point.decode), LARGEST_SIZE - point.steps)
    return Fit(batch, context, too_many + too_long)
