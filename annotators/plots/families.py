"""Which curves a sweep has: one axis to plot along, and a family of curves for each value of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fxmeter.annotators.sheets.steps import per_step
from fxmeter.annotators.studies.axes import SweepPoint
from fxmeter.annotators.studies.sweep import Sweep
from fxmeter.models.choices import Attention, StageName
from fxmeter.models.stage_cost import StageCost

Along = Literal["image tokens", "context", "batch", "steps"]


@dataclass(frozen=True, slots=True)
class Family:
    """The points along one axis with the other axes fixed, in its order. ``fixed`` says what is fixed, ("batch", 8).

    ``costs`` has (stage, attention) → a cost for each point: of decode, one token's, the mean over the steps.
    """

    along: Along
    fixed: tuple[tuple[str, int], ...]
    xs: tuple[int, ...]
    points: tuple[SweepPoint, ...]
    costs: dict[tuple[StageName, Attention], tuple[StageCost, ...]]

    @property
    def stages(self) -> tuple[StageName, ...]:
        """The stages in the order in which they run."""
        return tuple(dict.fromkeys(stage for stage, _ in self.costs))

    @property
    def attentions(self) -> tuple[Attention, ...]:
        """Eager before flash."""
        return tuple(dict.fromkeys(attention for _, attention in self.costs))

    def curve(self, stage: StageName, attention: Attention, field: str) -> list[float]:
        """A figure along the axis, for drawing."""
        return [float(getattr(cost, field)) for cost in self.costs[stage, attention]]


def families(sweep: Sweep) -> tuple[Family, ...]:
    """Every family of at least two points."""
    along = _along(sweep)
    groups: dict[tuple[tuple[str, int], ...], list[int]] = {}
    for index, point in enumerate(sweep.points):
        groups.setdefault(_fixed(point, along, sweep), []).append(index)
    several = []
    for fixed, members in groups.items():
        ordered = sorted(members, key=lambda i: (_place(sweep.points[i], along), str(sweep.points[i])))
        if len(ordered) > 1:
            several.append(_family(sweep, along, fixed, ordered))
    return tuple(several)


def _family(sweep: Sweep, along: Along, fixed: tuple[tuple[str, int], ...], members: Sequence[int]) -> Family:
    costs: dict[Any, list[StageCost]] = {}
    for index in members:
        for figures in sweep.figures[index]:
            cost = figures.cost if figures.steps == 1 else per_step(figures.cost, figures.steps)
            costs.setdefault(figures.key, []).append(cost)
    points = tuple(sweep.points[index] for index in members)
    xs = tuple(_place(point, along) for point in points)
    return Family(along, fixed, xs, points, {key: tuple(values) for key, values in costs.items()})


def _along(sweep: Sweep) -> Along:
    axes = sweep.axes
    if len(axes.crops) > 1:
        return "image tokens"
    if max(len(axes.prefill), len(axes.decode)) > 1:
        return "context"
    return "batch" if len(axes.batch) > 1 else "steps"


def _place(point: SweepPoint, along: Along) -> int:
    if along == "image tokens":
        return point.image_tokens or 0
    if along == "context":
        return (point.prefill if point.decode is None else point.decode) or 0
    return point.batch if along == "batch" else point.steps


def _fixed(point: SweepPoint, along: Along, sweep: Sweep) -> tuple[tuple[str, int], ...]:
    """What tells one family from another: batch and steps unless they are the axis, and a prompt of its own length."""
    fixed = [("batch", point.batch)] if along != "batch" else []
    fixed += [("steps", point.steps)] if along != "steps" else []
    if along == "context" and sweep.axes.prefill and sweep.axes.decode:
        fixed.append(("prefill", point.prefill or 0))
    return tuple(fixed)
