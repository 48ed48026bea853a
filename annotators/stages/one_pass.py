"""One pass of a model: recorded, priced, rolled up. What every other way to an answer rests on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.pricing.price import price
from fxmeter.annotators.stages.rollup import AnnotatedStage, roll_up
from fxmeter.models.deployment import ONE_DEVICE, Deployment
from fxmeter.models.scenario import Scenario, VisionScenario
from fxmeter.tracer.capture.recording import Recording
from fxmeter.tracer.load.vision import page_pixels
from fxmeter.tracer.run.attention import Attention
from fxmeter.tracer.run.passes import on_meta, record, record_twin
from fxmeter.tracer.state.session import without_collecting


def annotate_pass(
    model: nn.Module,
    scenario: Scenario | VisionScenario,
    conventions: Conventions,
    *,
    attention: Attention = "flash",
    fold: bool = True,
    deployment: Deployment = ONE_DEVICE,
) -> AnnotatedStage:
    """What one pass of a language model, or of a vision tower, costs. ``scenario`` has one step."""
    conventions = conventions.under(deployment)
    runs = on_meta(model) if isinstance(scenario, VisionScenario) else model
    options: dict[str, Any] = {"attention": attention, "fold": fold, "deployment": deployment}
    make = partial(record_pass, runs, scenario, conventions, **options)
    return annotate_recording(make, conventions, attention=attention, scenario=scenario)


def record_pass(
    model: nn.Module,
    scenario: Scenario | VisionScenario,
    conventions: Conventions,
    *,
    attention: Attention,
    fold: bool = True,
    deployment: Deployment,
) -> Recording:
    """One pass of a language model, or of a vision tower that is on ``meta``. ``conventions`` are those under the
    deployment."""
    if isinstance(scenario, VisionScenario):
        pixels = page_pixels(scenario.crops, batch=scenario.batch, dtype=next(model.parameters()).dtype)
        return record_twin(model, pixels, {}, attention=attention, fold=fold)
    options: dict[str, Any] = {"attention": attention, "fold": fold, "deployment": deployment}
    return record(model, scenario, logits=conventions.logits, **options)


@without_collecting()
def annotate_recording(
    make: Callable[[], Recording],
    conventions: Conventions,
    *,
    attention: Attention,
    scenario: Scenario | VisionScenario | None = None,
) -> AnnotatedStage:
    """Price and roll up what ``make`` records."""
    recording = make()
    return roll_up(recording, price(recording, conventions), conventions, attention=attention, scenario=scenario)
