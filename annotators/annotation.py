"""The main verbs: price one pass of a model, or one call of any module."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from torch import nn

from annotators.cost import Conventions
from annotators.pricing import price
from annotators.rollup import AnnotatedStage, roll_up
from annotators.steps import join_steps
from models.scenario import Scenario, VisionScenario
from tracer.attention import Attention
from tracer.collecting import without_collecting
from tracer.passes import record, record_module
from tracer.recording import Recording
from tracer.vision import page_pixels

FEW_STEPS = 8
"""Up to this many steps of a generation are recorded one by one; for more, a closed form is quicker."""


def annotate(
    model: nn.Module,
    scenario: Scenario | VisionScenario,
    *,
    attention: Attention = "flash",
    causal: Literal["full", "exact"] = "full",
    logits: Literal["all", "last"] = "all",
    routing: Literal["uniform", "worst"] = "uniform",
    fold: bool = True,
) -> AnnotatedStage:
    """What one forward pass of a causal language model costs.

    ``model`` is what :func:`tracer.load_model` returns, or any transformers causal language model on ``meta``.
    ``scenario`` is :func:`models.prefill`, :func:`models.decode`, :func:`models.generation`, or, for a vision tower,
    :func:`models.vision`. ``attention`` is the model's own "eager" code or
    one fused "flash" core per layer. ``causal``, ``logits`` and ``routing`` are the conventions of
    :class:`annotators.cost.Conventions`. With ``fold``, identical layers are recorded once; the result is the same.
    """
    conventions = Conventions(causal=causal, logits=logits, routing=routing)
    if isinstance(scenario, VisionScenario):
        pixels = page_pixels(scenario.crops, batch=scenario.batch, dtype=next(model.parameters()).dtype)
        make = partial(record_module, model, pixels, {}, attention=attention, fold=fold)
        return _annotated(make, conventions, attention, scenario)
    if scenario.steps > 1:
        options: dict[str, Any] = {"attention": attention, "causal": causal, "logits": logits, "routing": routing}
        stage = _from_closed_form(model, scenario, options) if fold and scenario.steps > FEW_STEPS else None
        return annotate_steps(model, scenario, fold=fold, **options) if stage is None else stage
    make = partial(record, model, scenario, attention=attention, logits=logits, fold=fold)
    return _annotated(make, conventions, attention, scenario)


@without_collecting()
def _annotated(
    make: Callable[[], Recording],
    conventions: Conventions,
    attention: Attention,
    scenario: Scenario | VisionScenario | None = None,
) -> AnnotatedStage:
    recording = make()
    return roll_up(recording, price(recording, conventions), conventions, attention=attention, scenario=scenario)


def annotate_steps(model: nn.Module, scenario: Scenario, **options: Any) -> AnnotatedStage:
    """A generation as the sum of its steps, each recorded and priced. ``options`` are those of :func:`annotate`."""
    passes = [scenario.step(index) for index in range(scenario.steps)]
    return join_steps(scenario, [annotate(model, one, **options) for one in passes])


def _from_closed_form(model: nn.Module, scenario: Scenario, options: dict[str, Any]) -> AnnotatedStage | None:
    from annotators.forms import closed_form
    from annotators.generation import generate

    return generate(closed_form(model, stage="decode", **options), scenario)


def annotate_module(
    module: nn.Module,
    *example_inputs: Any,
    attention: Attention = "flash",
    causal: Literal["full", "exact"] = "full",
    routing: Literal["uniform", "worst"] = "uniform",
    fold: bool = True,
    **kwargs: Any,
) -> AnnotatedStage:
    """What ``module(*example_inputs, **kwargs)`` costs, for any module.

    The module runs on ``meta``: a copy of it that shares no storage, so real weights are neither read nor changed,
    and example tensors only lend their shapes and dtypes.
    """
    conventions = Conventions(causal=causal, routing=routing)
    make = partial(record_module, module, example_inputs, kwargs, attention=attention, fold=fold)
    return _annotated(make, conventions, attention)
