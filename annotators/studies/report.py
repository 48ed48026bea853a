"""A report as data: what was priced, by which conventions and versions, stage by stage. No formatting here."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import nn

from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.stages import steps
from fxmeter.annotators.stages.active import active_parameters
from fxmeter.annotators.stages.peak import AtPeak, at_peak
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.annotators.stages.steps import per_step
from fxmeter.models.figures import Figure, PassFigures
from fxmeter.models.scenario import VisionScenario
from fxmeter.models.stage_cost import PASS_FIGURES, StageCost
from fxmeter.models.version import ANALYTIC_MODEL_VERSION
from fxmeter.tracer.run.prompt import config_of

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model in one line. ``parameters`` counts tied ones once, ``active_parameters`` those that one token reads."""

    name: str
    model_type: str
    dtype: str
    parameters: int
    weight_bytes: int
    layers: int
    experts_implementation: str | None
    max_positions: int | None
    vision_parameters: int = 0
    active_parameters: int | None = None

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
class Column(PassFigures):
    """One column of the table of stages: a stage, the mean of its steps, or the whole request."""

    title: str
    attention: str
    cost: StageCost

    def value(self, figure: Figure) -> float:
        """What the column has of a figure."""
        return getattr(self if figure.name in PASS_FIGURES else self.cost, figure.name)

    def share(self, figure: Figure) -> float:
        """How much that is of the whole that the figure is a share of: of the traffic, what is left when chains are
        fused, or what no implementation can avoid."""
        return self.value(figure) / (getattr(self.cost, figure.share_of or "") or 1)


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a reader needs to trust, or to redo, the numbers. ``totals`` has attention → the whole request."""

    model: ModelInfo
    conventions: Conventions
    stages: tuple[AnnotatedStage, ...]
    totals: Mapping[str, StageCost] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The stages, each generation with its mean per token beside it, then the totals."""
        found = []
        for stage in self.stages:
            found.append(Column(title_of(stage), stage.attention, stage.cost, floor_io_bytes=stage.floor_io_bytes))
            count = getattr(stage.scenario, "steps", 1)
            if count > 1:
                mean = stage.floor_io_bytes / count
                cost = per_step(stage.cost, count)
                found.append(Column("decode per token", stage.attention, cost, floor_io_bytes=mean))
        for attention, cost in self.totals.items():
            floor = sum(stage.floor_io_bytes for stage in self.stages if stage.attention == attention)
            found.append(Column("end to end", attention, cost, floor_io_bytes=floor))
        return tuple(found)

    @property
    def fullest_stages(self) -> Mapping[str, AnnotatedStage]:
        """Attention → the stage of the whole request that has the largest peak."""
        return {
            attention: max(
                (stage for stage in self.stages if stage.attention == attention),
                key=lambda stage: stage.cost.peak_activation_bytes,
            )
            for attention in self.totals
        }

    @property
    def uncosted(self) -> int:
        """Executions of ops that no rule knows, over all stages."""
        return sum(item.count for stage in self.stages for item in stage.uncosted)


def build_report(
    model: nn.Module,
    stages: Iterable[AnnotatedStage],
    *,
    tower: nn.Module | None = None,
    end_to_end: bool = False,
) -> Report:
    """A report on stages of one model, all priced by the same conventions.

    ``tower`` is the vision tower beside the model, if a stage ran one. ``end_to_end`` adds the whole request for each
    attention: vision (where there is one), prefill and decode.
    """
    stages = tuple(stages)
    totals: dict[str, StageCost] = {}
    for attention in dict.fromkeys(stage.attention for stage in stages) if end_to_end else ():
        costs = {s.scenario.stage: s.cost for s in stages if s.attention == attention and s.scenario is not None}
        totals[attention] = steps.end_to_end(costs.get("vision"), costs["prefill"], costs["decode"])
    vision_parameters = 0 if tower is None else sum(p.numel() for p in tower.parameters())
    active = active_parameters(model)
    info = replace(ModelInfo.of(model), vision_parameters=vision_parameters, active_parameters=active)
    return Report(info, stages[0].conventions, stages, totals)


def title_of(stage: AnnotatedStage) -> str:
    """ "prefill S=2048", "decode C=2048, B=8": the scenario in a few words."""
    scenario = stage.scenario
    if scenario is None:
        return "module"
    if isinstance(scenario, VisionScenario):
        rows, columns = scenario.crops
        text = f"vision {rows}x{columns} crops" if rows else "vision, no crops"
    elif scenario.stage == "prefill":
        text = f"prefill S={scenario.query_len}"
        text += f", C={scenario.past_len}" if scenario.past_len else ""
    else:
        text = f"decode C={scenario.past_len}"
        text += f", S={scenario.query_len}" if scenario.query_len > 1 else ""
        text += f", K={scenario.steps}" if scenario.steps > 1 else ""
    return text + (f", B={scenario.batch}" if scenario.batch > 1 else "")


def versions() -> dict[str, str]:
    """The versions that a number depends on."""
    found = {}
    for name in ("fxmeter", "torch", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return {**found, "python": platform.python_version()}


def conventions_of(model: ModelInfo, conventions: Conventions) -> dict[str, Any]:
    """The conventions in force, as the JSON and the console show them."""
    return {
        "flops_per_mac": 2,
        "causal": conventions.causal,
        "logits": conventions.logits,
        "routing": conventions.routing,
        "dtype": model.dtype,
        "experts_implementation": model.experts_implementation,
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
            "active_parameters": model.active_parameters,
            "weight_bytes": model.weight_bytes,
            "layers": model.layers,
            **({"vision_parameters": model.vision_parameters} if model.vision_parameters else {}),
        },
        "conventions": conventions_of(model, report.conventions),
        "stages": [_stage_json(stage) for stage in report.stages],
        **({"end_to_end": [_total_json(report, attention) for attention in report.totals]} if report.totals else {}),
    }


def _total_json(report: Report, attention: str) -> Mapping[str, Any]:
    fullest = report.fullest_stages[attention].scenario
    return {
        "attention": attention,
        "cost": report.totals[attention].to_dict(),
        "peak_stage": None if fullest is None else fullest.stage,
    }


def _peak_json(peak: AtPeak | None) -> Mapping[str, Any] | None:
    """``bytes`` of an alive row are those of all ``count`` tensors together."""
    if peak is None:
        return None
    return {
        "bytes": peak.bytes,
        "node": peak.node,
        "op": peak.op,
        "module": peak.module,
        **({} if peak.past_len is None else {"past_len": peak.past_len}),
        "alive": [
            {
                "module": row.module,
                "op": row.op,
                "shape": list(row.shape),
                "dtype": row.dtype,
                "count": row.count,
                "bytes": row.bytes,
                "share": row.share,
            }
            for row in peak.rows
        ],
    }


def _stage_json(stage: AnnotatedStage) -> Mapping[str, Any]:
    scenario = stage.scenario
    head: dict[str, Any] = {"stage": "module", "attention": stage.attention}
    if isinstance(scenario, VisionScenario):
        head |= {"stage": scenario.stage, "batch": scenario.batch, "crops": list(scenario.crops)}
    elif scenario is not None:
        head |= {"stage": scenario.stage, "batch": scenario.batch, "query_len": scenario.query_len}
        head |= {"past_len": scenario.past_len, "steps": scenario.steps}
        if scenario.steps > 1:
            head |= {"per_step": per_step(stage.cost, scenario.steps).to_dict()}
    return {
        **head,
        "cost": stage.cost.to_dict(),
        "floor_io_bytes": stage.floor_io_bytes,
        "peak": _peak_json(at_peak(stage)),
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
