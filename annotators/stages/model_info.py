"""A model in one line, as every report and document names it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from fxmeter.annotators.stages.active import active_parameters
from fxmeter.tracer.run.prompt import config_of


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
    vision_parameters: int
    active_parameters: int | None


def model_info(model: nn.Module, tower: nn.Module | None = None) -> ModelInfo:
    """Read off a loaded model and its config, and off the vision tower beside it."""
    config = config_of(model)
    text = config.get_text_config(decoder=True)
    parameters = list(model.parameters())
    has_experts = any(hasattr(module, "num_experts") for module in model.modules())
    return ModelInfo(
        name=str(getattr(model, "name_or_path", "") or config.model_type),
        model_type=str(config.model_type),
        dtype=str(parameters[0].dtype).removeprefix("torch."),
        parameters=sum(p.numel() for p in parameters),
        weight_bytes=sum(p.nbytes for p in parameters),
        layers=int(getattr(text, "num_hidden_layers", 0) or 0),
        experts_implementation=getattr(text, "_experts_implementation", None) if has_experts else None,
        max_positions=max_positions(model),
        vision_parameters=0 if tower is None else sum(p.numel() for p in tower.parameters()),
        active_parameters=active_parameters(model),
    )


def max_positions(model: nn.Module) -> Any:
    """The longest context that a model's config allows; None where it has no limit."""
    return getattr(config_of(model).get_text_config(decoder=True), "max_position_embeddings", None)
