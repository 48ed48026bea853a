"""What a caller gives where a model and a scenario belong: checked, and a name made a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn
from transformers import PreTrainedConfig

from fxmeter.models.errors import ModelError, ScenarioError
from fxmeter.models.mixed_step import MixedStep
from fxmeter.models.scenario import Scenario, VisionScenario, encode
from fxmeter.tracer.load.loading import load_model
from fxmeter.tracer.load.vision import load_vision
from fxmeter.tracer.run.encoder import has_encoder, with_encoder_len
from fxmeter.tracer.run.prompt import is_encoder
from fxmeter.tracer.run.twin import on_meta
from fxmeter.tracer.state.tree import all_on_meta

Given = nn.Module | str | Path | PreTrainedConfig
"""A model, or whatever :func:`fxmeter.load_model` makes one of."""

Asked = Scenario | MixedStep | VisionScenario
"""What a report can be of."""


def model_of(given: Given, *, vision: bool = False) -> nn.Module:
    """``given``, or the model (for ``vision`` the tower) that it names. Raises ModelError for anything else.

    Of a model with data a copy on meta: nothing is computed, and who runs the model meanwhile is not disturbed.
    """
    if isinstance(given, nn.Module):
        return given if "_modules" in vars(given) and all_on_meta(given) else on_meta(given).module
    if isinstance(given, (str, Path)) and vision:
        return load_vision(str(given))
    if isinstance(given, (str, Path, PreTrainedConfig)):
        return load_model(given)
    raise ModelError(
        f"a model is an nn.Module, a preset's name, a folder, a config.json, a Hub id or a config, not {given!r:.80} "
        f"({type(given).__name__})"
    )


def check_scenario(scenario: object) -> None:
    """Raises ScenarioError for what is no scenario."""
    if not isinstance(scenario, (Scenario, MixedStep, VisionScenario)):
        hint = f"; prefill({scenario}) or decode({scenario})?" if type(scenario) is int else ""
        raise ScenarioError(
            "a scenario is prefill(S), decode(C), generation(C, steps=K), mixed([...], ...) or vision(crops=...), "
            f"not {scenario!r:.80} ({type(scenario).__name__}){hint}"
        )


def stages_of(model: nn.Module, asked: Sequence[Asked]) -> tuple[Asked, ...]:
    """The stages that a model has of those asked for: the encoder of an encoder-decoder model goes first; what is an
    encoder alone has no decode step, and is shown without one where anything else is asked for.

    Raises ScenarioError where nothing says how long the encoder's output is.
    """
    stages = tuple(with_encoder_len(model, one) if isinstance(one, Scenario) else one for one in asked)
    if has_encoder(model):
        lengths = {(one.encoder_len, one.batch) for one in stages if isinstance(one, Scenario)}
        return (*(encode(length, batch=batch) for length, batch in lengths if length is not None), *stages)
    kept = tuple(one for one in stages if one.stage != "decode")
    return kept if kept and is_encoder(model) else stages
