"""What a report lays beside a stage: an engine's kernels, one device that does what ranks share, a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fxmeter.annotators.sheets.tables import PipelineStage
from fxmeter.annotators.timing.stage_time import Time
from fxmeter.models.choices import Attention
from fxmeter.models.scenario import Scenario
from fxmeter.models.stage_cost import StageCost

MUCH = 0.1
"""Share of a figure from which on a difference is worth a word."""


@dataclass(frozen=True, slots=True)
class Served:
    """A figure of a pass (of several steps: of the last) by transformers' kernels, and by those of an engine."""

    scenario: Scenario
    attention: Attention
    figure: str
    transformers: int
    serving: int

    @property
    def differs_much(self) -> bool:
        """By more than a tenth."""
        return abs(self.serving - self.transformers) > MUCH * self.transformers


@dataclass(frozen=True, slots=True)
class Shared:
    """A pass of one rank of ``ranks``, its ``cost``, what ``one`` device would need for the sequences of all of them,
    and the parameters that each rank has whole, those that take most first ("*" stands for numbers)."""

    scenario: Scenario
    attention: Attention
    cost: StageCost
    ranks: int
    one: StageCost
    whole_parameters: tuple[str, ...]

    @property
    def all(self) -> StageCost:
        """What the ranks need together, each as much as the fullest."""
        return self.ranks * self.cost

    def again(self, figure: str) -> int:
        """What is needed beyond one device's: work and memory that several ranks have alike."""
        extra: int = getattr(self.all, figure) - getattr(self.one, figure)
        return extra


@dataclass(frozen=True, slots=True)
class Pipelined:
    """A pass as pipeline stages, and device → the time of the kernels of each."""

    scenario: Scenario
    attention: Attention
    parts: tuple[PipelineStage, ...]
    times: Mapping[str, tuple[Time, ...]]
