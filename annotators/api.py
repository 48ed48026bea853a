"""The main verbs: price one pass of a model, or one call of any module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from fxmeter.annotators.closed.generate import generate
from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.shapes.pieces import Pieces
from fxmeter.annotators.stages.given import Given, check_scenario, model_of
from fxmeter.annotators.stages.mixed import join_parts
from fxmeter.annotators.stages.one_pass import annotate_pass, annotate_recording
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.annotators.stages.steps import join_steps
from fxmeter.models.choices import Attention, Causal, Logits, Routing
from fxmeter.models.deployment import ONE_DEVICE, Deployment
from fxmeter.models.errors import DeploymentError, ScenarioError
from fxmeter.models.mixed_step import MixedStep
from fxmeter.models.names import Kwargs
from fxmeter.models.scenario import Scenario, VisionScenario
from fxmeter.tracer.run.encoder import with_encoder_len
from fxmeter.tracer.run.modules import record_module

FEW_STEPS = 8
"""Up to this many steps of a generation are recorded one by one; for more, a closed form is quicker."""


def annotate(
    model: Given,
    scenario: Scenario | MixedStep | VisionScenario,
    *,
    attention: Attention = "flash",
    causal: Causal = "full",
    logits: Logits = "all",
    routing: Routing = "uniform",
    fold: bool | None = None,
    deployment: Deployment = ONE_DEVICE,
) -> AnnotatedStage:
    """What one forward pass of a causal language model costs.

    Args:
        model: what :func:`fxmeter.load_model` returns, or what it takes (a preset's name, a folder, a Hub id), or any
            transformers causal language model on ``meta``, wrapped or not; for a vision scenario the tower. It is
            priced as it infers, whatever its training mode.
        scenario: :func:`fxmeter.encode`, :func:`fxmeter.prefill`, :func:`fxmeter.decode`,
            :func:`fxmeter.generation` or :func:`fxmeter.vision`: batch and lengths are in it, and nowhere else.
        attention: the model's own "eager" code, or one fused "flash" core per layer.
        causal: "full" counts every (query, key) pair; "exact" of a fused core those that its mask lets through.
        logits: of "all" positions, of the "last" one, or of "none".
        routing: routed experts whose weights are read: the "uniform" expectation, or the "worst" case.
        fold: record identical layers once. None does so where it is known to change nothing, for transformers' own
            layers; True promises it for layers of any code; False records all.
        deployment: what runs where (:func:`fxmeter.deploy`). With its ``serving`` kernels attention is fused, latent
            attention absorbed in decode, and logits are those of the last position.

    Returns:
        :class:`fxmeter.annotators.AnnotatedStage`: ``cost`` of the pass, ``modules`` by path, ``ops``, ``kv_cache``,
        ``uncosted`` ops that no rule knows, the networkx ``graph`` and the recorded ``fx_graph``. FLOPs and bytes are
        exact whole numbers. Of several steps, FLOPs and bytes are sums, memory is that of the largest or last step.

    Raises:
        TraceError: the model's code cannot run without data.
        ScenarioError: sizes or options that do not go together.
    """
    check_scenario(scenario)
    conventions = Conventions(causal=causal, logits=logits, routing=routing)
    return annotate_by(conventions, model, scenario, attention=attention, fold=fold, deployment=deployment)


def annotate_by(
    conventions: Conventions,
    model: Given,
    scenario: Scenario | MixedStep | VisionScenario,
    *,
    attention: Attention = "flash",
    fold: bool | None = None,
    deployment: Deployment = ONE_DEVICE,
) -> AnnotatedStage:
    """The same by conventions that are chosen already."""
    loaded = model_of(model, vision=isinstance(scenario, VisionScenario))
    return _Pricing(loaded, attention, fold, deployment).stage(scenario, conventions)


@dataclass(frozen=True, slots=True)
class _Pricing:
    """Ways to price passes of a model, all recorded alike."""

    model: nn.Module
    attention: Attention
    fold: bool | None
    deployment: Deployment

    def stage(self, scenario: Scenario | MixedStep | VisionScenario, conventions: Conventions) -> AnnotatedStage:
        """One pass, or what several come to."""
        if isinstance(scenario, Scenario):
            scenario = with_encoder_len(self.model, scenario)
        if isinstance(scenario, MixedStep):
            parts = [self.stage(one, conventions) for one in scenario.parts]
            return join_parts(scenario, parts, self.stage(scenario.joint, conventions))
        if isinstance(scenario, Scenario) and scenario.chunk is not None:
            return self.chunks(scenario, conventions)
        if isinstance(scenario, Scenario) and scenario.steps > 1:
            alike = self.from_closed_form(scenario, conventions) if scenario.steps > FEW_STEPS else None
            return self.steps(scenario, conventions) if alike is None else alike
        return annotate_pass(
            self.model, scenario, conventions, attention=self.attention, fold=self.fold, deployment=self.deployment
        )

    def steps(self, scenario: Scenario, conventions: Conventions) -> AnnotatedStage:
        """A generation as the sum of its steps, each recorded and priced."""
        passes = [scenario.step(index) for index in range(scenario.steps)]
        return join_steps(scenario, [self.stage(one, conventions) for one in passes])

    def chunks(self, scenario: Scenario, conventions: Conventions) -> AnnotatedStage:
        """A prompt as the sum of its chunks. Where logits are of the last position the chunks before the last have
        none. Many chunks of one size are a generation of prefills, from a closed form."""
        *before, last = scenario.passes
        final = self.stage(last, conventions)
        if not before:
            return replace(final, scenario=scenario)
        conventions = final.conventions.before_last
        many = replace(before[0], steps=len(before))
        alike = self.from_closed_form(many, conventions) if len(before) > FEW_STEPS else None
        stages = [self.stage(one, conventions) for one in before] if alike is None else [alike]
        return join_steps(scenario, [*stages, final])

    def from_closed_form(self, scenario: Scenario, conventions: Conventions) -> AnnotatedStage | None:
        """Passes of one size from the closed form of their stage; None where that has none, or nothing is folded."""
        if self.fold is False or scenario.stage == "encode":
            return None
        encoder_len = scenario.encoder_len
        pieces = Pieces(self.model, scenario.stage, self.attention, conventions, self.deployment, encoder_len)
        try:
            return generate(pieces, scenario)
        except DeploymentError:  # a deployment that no form follows, or that the first pass will refuse as well
            return None


def annotate_steps(model: Given, scenario: Scenario, *, attention: Attention = "flash") -> AnnotatedStage:
    """A generation with every one of its steps recorded, however many."""
    return _Pricing(model_of(model), attention, None, ONE_DEVICE).steps(scenario, Conventions())


def annotate_module(
    module: nn.Module,
    /,
    *example_inputs: Any,
    args: Sequence[Any] | None = None,
    kwargs: Kwargs | None = None,
    attention: Attention = "flash",
    causal: Causal = "full",
    routing: Routing = "uniform",
    fold: bool | None = None,
    **keywords: Any,
) -> AnnotatedStage:
    """What ``module(*example_inputs, **keywords)`` costs, for any module.

    The module runs on ``meta``: a copy of it that shares no storage, so real weights are neither read nor changed. It
    is priced in the mode that it is in, training or not, and as without gradients.

    Args:
        module: a decoder layer, a block of your own, a whole model; on any device.
        *example_inputs: arguments of its ``forward``. Tensors on ``meta`` lend their shapes and dtypes; of others code
            that asks gets the values. A transformers cache among them is the cache of the pass.
        args, kwargs: the same arguments as a sequence and a mapping, for a ``forward`` that calls one of them as an
            option here is called.
        attention: what ``scaled_dot_product_attention`` and transformers' attention interface run, "eager" or "flash".
        causal, routing: as for :func:`annotate`.
        fold: record identical layers once. None does so where it is known to change nothing, for transformers' own
            layers; True promises it for layers of any code; False records all.
        **keywords: keyword arguments of its ``forward``.

    Returns:
        As :func:`annotate`, without a ``scenario``; paths of ``modules`` begin at ``module``, which is "".

    Raises:
        TraceError: the module's code cannot run without data, or has parts that cannot be copied to ``meta``.
    """
    if not isinstance(args, (tuple, list, type(None))) or not isinstance(kwargs, (Mapping, type(None))):
        raise ScenarioError("args are a tuple or list of arguments of forward, and kwargs a dictionary of them")
    if args is not None and example_inputs:
        raise ScenarioError("annotate_module takes the arguments of forward one by one or as args=(...), not both")
    if twice := sorted({*(kwargs or {})} & keywords.keys()):
        raise ScenarioError(f"annotate_module got {', '.join(twice)} both in kwargs={{...}} and beside it")
    conventions = Conventions(causal=causal, routing=routing)
    given = example_inputs if args is None else tuple(args), {**keywords, **(kwargs or {})}
    make = partial(record_module, module, *given, attention=attention, fold=fold)
    return annotate_recording(make, conventions, attention=attention)
