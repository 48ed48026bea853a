"""What several passes, one after another, cost together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from fxmeter.models.figures import Figure, Figures, PassFigures
from fxmeter.models.stage_cost import FIELDS, FIGURES, Size, StageCost

OVER_STEPS: Mapping[str, Callable[[list[Size]], Size]] = {"sum": sum, "max": max, "last": lambda values: values[-1]}


def over_steps(costs: Sequence[StageCost]) -> StageCost:
    """The cost of passes that follow one another: FLOPs and traffic added up, activations and peaks of the largest one,
    cache and weights of the last."""
    return StageCost(**figures_over_steps(FIGURES, costs))


def figures_over_steps(table: Mapping[str, Figure], records: Sequence[Figures | PassFigures]) -> dict[str, Size]:
    """What the counted figures of a table come to, by what it says of steps."""
    counted = {name: figure.over_steps for name, figure in table.items() if not figure.sources}
    return {name: OVER_STEPS[how]([getattr(record, name) for record in records]) for name, how in counted.items()}


def per_step(cost: StageCost, steps: int) -> StageCost:
    """The mean of a step: FLOPs and traffic divided (floats), memory as it is."""
    summed = [name for name in FIELDS if FIGURES[name].over_steps == "sum"]
    return replace(cost, **{name: getattr(cost, name) / steps for name in summed})


def end_to_end(vision: StageCost | None, prefill: StageCost, decode: StageCost) -> StageCost:
    """A whole request: what its stages come to one after another; the tower's weights stay beside the decoder's, which
    prefill and decode share, and the cache that decode leaves has the prompt's part in it."""
    if vision is None:
        return over_steps([prefill, decode])
    stays = [name for name in FIELDS if FIGURES[name].over_steps == "last"]
    beside = {name: getattr(vision, name) + getattr(decode, name) for name in stays}
    return replace(over_steps([vision, prefill, decode]), **beside)
