"""A sweep: what every stage costs at every point, from closed forms that are made once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, cast

from torch import nn

from fxmeter.annotators.closed.form import ClosedForm, closed_form
from fxmeter.annotators.conventions import USUAL, Conventions
from fxmeter.annotators.stages.model_info import ModelInfo, model_info
from fxmeter.annotators.studies.axes import Axes, SweepPoint
from fxmeter.models.choices import Attention, StageName
from fxmeter.models.deployment import ONE_DEVICE, Deployment
from fxmeter.models.errors import ScenarioError
from fxmeter.models.scenario import Scenario, VisionScenario
from fxmeter.models.stage_cost import FIELDS, StageCost
from fxmeter.tracer.run.prompt import config_of

Key = tuple[StageName, Attention]
CHUNK = 256
"""Points that are evaluated together, between two calls of ``advance``."""


@dataclass(frozen=True, slots=True)
class StageFigures:
    """What one stage of a point costs: decode as a generation, the costs of its steps added up."""

    scenario: Scenario | VisionScenario
    attention: Attention
    cost: StageCost

    @property
    def key(self) -> Key:
        """Which stage it is, with which attention."""
        return cast(StageName, self.scenario.stage), self.attention  # no sweep has the pass of an encoder

    @property
    def steps(self) -> int:
        """How many passes are added up."""
        return self.scenario.steps if isinstance(self.scenario, Scenario) else 1

    @property
    def tokens(self) -> int:
        """What the last pass attends to; 0 of a page."""
        return self.scenario.final_kv_len if isinstance(self.scenario, Scenario) else 0


@dataclass(frozen=True, slots=True)
class Sweep:
    """A model's costs at every point. ``figures`` has those of each point, stage by stage, flash after eager.

    ``uncosted`` counts executions of ops without a rule that one pass of each stage has; their FLOPs are missing.
    ``recorded`` has a line for every stage that had no closed form everywhere.
    """

    model: ModelInfo
    config_sha256: str
    conventions: Conventions
    axes: Axes
    attentions: tuple[Attention, ...]
    created: str
    points: tuple[SweepPoint, ...]
    figures: tuple[tuple[StageFigures, ...], ...]
    uncosted: int
    recorded: tuple[str, ...]

    @property
    def costs(self) -> int:
        """How many costs there are, over all points."""
        return sum(map(len, self.figures))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Lengths that the model is not made for."""
        return self.model.warnings(max(point.tokens for point in self.points))


class StageForms:
    """The closed forms of a model as deployed and, for pages, of its vision tower; each made when first asked for."""

    def __init__(
        self,
        model: nn.Module,
        *,
        tower: nn.Module | None = None,
        conventions: Conventions = USUAL,
        deployment: Deployment = ONE_DEVICE,
    ) -> None:
        self.model, self.tower, self.deployment = model, tower, deployment
        self.conventions = conventions.under(deployment)
        self._forms: dict[Key, ClosedForm] = {}

    def of(self, stage: StageName, attention: Attention) -> ClosedForm:
        """The form of a stage."""
        if (stage, attention) not in self._forms:
            module = self.tower if stage == "vision" else self.model
            if module is None:
                raise ScenarioError("pages need a model with a vision tower")
            options = {"deployment": self.deployment, **asdict(self.conventions)}
            self._forms[stage, attention] = closed_form(module, stage=stage, attention=attention, **options)
        return self._forms[stage, attention]

    @property
    def info(self) -> ModelInfo:
        """The model in one line."""
        return model_info(self.model, self.tower, self.deployment)


def run_sweep(
    forms: StageForms,
    axes: Axes,
    *,
    attentions: Sequence[Attention] = ("eager", "flash"),
    advance: Callable[[int], None] = lambda _: None,
) -> Sweep:
    """Evaluate every point. ``advance`` is told how many costs were added, of ``len(axes) · stages · attentions``."""
    points = axes.points()
    keys = [(stage, attention) for stage in axes.stages for attention in attentions]
    columns = [stage_column(forms, *key, points, advance) for key in keys]
    return Sweep(
        model=forms.info,
        config_sha256=config_sha256(forms),
        conventions=forms.conventions,
        axes=axes,
        attentions=tuple(attentions),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        points=points,
        figures=tuple(zip(*columns, strict=True)),
        uncosted=uncosted(forms, keys, points),
        recorded=recorded(forms, keys),
    )


def stage_column(
    forms: StageForms,
    stage: StageName,
    attention: Attention,
    points: Sequence[SweepPoint],
    advance: Callable[[int], None] = lambda _: None,
) -> list[StageFigures]:
    """One stage of every point."""
    form = forms.of(stage, attention)
    column = []
    for start in range(0, len(points), CHUNK):
        chunk = points[start : start + CHUNK]
        column += [
            StageFigures(point.scenario(stage), attention, cost)
            for point, cost in zip(chunk, _costs(form, stage, chunk), strict=True)
        ]
        advance(len(chunk))
    return column


def _costs(form: ClosedForm, stage: StageName, points: Sequence[SweepPoint]) -> Iterator[StageCost]:
    batch = [point.batch for point in points]
    if stage == "vision":
        crops: Any = tuple(zip(*(point.crops for point in points if point.crops is not None), strict=True))
        arrays = form.evaluate(batch=batch, crops=crops, fields=FIELDS)
    elif stage == "prefill":
        prompts = [point.prefill for point in points if point.prefill is not None]
        arrays = form.evaluate(batch=batch, query_len=prompts, fields=FIELDS)
    else:
        past = [point.decode for point in points if point.decode is not None]
        steps = [point.steps for point in points]
        arrays = form.evaluate_generation(batch=batch, past_len=past, steps=steps, fields=FIELDS)
    rows = zip(*(arrays[name].tolist() for name in FIELDS), strict=True)
    return (StageCost(**dict(zip(FIELDS, map(int, row), strict=True))) for row in rows)


def uncosted(forms: StageForms, keys: Sequence[Key], points: Sequence[SweepPoint]) -> int:
    """Executions without a rule that one pass of each stage has, added up."""
    return sum(_uncosted(forms.of(*key), key[0], points) for key in keys)


def recorded(forms: StageForms, keys: Sequence[Key]) -> tuple[str, ...]:
    """Why stages had to be recorded point by point, where they had."""
    return tuple(reason for key in keys if (reason := forms.of(*key).reason) is not None)


def _uncosted(form: ClosedForm, stage: StageName, points: Sequence[SweepPoint]) -> int:
    """Executions without a rule in one pass; where some points were recorded, in the first of them too."""
    of_pieces = max((piece.uncosted for piece in form.pieces.found), default=0)
    if form.reason is None:
        return of_pieces
    one = points[0].scenario(stage)
    lengths = one.crops if isinstance(one, VisionScenario) else (one.query_len, one.past_len)
    first = form.pieces.annotate((one.batch, *lengths))
    return max(of_pieces, sum(item.count for item in first.uncosted))


def config_sha256(forms: StageForms) -> str:
    """Of the model's config (and of its tower's parameters), whatever transformers release wrote it."""
    fields = config_of(forms.model).to_dict()
    for name in ("transformers_version", "_name_or_path"):
        fields.pop(name, None)
    tower = [] if forms.tower is None else [(n, list(p.shape)) for n, p in forms.tower.named_parameters()]
    text = json.dumps([fields, tower], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
