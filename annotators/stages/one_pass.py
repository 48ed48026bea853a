"""One pass of a model: recorded, priced, rolled up. What every other way to an answer rests on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.pricing.price import price
from fxmeter.annotators.stages.rollup import AnnotatedStage, roll_up
from fxmeter.models.deployment import ONE_DEVICE, Deployment
from fxmeter.models.errors import ScenarioError
from fxmeter.models.names import Kwargs
from fxmeter.models.scenario import Scenario, VisionScenario
from fxmeter.tracer.capture.recording import Recording
from fxmeter.tracer.load.vision import page_pixels
from fxmeter.tracer.run.forward import forward_of
from fxmeter.tracer.run.modules import record_twin
from fxmeter.tracer.run.passes import record
from fxmeter.tracer.run.patches.attention import Attention
from fxmeter.tracer.run.twin import Twin, on_meta
from fxmeter.tracer.state.session import without_collecting


def annotate_pass(
    model: nn.Module | Twin,
    scenario: Scenario | VisionScenario,
    conventions: Conventions,
    *,
    attention: Attention = "flash",
    fold: bool | None = None,
    deployment: Deployment = ONE_DEVICE,
) -> AnnotatedStage:
    """What one pass of a language model, or of a vision tower, costs. ``scenario`` has one step."""
    conventions = conventions.under(deployment, scenario.stage)
    options: Kwargs = {"attention": attention, "fold": fold, "deployment": deployment}
    make = partial(record_pass, model, scenario, conventions, **options)
    return annotate_recording(make, conventions, attention=attention, scenario=scenario)


def record_pass(
    model: nn.Module | Twin,
    scenario: Scenario | VisionScenario,
    conventions: Conventions,
    *,
    attention: Attention,
    fold: bool | None = None,
    deployment: Deployment,
) -> Recording:
    """One pass of a language model, or of a vision tower or its twin; ``conventions`` under the deployment."""
    if deployment.kernels == "serving" and attention == "eager":
        raise ScenarioError("serving kernels fuse attention: price them with attention='flash'")
    module = model.module if isinstance(model, Twin) else model
    if isinstance(scenario, VisionScenario):
        if "input_ids" in forward_of(module).names:
            raise ScenarioError(f"{type(module).__name__} reads tokens: a vision scenario is priced of a vision tower")
        twin = model if isinstance(model, Twin) else on_meta(model, training=False)
        pixels = page_pixels(scenario.crops, batch=scenario.batch, dtype=next(module.parameters()).dtype)
        return record_twin(twin, pixels, {}, attention=attention, fold=fold)
    options: Kwargs = {"attention": attention, "fold": fold, "deployment": deployment}
    return record(module, scenario, logits=conventions.logits, **options)


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
