"""What ranks do together, beside one device that does it all: what they share, and what each does again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import nn

from fxmeter.annotators.api import annotate_by
from fxmeter.annotators.stages.pipeline import pipeline, shown, times_of
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.annotators.studies.comparing.compared import Pipelined, Shared
from fxmeter.models.deployment import Deployment
from fxmeter.models.devices import Device
from fxmeter.models.scenario import Scenario
from fxmeter.tracer.state.tree import named_tensors


def shared_by_ranks(model: nn.Module, stages: Iterable[AnnotatedStage], deployment: Deployment) -> tuple[Shared, ...]:
    """Each stage of a language model beside one device; nothing where no device shares a model with another."""
    if not deployment.sharded:
        return ()
    alone = replace(deployment, tp=1, ep=1, dp=1, pp=1)
    found = []
    for stage in stages:
        if isinstance(stage.scenario, Scenario):
            scenario = replace(stage.scenario, batch=stage.scenario.batch * deployment.dp)
            one = annotate_by(stage.conventions, model, scenario, attention=stage.attention, deployment=alone).cost
            of_pass = stage.scenario, stage.attention, stage.cost
            found.append(Shared(*of_pass, deployment.ranks, one, _whole_parameters(model, stage)))
    return tuple(found)


def pipelined(
    stages: Iterable[AnnotatedStage], deployment: Deployment, devices: Sequence[Device]
) -> tuple[Pipelined, ...]:
    """The passes of a language model as pipeline stages: all chunks of a prompt, the last step of a generation."""
    if deployment.pp == 1:
        return ()
    found = []
    for stage in map(shown, stages):
        scenario = stage.scenario
        if not isinstance(scenario, Scenario):
            continue
        parts = pipeline(stage, deployment.pp, deployment.ranks)
        times = {device.name: tuple(times_of(stage, stage.time(device), parts)) for device in devices}
        found.append(Pipelined(scenario, stage.attention, parts, times))
    return tuple(found)


def _whole_parameters(model: nn.Module, stage: AnnotatedStage) -> tuple[str, ...]:
    sizes = {path: parameter.numel() for path, parameter in named_tensors(model, "_parameters")}
    nbytes: dict[str, int] = {}
    for weight in stage.recording.weights:
        if sizes.get(weight.path) == weight.numel:
            name = re.sub(r"\.\d+\.", ".*.", weight.path).removesuffix(".weight")
            nbytes[name] = nbytes.get(name, 0) + weight.nbytes
    return tuple(sorted(nbytes, key=lambda name: -nbytes[name]))
