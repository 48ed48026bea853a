"""What ranks do together, beside one device that does it all: what they share, and what each does again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from fxmeter.annotators.api import annotate
from fxmeter.annotators.stages.pipeline import PipelineStage, pipeline, times_of
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.annotators.timing.stage_time import Time
from fxmeter.models.deployment import Deployment
from fxmeter.models.devices import Device
from fxmeter.models.scenario import Scenario
from fxmeter.models.stage_cost import StageCost
from fxmeter.tracer.state.tree import named_tensors

SHOWN = ("matmul_flops", "vector_flops", "weight_bytes", "kv_bytes", "weight_read_bytes", "kv_read_bytes")


@dataclass(frozen=True, slots=True)
class Shared:
    """A stage of one rank of ``ranks``, what ``one`` device would need for the sequences of all of them, and the
    parameters that each rank has whole, those that take most first ("*" stands for numbers)."""

    stage: AnnotatedStage
    ranks: int
    one: StageCost
    whole_parameters: tuple[str, ...]

    @property
    def all(self) -> StageCost:
        """What the ranks need together, each as much as the fullest."""
        return self.ranks * self.stage.cost

    def again(self, figure: str) -> int:
        """What is needed beyond one device's: work and memory that several ranks have alike."""
        extra: int = getattr(self.all, figure) - getattr(self.one, figure)
        return extra


def shared_by_ranks(model: nn.Module, stages: Iterable[AnnotatedStage], deployment: Deployment) -> tuple[Shared, ...]:
    """Each stage of a language model beside one device; nothing where no device shares a model with another."""
    if not deployment.sharded:
        return ()
    alone = replace(deployment, tp=1, ep=1, dp=1, pp=1)
    found = []
    for stage in stages:
        if isinstance(stage.scenario, Scenario):
            scenario = replace(stage.scenario, batch=stage.scenario.batch * deployment.dp)
            options: dict[str, Any] = {"attention": stage.attention, **asdict(stage.conventions)}
            one = annotate(model, scenario, deployment=alone, **options).cost
            found.append(Shared(stage, deployment.ranks, one, _whole_parameters(model, stage)))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Pipelined:
    """A stage as pipeline stages, and device → the time of the kernels of each."""

    stage: AnnotatedStage
    parts: tuple[PipelineStage, ...]
    times: Mapping[str, tuple[Time, ...]]


def pipelined(
    stages: Iterable[AnnotatedStage], deployment: Deployment, devices: Sequence[Device]
) -> tuple[Pipelined, ...]:
    """The passes of a language model as pipeline stages; of a generation its last step."""
    if deployment.pp == 1:
        return ()
    found = []
    for stage in (stage.last_step or stage for stage in stages if isinstance(stage.scenario, Scenario)):
        parts = pipeline(stage, deployment.pp)
        times = {device.name: tuple(times_of(stage, stage.time(device), parts)) for device in devices}
        found.append(Pipelined(stage, parts, times))
    return tuple(found)


def _whole_parameters(model: nn.Module, stage: AnnotatedStage) -> tuple[str, ...]:
    sizes = {path: parameter.numel() for path, parameter in named_tensors(model, "_parameters")}
    nbytes: dict[str, int] = {}
    for weight in stage.recording.weights:
        if sizes.get(weight.path) == weight.numel:
            name = re.sub(r"\.\d+\.", ".*.", weight.path).removesuffix(".weight")
            nbytes[name] = nbytes.get(name, 0) + weight.nbytes
    return tuple(sorted(nbytes, key=lambda name: -nbytes[name]))
