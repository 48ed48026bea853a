"""Where serving kernels would change a report by more than a tenth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from torch import nn

from fxmeter.annotators.api import annotate
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.annotators.studies.comparing.compared import Served
from fxmeter.models.deployment import Deployment
from fxmeter.models.errors import ScenarioError
from fxmeter.models.scenario import Scenario
from fxmeter.tracer.serving.experts import runs_all_experts
from fxmeter.tracer.serving.heads import copied
from fxmeter.tracer.serving.latent import has_latent_attention

COMPARED = ("matmul_flops", "weight_read_bytes", "kv_bytes")


def where_serving_differs(
    model: nn.Module, stages: Iterable[AnnotatedStage], deployment: Deployment
) -> tuple[Served, ...]:
    """The figures that serving kernels change much, of the stages with fused attention.

    A decode step of a model without latent attention, whose experts are told who chose them and whose cache has each
    head once, is the same under both, so that nothing is recorded for it; any other stage is recorded once more.
    """
    if deployment.kernels == "serving":
        return ()
    found: list[Served] = []
    for stage in stages:
        one = stage.last_step or stage
        if stage.attention == "flash" and isinstance(one.scenario, Scenario) and _may_differ(model, one, one.scenario):
            found += _compared(model, one, one.scenario, replace(deployment, kernels="serving"))
    return tuple(item for item in found if item.differs_much)


def _may_differ(model: nn.Module, stage: AnnotatedStage, scenario: Scenario) -> bool:
    hooks = has_latent_attention(model) or runs_all_experts(model)
    return hooks or scenario.query_len > 1 or bool(copied(stage.recording))


def _compared(model: nn.Module, stage: AnnotatedStage, scenario: Scenario, deployment: Deployment) -> list[Served]:
    try:
        served = annotate(model, scenario, routing=stage.conventions.routing, deployment=deployment).cost
    except ScenarioError:  # a model that cannot leave out the other positions' logits
        return []
    return [
        Served(scenario, stage.attention, name, getattr(stage.cost, name), getattr(served, name)) for name in COMPARED
    ]
