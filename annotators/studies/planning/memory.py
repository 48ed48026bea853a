"""What a device holds to serve requests: weights, the cache after the last step, the largest peak of any stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fxmeter.annotators.studies.axes import SweepPoint
from fxmeter.annotators.studies.sweep import StageFigures, StageForms, stage_column
from fxmeter.models.choices import Attention, StageName
from fxmeter.models.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes resident at the end, and at the worst moment. ``peak_stage`` is the stage with the highest peak.

    ``kv_bytes`` are what a serving engine keeps. ``kv_storage_bytes`` are the most that transformers holds for it after
    a stage: its windows are slices of a whole prompt's keys and values. Of ``in_flight`` passes, as many as there are
    pipeline stages, it is that of the fullest device, at ``place``; each pass has a cache.
    """

    weight_bytes: int
    kv_after_prefill_bytes: int | None
    kv_bytes: int
    kv_storage_bytes: int
    peak_activation_bytes: int
    peak_stage: StageName
    batch: int
    in_flight: int = 1
    place: int | None = None

    @property
    def holds_more(self) -> bool:
        """Whether transformers holds more for the cache than an engine keeps."""
        return self.kv_storage_bytes > max(self.kv_bytes, self.kv_after_prefill_bytes or 0)

    @property
    def kv_bytes_per_sequence(self) -> int:
        """The cache at the end of one sequence of the batch."""
        return self.kv_bytes // (self.batch * self.in_flight)

    @property
    def total_bytes(self) -> int:
        """All three together: the weights, the whole cache, and the largest peak."""
        return self.weight_bytes + self.kv_bytes + self.peak_activation_bytes


def stage_columns(
    forms: StageForms,
    attention: Attention,
    points: Sequence[SweepPoint],
    max_batched_tokens: int | None = None,
    *,
    sums: bool = True,
    place: int | None = None,
) -> list[dict[StageName, StageFigures]]:
    """Of each point, its stages (all points have the same ones), the prefill in passes of ``max_batched_tokens``;
    without ``sums`` only memory is right. ``place`` is that of a pipeline stage, None for all."""
    stages = points[0].stages
    columns = {stage: stage_column(forms, stage, attention, points, place=place) for stage in stages}
    if "prefill" in columns and max_batched_tokens is not None:
        prompts = replace(forms.prompts(attention), place=place)
        columns["prefill"] = [
            replace(figures, cost=prompts.cost(figures.scenario, figures.cost, max_batched_tokens, sums=sums))
            for figures in columns["prefill"]
            if isinstance(figures.scenario, Scenario)
        ]
    return [dict(zip(stages, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def memory_at(
    forms: StageForms, attention: Attention, point: SweepPoint, max_batched_tokens: int | None = None
) -> Memory:
    """What a device holds at a point, of pipeline stages the fullest one."""

    def held(place: int | None) -> Memory:
        (stages,) = stage_columns(forms, attention, [point], max_batched_tokens, sums=False, place=place)
        return memory_of(stages, forms.deployment.pp, place)

    places = range(forms.deployment.pp) if forms.deployment.pp > 1 else [None]
    return max(map(held, places), key=lambda memory: memory.total_bytes)


def memory_of(stages: Mapping[StageName, StageFigures], in_flight: int = 1, place: int | None = None) -> Memory:
    """What the stages of one point hold. The tower of a page stays resident beside the decoder."""
    decode = stages["decode"].cost
    tower = stages["vision"].cost.weight_bytes if "vision" in stages else 0
    worst = max(stages, key=lambda stage: stages[stage].cost.peak_activation_bytes)
    return Memory(
        weight_bytes=decode.weight_bytes + tower,
        kv_after_prefill_bytes=in_flight * stages["prefill"].cost.kv_bytes if "prefill" in stages else None,
        kv_bytes=in_flight * decode.kv_bytes,
        kv_storage_bytes=in_flight * max(figures.cost.kv_storage_bytes for figures in stages.values()),
        peak_activation_bytes=stages[worst].cost.peak_activation_bytes,
        peak_stage=worst,
        batch=stages["decode"].scenario.batch,
        in_flight=in_flight,
        place=place,
    )
