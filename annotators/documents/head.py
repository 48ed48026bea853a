"""What documents begin with: versions, the model in one line, the conventions in force."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from fxmeter.models.mixed_step import MixedStep
from fxmeter.models.names import Document
from fxmeter.models.scenario import Scenario, VisionScenario
from fxmeter.models.version import ANALYTIC_MODEL_VERSION, versions

if TYPE_CHECKING:
    from fxmeter.annotators.conventions import Conventions
    from fxmeter.annotators.sheets.tables import OfPass
    from fxmeter.models.model_info import ModelInfo

SCHEMA_VERSION = 2


def head() -> Document:
    """The first keys of every document."""
    return {
        "schema_version": SCHEMA_VERSION,
        "analytic_model_version": ANALYTIC_MODEL_VERSION,
        "versions": versions(),
    }


def model_of(model: ModelInfo) -> Document:
    """The model, its vision tower where it has one."""
    return {
        "name": model.name,
        "model_type": model.model_type,
        "parameters": model.parameters,
        "active_parameters": model.active_parameters,
        "weight_bytes": model.weight_bytes,
        "layers": model.layers,
        **(
            {"further_layers": model.further_layers, "checkpoint_bytes": model.checkpoint_bytes}
            if model.further_layers
            else {}
        ),
        "source_sha256": model.source_sha256,
        **({} if model.kind == "decoder" else {"kind": model.kind}),
        **({"vision_parameters": model.vision_parameters} if model.vision_parameters else {}),
        "left_out": [{"name": part.name, "parameters": part.parameters} for part in model.left_out],
    }


def conventions_of(model: ModelInfo, conventions: Conventions) -> Document:
    """The conventions in force, as documents and the console show them."""
    return {
        "flops_per_mac": 2,
        **asdict(conventions),
        "dtype": model.dtype,
        "experts_implementation": model.experts_implementation,
        "cache_layout": "in place",
        "weights": model.weights,
        "kv": model.kv,
        "kernels": model.kernels,
        "page_size": model.page_size,
        **({"sharding": dict(model.sharding)} if model.sharding else {}),
        "not_priced": list(model.adds),
    }


def in_words(model: ModelInfo, conventions: Conventions) -> str:
    """The line with which what is printed begins: what was counted and, where it is not what transformers does on its
    own, how weights and cache are stored and which kernels run."""
    stored = [] if model.weights == model.dtype else [f"weights {model.weights}"]
    stored += [] if model.kv == model.dtype else [f"KV {model.kv}"]
    stored += [] if model.page_size is None else [f"pages of {model.page_size} tokens"]
    kernels = [] if model.kernels == "transformers" else [f"{model.kernels} kernels"]
    return " · ".join([*conventions.words, *stored, *kernels])


def scenario_of(stage: OfPass) -> Document:
    """What a pass is, and its sizes."""
    scenario = stage.scenario
    if scenario is None:
        return {"stage": "module", "attention": stage.attention}
    sizes: Document = {"stage": scenario.stage, "attention": stage.attention, "batch": scenario.batch}
    if isinstance(scenario, VisionScenario):
        return {**sizes, "crops": list(scenario.crops)}
    if isinstance(scenario, MixedStep):
        return {**sizes, "tokens": scenario.tokens, "parts": [_lengths(one) for one in scenario.parts]}
    return {**sizes, **_lengths(scenario, steps=scenario.steps)}


def _lengths(scenario: Scenario, **more: int) -> Document:
    """The sizes of a pass, beside ``more`` those that it has. Of a part of a mixed step its stage and batch too."""
    own: Document = {} if more else {"stage": scenario.stage, "batch": scenario.batch}
    own |= {"query_len": scenario.query_len, "past_len": scenario.past_len, **more}
    asked = {"encoder_len": scenario.encoder_len, "chunk": scenario.chunk, "acceptance": scenario.acceptance}
    own |= {name: value for name, value in asked.items() if value is not None}
    return own if scenario.acceptance is None else {**own, "tokens_per_step": scenario.tokens_per_step}


def scenario_in(stage: Document) -> Scenario | MixedStep | VisionScenario | None:
    """The scenario that :func:`scenario_of` wrote; None for a module's."""
    if stage["stage"] == "module":
        return None
    if "crops" in stage:
        rows, columns = stage["crops"]
        return VisionScenario(crops=(rows, columns), batch=stage["batch"])
    if "parts" in stage:
        prefill, *decodes = (_pass_in(part) for part in stage["parts"])
        return MixedStep(decodes=tuple(decodes), prefill=prefill)
    return _pass_in(stage)


def _pass_in(stage: Document) -> Scenario:
    names = ("stage", "batch", "query_len", "past_len", "steps", "encoder_len", "chunk", "acceptance")
    return Scenario(**{name: stage[name] for name in names if name in stage})
