"""What several passes, one after another, cost together: generation, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fxmeter.annotators.stages.containment import ModuleCost
from fxmeter.annotators.stages.rollup import AnnotatedStage, ModuleCosts, OpCost, Uncosted
from fxmeter.models.scenario import Scenario
from fxmeter.models.stage_cost import FIELDS, FIGURES, StageCost

OF_THE_LARGEST_STEP = frozenset(name for name in FIELDS if FIGURES[name].over_steps == "max")
OF_THE_LAST_STEP = frozenset(name for name in FIELDS if FIGURES[name].over_steps == "last")

_OVER_STEPS: Mapping[str, Callable[[list[Any]], Any]] = {"sum": sum, "max": max, "last": lambda values: values[-1]}


def over_steps(costs: Sequence[StageCost]) -> StageCost:
    """The cost of passes that follow one another: FLOPs and traffic added up, activations and peaks of the largest one,
    cache and weights of the last."""
    values = {name: [getattr(cost, name) for cost in costs] for name in FIELDS}
    return StageCost(**{name: _OVER_STEPS[FIGURES[name].over_steps](found) for name, found in values.items()})


def per_step(cost: StageCost, steps: int) -> StageCost:
    """The mean of a step: FLOPs and traffic divided (floats), memory as it is."""
    summed = [name for name in FIELDS if FIGURES[name].over_steps == "sum"]
    return replace(cost, **{name: getattr(cost, name) / steps for name in summed})


def end_to_end(vision: StageCost | None, prefill: StageCost, decode: StageCost) -> StageCost:
    """A whole request: what its stages come to one after another; the tower's weights stay beside the decoder's, which
    prefill and decode share, and the cache that decode leaves has the prompt's part in it."""
    if vision is None:
        return over_steps([prefill, decode])
    stays = {name: getattr(vision, name) + getattr(decode, name) for name in OF_THE_LAST_STEP}
    return replace(over_steps([vision, prefill, decode]), **stays)


def join_steps(scenario: Scenario, steps: Sequence[AnnotatedStage]) -> AnnotatedStage:
    """The stages of a generation's steps as one stage; its graph, recording and cache are those of the last step.

    What is alive at its peak is read off the step with the largest one, the last of them.
    """
    last = steps[-1]
    modules = {
        path: ModuleCost(
            path,
            module.class_name,
            module.times,
            over_steps([step.modules[path].cost for step in steps]),
            over_steps([step.modules[path].own for step in steps]),
        )
        for path, module in last.modules.items()
    }
    return AnnotatedStage(
        scenario=scenario,
        attention=last.attention,
        conventions=last.conventions,
        cost=over_steps([step.cost for step in steps]),
        modules=ModuleCosts(modules, last.recording.folds()),
        ops=_ops(steps),
        kv_cache=last.kv_cache,
        uncosted=_uncosted(steps),
        floor_io_bytes=sum(step.floor_io_bytes for step in steps),
        graph=last.graph,
        recording=last.recording,
        fullest_step=max(reversed(steps), key=lambda step: step.cost.peak_activation_bytes),
    )


def _ops(steps: Sequence[AnnotatedStage]) -> tuple[OpCost, ...]:
    found: dict[str, list[OpCost]] = {}
    for step in steps:
        for op in step.ops:
            found.setdefault(op.op, []).append(op)
    joined = [
        OpCost(op, sum(p.count for p in parts), over_steps([p.cost for p in parts])) for op, parts in found.items()
    ]
    return tuple(sorted(joined, key=lambda op: (-op.cost.flops, -op.cost.io_bytes, op.op)))


def _uncosted(steps: Sequence[AnnotatedStage]) -> tuple[Uncosted, ...]:
    counts: dict[Any, int] = {}
    for step in steps:
        for item in step.uncosted:
            key = (item.op, item.module, item.shapes)
            counts[key] = counts.get(key, 0) + item.count
    return tuple(Uncosted(op, count, module, shapes) for (op, module, shapes), count in counts.items())
