"""What several passes, one after another, cost together: generation, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fxmeter.annotators.stages.rollup import AnnotatedStage, ModuleCost, ModuleCosts, OpCost, Uncosted
from fxmeter.models.scenario import Scenario
from fxmeter.models.stage_cost import FIELDS, PEAKS, StageCost

OF_THE_LARGEST_STEP = frozenset({"activation_bytes", *PEAKS})
"""Fields that are maxima over steps: the largest is most often the last, but a model may do its heavy work in every
n-th one, as one does that compresses its cache in blocks."""
OF_THE_LAST_STEP = frozenset({"kv_bytes", "weight_bytes"})
"""What is there at the end of a generation. All other fields are sums."""


def over_steps(costs: Sequence[StageCost]) -> StageCost:
    """The cost of passes that follow one another: FLOPs and traffic added up, activations and peaks of the largest one,
    cache and weights of the last."""
    values = {}
    for name in FIELDS:
        found = [getattr(cost, name) for cost in costs]
        if name in OF_THE_LAST_STEP:
            values[name] = found[-1]
        else:
            values[name] = max(found) if name in OF_THE_LARGEST_STEP else sum(found)
    return StageCost(**values)


def per_step(cost: StageCost, steps: int) -> StageCost:
    """The mean of a step: FLOPs and traffic divided (floats), memory as it is."""
    return StageCost(
        **{
            name: getattr(cost, name) if name in OF_THE_LAST_STEP | OF_THE_LARGEST_STEP else getattr(cost, name) / steps
            for name in FIELDS
        }
    )


def end_to_end(vision: StageCost | None, prefill: StageCost, decode: StageCost) -> StageCost:
    """A whole request: FLOPs and traffic added up; the cache that decode leaves, which has the prompt's part in it;
    activations and peaks of the largest stage; the weights of the tower and of the decoder, which prefill and decode
    share.
    """
    stages = [prefill, decode] if vision is None else [vision, prefill, decode]
    towers = [decode] if vision is None else [vision, decode]
    values = {}
    for name in FIELDS:
        if name == "kv_bytes":
            values[name] = decode.kv_bytes
        elif name == "weight_bytes":
            values[name] = sum(tower.weight_bytes for tower in towers)
        elif name in OF_THE_LARGEST_STEP:
            values[name] = max(getattr(stage, name) for stage in stages)
        else:
            values[name] = sum(getattr(stage, name) for stage in stages)
    return StageCost(**values)


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
