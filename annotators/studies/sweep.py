"""A sweep: what every stage costs at every point, from closed forms that are made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fxmeter.annotators.closed.form import ClosedForm, ModuleForm
from fxmeter.annotators.conventions import USUAL, Conventions
from fxmeter.annotators.studies.axes import Axes, SweepPoint
from fxmeter.annotators.studies.chunks import PromptForms
from fxmeter.models.choices import Attention, StageName
from fxmeter.models.deployment import ONE_DEVICE, Deployment
from fxmeter.models.errors import ScenarioError
from fxmeter.models.model_info import ModelInfo
from fxmeter.models.scenario import Scenario, VisionScenario
from fxmeter.models.stage_cost import FIELDS, StageCost

if TYPE_CHECKING:
    from torch import nn

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
        return self.scenario.stage, self.attention

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
        return self.model.warnings(max(point.tokens for point in self.points), self.axes.encoder_len or 0)


class StageForms:
    """The closed forms of a model as deployed and, for pages, of its vision tower; each made when first asked for.

    Args:
        make: the form of a stage.
        info: the model in one line.
        conventions: those in force.
        deployment: what runs where.

    Attributes:
        model: the loaded model, where it is there already.
    """

    def __init__(
        self,
        make: Callable[[StageName, Attention, Conventions], ClosedForm],
        info: Callable[[], ModelInfo],
        conventions: Conventions = USUAL,
        deployment: Deployment = ONE_DEVICE,
    ) -> None:
        self.conventions, self.deployment = conventions, deployment
        self.model: nn.Module | None = None
        self._make, self._info = make, info
        self._forms: dict[tuple[StageName, Attention, Conventions], ClosedForm] = {}

    @classmethod
    def of_model(
        cls,
        model: nn.Module,
        *,
        tower: nn.Module | None = None,
        conventions: Conventions = USUAL,
        deployment: Deployment = ONE_DEVICE,
        encoder_len: int | None = None,
    ) -> StageForms:
        """Those of a loaded model, and of the vision tower beside it; ``encoder_len`` as for an encoder-decoder one."""
        # these load torch, which forms from cost sheets do without
        from fxmeter.annotators.closed.find import closed_form_by
        from fxmeter.annotators.stages.model_info import model_info

        def make(stage: StageName, attention: Attention, conventions: Conventions) -> ClosedForm:
            module = tower if stage == "vision" else model
            if module is None:
                raise ScenarioError("pages need a model with a vision tower")
            length = None if stage == "vision" else encoder_len
            how: dict[str, Any] = {"attention": attention, "deployment": deployment, "encoder_len": length}
            return closed_form_by(conventions, module, stage=stage, **how)

        forms = cls(make, lambda: model_info(model, tower, deployment), conventions.under(deployment), deployment)
        forms.model = model
        return forms

    def of(self, stage: StageName, attention: Attention, conventions: Conventions | None = None) -> ClosedForm:
        """The form of a stage, by other conventions where they are given."""
        key = (stage, attention, conventions or self.conventions)
        if key not in self._forms:
            self._forms[key] = self._make(*key)
        return self._forms[key]

    def prompts(self, attention: Attention) -> PromptForms:
        """The forms of prompts in chunks."""
        last = self.of("prefill", attention)
        return PromptForms(last, lambda: self.of("prefill", attention, self.conventions.before_last))

    @property
    def info(self) -> ModelInfo:
        """The model in one line."""
        return self._info()


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
        conventions=forms.conventions,
        axes=axes,
        attentions=tuple(attentions),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        points=points,
        figures=tuple(zip(*columns, strict=True)),
        uncosted=uncosted(forms, keys),
        recorded=recorded(forms, keys),
    )


def stage_column(
    forms: StageForms,
    stage: StageName,
    attention: Attention,
    points: Sequence[SweepPoint],
    advance: Callable[[int], None] = lambda _: None,
    *,
    place: int | None = None,
) -> list[StageFigures]:
    """One stage of every point; of it the pipeline stage at ``place``, unless that is None."""
    whole = forms.of(stage, attention)
    form = whole if place is None else whole.stages[place]
    column: list[StageFigures] = []
    for start in range(0, len(points), CHUNK):
        chunk = points[start : start + CHUNK]
        for point, cost in zip(chunk, _costs(form, stage, chunk), strict=True):
            scenario = point.scenario(stage)
            if isinstance(scenario, Scenario) and scenario.chunk is not None:
                cost = replace(forms.prompts(attention), place=place).cost(scenario, cost)
            column.append(StageFigures(scenario, attention, cost))
        advance(len(chunk))
    return column


def _costs(form: ModuleForm, stage: StageName, points: Sequence[SweepPoint]) -> Iterator[StageCost]:
    batch = [point.batch for point in points]
    if stage == "vision":
        crops: Any = tuple(zip(*(point.crops for point in points if point.crops is not None), strict=True))
        arrays = form.evaluate(batch=batch, crops=crops, fields=FIELDS)
    elif stage == "encode":
        arrays = form.evaluate(batch=batch, fields=FIELDS)
    elif stage == "prefill":
        prompts = [point.prefill for point in points if point.prefill is not None]
        arrays = form.evaluate(batch=batch, query_len=prompts, fields=FIELDS)
    else:
        past = [point.decode for point in points if point.decode is not None]
        steps = [point.steps for point in points]
        arrays = form.evaluate_generation(batch=batch, past_len=past, steps=steps, fields=FIELDS)
    rows = zip(*(arrays[name].tolist() for name in FIELDS), strict=True)
    return (StageCost(**dict(zip(FIELDS, map(int, row), strict=True))) for row in rows)


def uncosted(forms: StageForms, keys: Sequence[Key]) -> int:
    """Executions without a rule that one pass of each stage has, added up."""
    return sum(forms.of(*key).sheet.uncosted for key in keys)


def recorded(forms: StageForms, keys: Sequence[Key]) -> tuple[str, ...]:
    """Why stages had to be recorded point by point, where they had."""
    return tuple(reason for key in keys if (reason := forms.of(*key).reason) is not None)
