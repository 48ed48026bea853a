"""Closed forms that are found by recording a model."""

from __future__ import annotations

from typing import get_args

from fxmeter.annotators.closed.form import ClosedForm
from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.shapes.pieces import Pieces
from fxmeter.annotators.stages.given import Given, model_of
from fxmeter.models.choices import Attention, Causal, Logits, Routing, StageName
from fxmeter.models.deployment import ONE_DEVICE, Deployment
from fxmeter.models.errors import ScenarioError
from fxmeter.models.scenario import prefill
from fxmeter.tracer.run.encoder import with_encoder_len


def closed_form(
    model: Given,
    *,
    stage: StageName = "decode",
    attention: Attention = "flash",
    causal: Causal = "full",
    logits: Logits = "all",
    routing: Routing = "uniform",
    encoder_len: int | None = None,
    deployment: Deployment = ONE_DEVICE,
) -> ClosedForm:
    """The cost of a stage for every batch, query length and past length (of a vision tower: batch and grid of crops).

    Args:
        model: as for :func:`fxmeter.annotate`.
        stage: "prefill", "decode", "vision", or "encode" of an encoder-decoder model.
        attention, causal, logits, routing, deployment: as for :func:`fxmeter.annotate`.
        encoder_len: as for :func:`fxmeter.prefill`: the form is for this one length of an encoder's output.

    Returns:
        The form, with pipeline stages that of all of them together. ``form.at(...)`` equals the cost that ``annotate``
        gives, in every field. Nothing is recorded before the first question. Where sizes of a model's tensors follow
        no polynomial, ``form.reason`` says so, and ``at`` records the point.

    Raises:
        ScenarioError: no such stage.
    """
    conventions = Conventions(causal=causal, logits=logits, routing=routing)
    return closed_form_by(
        conventions, model, stage=stage, attention=attention, encoder_len=encoder_len, deployment=deployment
    )


def closed_form_by(
    conventions: Conventions,
    model: Given,
    *,
    stage: StageName,
    attention: Attention,
    encoder_len: int | None = None,
    deployment: Deployment = ONE_DEVICE,
) -> ClosedForm:
    """The same by conventions that are chosen already."""
    if stage not in get_args(StageName):
        raise ScenarioError(f"stage must be {', '.join(map(repr, get_args(StageName)))}, not {stage!r}")
    module = model_of(model, vision=stage == "vision")
    if stage != "vision":
        encoder_len = with_encoder_len(module, prefill(1, encoder_len=encoder_len)).encoder_len
    if stage == "encode" and encoder_len is None:
        raise ScenarioError(f"{type(module).__name__} is no encoder-decoder model: it has no encode stage")
    return ClosedForm(Pieces(module, stage, attention, conventions, deployment, encoder_len))
