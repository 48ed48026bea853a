"""A generation, step by step, as one stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial

import networkx as nx

from fxmeter.annotators.sheets.steps import OVER_STEPS, figures_over_steps, over_steps
from fxmeter.annotators.sheets.tables import OpCost, Uncosted, op_costs
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.annotators.stages.steps_graph import (
    Combine,
    StepsAlike,
    cost_over_steps,
    graph_of_steps,
    is_of_the_largest_step,
)
from fxmeter.annotators.timing.stage_time import joined
from fxmeter.models.figures import Figure
from fxmeter.models.scenario import Scenario
from fxmeter.models.stage_cost import PASS_FIGURES, Size, StageCost


def join_steps(scenario: Scenario, steps: Sequence[AnnotatedStage]) -> AnnotatedStage:
    """The stages of a generation's steps as one stage; its recording and cache are those of the last step.

    What is alive at its peak is read off the step with the largest one, the last of them.
    """
    last = steps[-1]
    combine = partial(_over_all_steps, len(steps), _largest([step.cost.activation_bytes for step in steps]))
    modules = last.modules.with_costs(
        lambda found_in: cost_over_steps({n: found_in(step.modules) for n, step in enumerate(steps)}, combine)
    )
    ops: dict[str, dict[int, OpCost]] = {}
    for place, step in enumerate(steps):
        for op in step.ops:
            ops.setdefault(op.op, {})[place] = op
    uncosted: dict[Uncosted, list[int]] = {}
    for step in steps:
        for item in step.uncosted:
            uncosted.setdefault(replace(item, count=0), []).append(item.count)
    return replace(
        last,
        scenario=scenario,
        cost=over_steps([step.cost for step in steps]),
        modules=modules,
        ops=op_costs({name: _over_all(having, combine) for name, having in ops.items()}),
        uncosted=tuple(replace(item, count=sum(counts)) for item, counts in uncosted.items()),
        graph_once=cache(partial(_graph, steps, combine)),
        last_step=last,
        fullest_step=steps[_largest([step.cost.peak_activation_bytes for step in steps])],
        steps_time=lambda device: joined(device, [step.time(device) for step in steps]),
        **figures_over_steps(PASS_FIGURES, steps),
    )


def _largest(amounts: Sequence[int]) -> int:
    """The last place of the largest."""
    return max(range(len(amounts)), key=lambda place: (amounts[place], place))


def _over_all_steps(count: int, largest: int, values: Mapping[int, Size], figure: Figure) -> Size:
    """What a figure of a part is over ``count`` steps, of which the whole is largest in the one at ``largest``."""
    if is_of_the_largest_step(figure):
        return values.get(largest, 0)
    return OVER_STEPS[figure.over_steps]([values.get(place, 0) for place in range(count)])


def _over_all(having: Mapping[int, OpCost], combine: Combine) -> tuple[int, StageCost]:
    """Executions of an op over all steps, and what they cost."""
    costs = {place: op.cost for place, op in having.items()}
    return sum(op.count for op in having.values()), cost_over_steps(costs, combine)


def _graph(steps: Sequence[AnnotatedStage], combine: Combine) -> nx.DiGraph:
    return graph_of_steps([StepsAlike(step.graph, 1, step.graph_once) for step in steps], combine)
