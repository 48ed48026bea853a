"""A report as data: what was priced, by which conventions and versions, stage by stage. No formatting here."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import nn

from annotators.cost import Conventions
from annotators.rollup import AnnotatedStage
from models.version import ANALYTIC_MODEL_VERSION
from tracer.passes import config_of

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model in one line. ``parameters`` counts tied ones once."""

    name: str
    model_type: str
    dtype: str
    parameters: int
    weight_bytes: int
    layers: int
    experts_implementation: str | None
    max_positions: int | None

    @classmethod
    def of(cls, model: nn.Module) -> ModelInfo:
        """Read off a loaded model and its config."""
        config = config_of(model)
        text = config.get_text_config(decoder=True)
        parameters = list(model.parameters())
        has_experts = any(hasattr(module, "num_experts") for module in model.modules())
        return cls(
            name=str(getattr(model, "name_or_path", "") or config.model_type),
            model_type=str(config.model_type),
            dtype=str(parameters[0].dtype).removeprefix("torch."),
            parameters=sum(p.numel() for p in parameters),
            weight_bytes=sum(p.nbytes for p in parameters),
            layers=int(getattr(text, "num_hidden_layers", 0) or 0),
            experts_implementation=getattr(text, "_experts_implementation", None) if has_experts else None,
            max_positions=getattr(text, "max_position_embeddings", None),
        )


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a reader needs to trust, or to redo, the numbers."""

    model: ModelInfo
    conventions: Conventions
    stages: tuple[AnnotatedStage, ...]

    @property
    def uncosted(self) -> int:
        """Executions of ops that no rule knows, over all stages."""
        return sum(item.count for stage in self.stages for item in stage.uncosted)


def build_report(model: nn.Module, stages: Iterable[AnnotatedStage]) -> Report:
    """A report on stages of one model, all priced by the same conventions."""
    stages = tuple(stages)
    return Report(ModelInfo.of(model), stages[0].conventions, stages)


def versions() -> dict[str, str]:
    """The versions that a number depends on."""
    found = {}
    for name in ("fxmeter", "torch", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return {**found, "python": platform.python_version()}


def conventions_of(report: Report) -> dict[str, Any]:
    """The conventions in force, as the JSON and the console show them."""
    return {
        "flops_per_mac": 2,
        "causal": report.conventions.causal,
        "logits": report.conventions.logits,
        "routing": report.conventions.routing,
        "dtype": report.model.dtype,
        "experts_implementation": report.model.experts_implementation,
        "cache_layout": "in place",
    }


def to_json(report: Report) -> dict[str, Any]:
    """The report as plain JSON data, schema version 1. A module's cost is for one instance; ``times`` are identical."""
    model = report.model
    return {
        "schema_version": SCHEMA_VERSION,
        "analytic_model_version": ANALYTIC_MODEL_VERSION,
        "versions": versions(),
        "model": {
            "name": model.name,
            "model_type": model.model_type,
            "parameters": model.parameters,
            "weight_bytes": model.weight_bytes,
            "layers": model.layers,
        },
        "conventions": conventions_of(report),
        "stages": [_stage_json(stage) for stage in report.stages],
    }


def _stage_json(stage: AnnotatedStage) -> Mapping[str, Any]:
    scenario = stage.scenario
    head: dict[str, Any] = {"stage": "module", "attention": stage.attention}
    if scenario is not None:
        head = {
            "stage": scenario.stage,
            "attention": stage.attention,
            "batch": scenario.batch,
            "query_len": scenario.query_len,
            "past_len": scenario.past_len,
        }
    return {
        **head,
        "cost": stage.cost.to_dict(),
        "modules": [
            {"path": m.path, "class": m.class_name, "times": m.times, "cost": m.cost.to_dict()}
            for m in stage.modules.values()
        ],
        "ops": [{"op": op.op, "count": op.count, "cost": op.cost.to_dict()} for op in stage.ops],
        "kv_cache": [
            {"layer": c.layer, "kind": c.kind, "shapes": [list(s) for s in c.shapes], "bytes": c.bytes}
            for c in stage.kv_cache
        ],
        "uncosted": [{"op": u.op, "count": u.count, "module": u.module, "shapes": u.shapes} for u in stage.uncosted],
    }
