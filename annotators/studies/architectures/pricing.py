"""What one architecture costs. Runs wherever the package is installed: all it needs travels with the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from fxmeter.annotators.api import annotate_by
from fxmeter.annotators.studies.architectures.question import PASS, Question, identifier, question_versions
from fxmeter.annotators.studies.architectures.space import changed
from fxmeter.models.errors import FxmeterError, ModelError
from fxmeter.models.names import Document, Fields
from fxmeter.models.scenario import Scenario
from fxmeter.tracer.load.loading import load_model
from fxmeter.tracer.run.storage import resident_bytes

DIED = "the process that priced it died"
"""Why an architecture has no figures where a worker ended with it: it is tried again by the next start."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An architecture to price: its key, and what its fields are set to."""

    key: str
    fields: Fields


@dataclass(frozen=True, slots=True)
class Architecture:
    """An architecture and what it costs.

    Attributes:
        key: a hash of its config and of what was asked; the same wherever and whenever it is priced.
        fields: what the varied fields are set to.
        figures: name → value, as ``Question.columns`` lists them; only those that were known when a condition left the
            architecture out, none where it was refused.
        refused: why it cannot be, in transformers' own words where those say it; None where it can.
        kept: whether the conditions let it through.
    """

    key: str
    fields: Fields
    figures: Fields = field(default_factory=dict)
    refused: str | None = None
    kept: bool = True


def price_batch(question: Question, batch: Sequence[Candidate], known: Fields) -> list[Architecture]:
    """Price some architectures; ``known`` has the values of fields that conditions read and nothing sets.

    Raises ModelError where this machine has other versions than the one that asks.
    """
    here = _versions_here()
    if here != question.versions:
        there, other = (", ".join(f"{name} {number}" for name, number in each) for each in (question.versions, here))
        raise ModelError(f"a worker has {other}, and this machine {there}: their figures would not be the same")
    return [_priced(question, each, known) for each in batch]


@cache
def _versions_here() -> tuple[tuple[str, str], ...]:
    _be_quiet()
    return question_versions()


def _be_quiet() -> None:
    """Keep what transformers logs of odd configs, thousands of times, off a worker's stderr."""
    import logging

    import transformers

    transformers.logging.set_verbosity(logging.CRITICAL)


def _priced(question: Question, candidate: Candidate, known: Fields) -> Architecture:
    figures: Document = {}
    values = {**known, **candidate.fields}
    try:
        if not is_kept(question, {**values, **figures}):
            return Architecture(candidate.key, candidate.fields, kept=False)
        model = load_model(changed(question.base, candidate.fields), dtype=question.dtype)
        figures["parameters"] = sum(parameter.numel() for parameter in model.parameters())
        figures["weight_bytes"] = resident_bytes(model, question.deployment)
        if is_kept(question, {**values, **figures}):
            for name, scenario in question.scenarios:
                figures |= _pass(question, model, name, scenario)
        kept = is_kept(question, {**values, **figures})
    except FxmeterError as error:
        return Architecture(candidate.key, candidate.fields, refused=str(error))
    except Exception as error:  # one architecture that meets a defect ends no search
        text = " ".join(str(error).split())[:300]
        return Architecture(candidate.key, candidate.fields, refused=f"unexpected {type(error).__name__}: {text}")
    return Architecture(candidate.key, candidate.fields, figures, kept=kept)


def _pass(question: Question, model: Any, name: str, scenario: Scenario) -> Document:
    stage = annotate_by(
        question.conventions, model, scenario, attention=question.attention, deployment=question.deployment
    )
    figures: Document = {f"{name}_{figure}": stage.value(figure) for figure in PASS if figure != "weight_bytes"}
    figures[f"{name}_uncosted"] = sum(each.count for each in stage.uncosted)
    for device in question.devices:
        time, place = stage.time(device), f"{name}_{identifier(device.name)}"
        figures[f"{place}_bound_s"], figures[f"{place}_estimate_s"] = time.bound_s, time.estimate_s
        figures[f"{place}_bound_by"], figures[f"{place}_extrapolated"] = time.bound_by, "; ".join(time.extrapolated)
    for short, kind in (("ttft", "prefill"), ("tpot", "decode")):
        if question.first(kind) == name:
            estimate = figures[f"{name}_{identifier(question.devices[0].name)}_estimate_s"]
            figures[short] = estimate / (scenario.steps * scenario.tokens_per_step) if short == "tpot" else estimate
    return figures


def is_kept(question: Question, known: Fields) -> bool:
    """Whether no condition that can be computed from what is known leaves an architecture out."""
    return all(condition.value(known) for condition in question.keep if condition.names <= known.keys())
