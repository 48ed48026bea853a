"""What a machine must do, and hold, to serve a model: rates for latency targets, memory, what fits.

    rate that a target needs      FLOPs (or bytes) of the stage / target
    time to first token           vision (of a page) and prefill
    time per output token         one decode step, the mean of the steps
    memory                        weights + cache after the last step + peak activations, the most of any stage
    MFU                           matmul FLOPs / (measured time · peak)
    bandwidth utilisation         bytes moved / (measured time · peak)

Memory is what tensors hold: no allocator's rounding, no kernel's workspace, no runtime's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.stages.model_info import ModelInfo
from fxmeter.annotators.stages.steps import per_step
from fxmeter.annotators.studies.axes import Axes, SweepPoint
from fxmeter.annotators.studies.sweep import Forms, StageFigures, SweepStage, config_sha256, figures, recorded, uncosted
from fxmeter.models.figures import TERA
from fxmeter.models.sizes import LARGEST_SIZE
from fxmeter.models.stage_cost import StageCost
from fxmeter.tracer.run.attention import Attention


@dataclass(frozen=True, slots=True)
class Rates:
    """What a stage must run at to be done in ``seconds``: TFLOP/s, and TB/s op by op and with chains fused."""

    seconds: float
    tflops: float
    tbps: float
    fused_tbps: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes resident at the end, and at the worst moment. ``peak_stage`` is the stage with the highest peak."""

    weight_bytes: int
    kv_after_prefill_bytes: int | None
    kv_bytes: int
    peak_activation_bytes: int
    peak_stage: SweepStage
    batch: int

    @property
    def kv_bytes_per_sequence(self) -> int:
        """The cache at the end of one sequence of the batch."""
        return self.kv_bytes // self.batch

    @property
    def total_bytes(self) -> int:
        """All three together: the weights, the whole cache, and the largest peak."""
        return self.weight_bytes + self.kv_bytes + self.peak_activation_bytes


@dataclass(frozen=True, slots=True)
class Fit:
    """The largest batch at a point's lengths, and the longest context at its batch, that fit. 0 if nothing does; None
    where there is no such axis (a page has its own context). The search ends at LARGEST_SIZE."""

    largest_batch: int
    longest_context: int | None


@dataclass(frozen=True, slots=True)
class Utilisation:
    """A measured time against the stage's counts: rates achieved, and their shares of a peak where one was given."""

    stage: SweepStage
    seconds: float
    tflops: float
    tbps: float
    fused_tbps: float
    mfu: float | None
    bandwidth: float | None
    fused_bandwidth: float | None


@dataclass(frozen=True, slots=True)
class Need:
    """What one input shape needs. ``ttft`` is None where no prompt is processed."""

    point: SweepPoint
    ttft: Rates | None
    tpot: Rates
    memory: Memory
    fit: Fit | None


@dataclass(frozen=True, slots=True)
class Capacity:
    """The needs of every input shape; ``memory_bytes`` is what they were fitted into, if anything."""

    model: ModelInfo
    config_sha256: str
    conventions: Conventions
    attention: Attention
    ttft_s: float
    tpot_s: float
    memory_bytes: int | None
    needs: tuple[Need, ...]
    utilisation: tuple[Utilisation, ...]
    uncosted: int
    recorded: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Measured times in seconds, of the prefill and of one decode step, and the peaks that they are held to."""

    prefill_s: float | None = None
    decode_s: float | None = None
    peak_tflops: float | None = None
    peak_tbps: float | None = None


def capacity(
    forms: Forms,
    axes: Axes,
    *,
    attention: Attention = "flash",
    ttft_s: float = 1.0,
    tpot_s: float = 0.05,
    memory_bytes: int | None = None,
    measured: Measured | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Capacity:
    """The needs of every point of ``axes``. A measured time is of the first point. ``advance`` counts points."""
    points = axes.points()
    costs = stage_costs(forms, attention, points)
    needs = []
    for point, found in zip(points, costs, strict=True):
        fit = None if memory_bytes is None else fitted(forms, attention, point, memory_bytes)
        needs.append(_need(point, found, ttft_s, tpot_s, fit))
        advance(1)
    keys = [(stage, attention) for stage in costs[0]]
    return Capacity(
        model=forms.info,
        config_sha256=config_sha256(forms),
        conventions=forms.conventions,
        attention=attention,
        ttft_s=ttft_s,
        tpot_s=tpot_s,
        memory_bytes=memory_bytes,
        needs=tuple(needs),
        utilisation=_utilisation(costs[0], measured) if measured else (),
        uncosted=uncosted(forms, keys, points),
        recorded=recorded(forms, keys),
    )


def stage_costs(
    forms: Forms, attention: Attention, points: Sequence[SweepPoint]
) -> list[dict[SweepStage, StageFigures]]:
    """Of each point, its stages (all points have the same ones)."""
    first = points[0]
    stages: list[SweepStage] = ["vision"] if first.crops is not None else []
    stages += ["prefill"] if first.prefill is not None else []
    stages.append("decode")
    columns = [figures(forms, stage, attention, points) for stage in stages]
    return [dict(zip(stages, row, strict=True)) for row in zip(*columns, strict=True)]


def _need(
    point: SweepPoint, found: dict[SweepStage, StageFigures], ttft_s: float, tpot_s: float, fit: Fit | None
) -> Need:
    first = StageCost.total(found[stage].cost for stage in found if stage != "decode")
    step = per_step(found["decode"].cost, found["decode"].steps)
    return Need(
        point=point,
        ttft=_rates(first, ttft_s) if "prefill" in found else None,
        tpot=_rates(step, tpot_s),
        memory=memory_of(found),
        fit=fit,
    )


def _rates(cost: StageCost, seconds: float) -> Rates:
    return Rates(
        seconds, cost.flops / seconds / TERA, cost.io_bytes / seconds / TERA, cost.fused_io_bytes / seconds / TERA
    )


def memory_of(found: dict[SweepStage, StageFigures]) -> Memory:
    """What the stages of one point hold. The tower of a page stays resident beside the decoder."""
    decode = found["decode"].cost
    tower = found["vision"].cost.weight_bytes if "vision" in found else 0
    worst = max(found, key=lambda stage: found[stage].cost.peak_activation_bytes)
    return Memory(
        weight_bytes=decode.weight_bytes + tower,
        kv_after_prefill_bytes=found["prefill"].cost.kv_bytes if "prefill" in found else None,
        kv_bytes=decode.kv_bytes,
        peak_activation_bytes=found[worst].cost.peak_activation_bytes,
        peak_stage=worst,
        batch=found["decode"].batch,
    )


def fitted(forms: Forms, attention: Attention, point: SweepPoint, memory_bytes: int) -> Fit:
    """The largest batch and the longest context that fit, each to the last unit."""

    def fits(changed: SweepPoint) -> bool:
        (found,) = stage_costs(forms, attention, [changed])
        return memory_of(found).total_bytes <= memory_bytes

    batch = largest(lambda size: fits(replace(point, batch=size)), start=point.batch)
    if point.crops is not None or point.decode is None:
        return Fit(batch, None)
    follows = point.prefill == point.decode
    context = largest(
        lambda size: fits(replace(point, decode=size, prefill=size if follows else point.prefill)),
        start=max(1, point.decode),
        most=LARGEST_SIZE - point.steps,
    )
    return Fit(batch, context)


def largest(fits: Callable[[int], bool], *, start: int, most: int = LARGEST_SIZE) -> int:
    """The largest size that fits, at most ``most``; 0 if 1 does not. What fits must fit in any smaller size too.

    Doubles, or halves, from ``start`` on, then closes in: sizes far beyond the answer are never tried.
    """
    low, high = 0, start
    while fits(high):
        if high == most:
            return high
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _utilisation(found: dict[SweepStage, StageFigures], measured: Measured) -> tuple[Utilisation, ...]:
    times: list[tuple[SweepStage, float | None]] = [("prefill", measured.prefill_s), ("decode", measured.decode_s)]
    return tuple(_utilised(found[stage], seconds, measured) for stage, seconds in times if seconds is not None)


def _utilised(of: StageFigures, seconds: float, measured: Measured) -> Utilisation:
    cost = per_step(of.cost, of.steps)
    rates = _rates(cost, seconds)
    tflops, tbps = measured.peak_tflops, measured.peak_tbps
    return Utilisation(
        stage=of.stage,
        seconds=seconds,
        tflops=rates.tflops,
        tbps=rates.tbps,
        fused_tbps=rates.fused_tbps,
        mfu=None if tflops is None else cost.matmul_flops / seconds / TERA / tflops,
        bandwidth=None if tbps is None else rates.tbps / tbps,
        fused_bandwidth=None if tbps is None else rates.fused_tbps / tbps,
    )
