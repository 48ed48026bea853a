"""Passes that run as one: what parts of a mixed step cost together, each weight read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial

import networkx as nx

from fxmeter.annotators.pricing.graph import PricedNode, add_edge, add_node, priced_edge, priced_nodes
from fxmeter.annotators.pricing.price import price
from fxmeter.annotators.sheets.tables import op_costs
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.annotators.timing.kernel import AMOUNTS, Kernel
from fxmeter.annotators.timing.kernels import kernels_of, weights_read_by
from fxmeter.annotators.timing.stage_time import StageTime, stage_time
from fxmeter.models.devices.device import Device
from fxmeter.models.mixed_step import MixedStep
from fxmeter.models.stage_cost import PEAKS, ZERO, StageCost


def join_parts(scenario: MixedStep, parts: Sequence[AnnotatedStage], joint: AnnotatedStage) -> AnnotatedStage:
    """The stages of the parts of a mixed step as one stage.

    ``joint`` is a pass with the new tokens of all parts: the mixed step reads the weights that it reads. Everything
    else is the sum of the parts, peaks too, which the pass does not exceed. Its recording and cache tables are those of
    the chunk of the prompt.
    """
    chunk = parts[0]
    modules = chunk.modules.with_costs(
        lambda found_in: _together([found_in(part.modules) for part in parts], found_in(joint.modules))
    )
    cost = _together([part.cost for part in parts], joint.cost)
    return replace(
        chunk,
        scenario=scenario,
        cost=cost,
        modules=modules,
        ops=op_costs(_ops(parts, joint)),
        graph_once=cache(partial(_graph, parts, joint)),
        steps_time=partial(_time, scenario, parts, joint),
        kv_cache=tuple(layer for part in parts for layer in part.kv_cache),
        floor_io_bytes=sum(part.floor_io_bytes for part in parts) - _saved([p.cost for p in parts], joint.cost),
    )


def _saved(parts: Sequence[StageCost], joint: StageCost) -> int:
    """Bytes of weights that the parts read, and the mixed step does not."""
    return sum(part.weight_read_bytes for part in parts) - joint.weight_read_bytes


def _together(parts: Sequence[StageCost], joint: StageCost) -> StageCost:
    """A part of the model in all parts of the step: sums, but for weights; those resident are the same in each."""
    peaks = {name: sum(getattr(part, name) for part in parts) for name in PEAKS}
    whole = StageCost.total(parts)
    return replace(
        whole,
        weight_read_bytes=joint.weight_read_bytes,
        fused_io_bytes=whole.fused_io_bytes - _saved(parts, joint),
        weight_bytes=parts[0].weight_bytes,
        **peaks,
    )


def _ops(parts: Sequence[AnnotatedStage], joint: AnnotatedStage) -> dict[str, tuple[int, StageCost]]:
    """Op → executions in all parts, and what they cost together."""
    reading = {op.op: op.cost for op in joint.ops}
    having: dict[str, list[tuple[int, StageCost]]] = {}
    for part in parts:
        for op in part.ops:
            having.setdefault(op.op, []).append((op.count, op.cost))
    return {
        name: (sum(count for count, _ in found), _together([cost for _, cost in found], reading.get(name, ZERO)))
        for name, found in having.items()
    }


def _graph(parts: Sequence[AnnotatedStage], joint: AnnotatedStage) -> nx.DiGraph:
    """The graphs of the parts beside one another: "mm_3" of the chunk, "mm_3@1" of the first decode step. What the step
    reads of weights stands at the first op of its kind in each module."""
    owed: dict[tuple[str, str], int] = {}
    for node in priced_nodes(joint.graph):
        key = node.module, node.op
        owed[key] = owed.get(key, 0) + node.cost.weight_read_bytes
    whole = nx.DiGraph(floor_io_bytes=0)
    for number, part in enumerate(parts):
        mark = f"@{number}" if number else ""
        for node in priced_nodes(part.graph):
            read = owed.pop((node.module, node.op), 0) if node.executed else 0
            add_node(whole, _node(node, mark, read, whole.number_of_nodes(), resident=not number))
        for source, target in part.graph.edges:
            add_edge(whole, source + mark, target + mark, priced_edge(part.graph, source, target))
        whole.graph["floor_io_bytes"] += part.floor_io_bytes
    whole.graph["floor_io_bytes"] -= _saved([part.cost for part in parts], joint.cost)
    return whole


def _node(node: PricedNode, mark: str, read: int, order: int, *, resident: bool) -> PricedNode:
    cost = node.cost
    if node.executed:
        cost = replace(
            cost,
            weight_read_bytes=read,
            fused_io_bytes=cost.fused_io_bytes - cost.weight_read_bytes + read,
            weight_bytes=cost.weight_bytes if resident else 0,
        )
    group = None if node.group is None else node.group + mark
    return replace(node, name=node.name + mark, cost=cost, order=order, group=group)


Launch = tuple[Kernel, int]
"""A kernel, and the bytes of weights that it reads."""


def _time(scenario: MixedStep, parts: Sequence[AnnotatedStage], joint: AnnotatedStage, device: Device) -> StageTime:
    """The time of the kernels of a mixed step: what all parts launch alike is one launch, which reads its weights once;
    attention cores, each with a context of its own, are launched one by one."""
    together: dict[tuple[str, str, int], Launch] = {}
    apart: list[Kernel] = []
    once = _launches(joint)
    for part in parts:
        for key, (kernel, weights) in _launches(part).items():
            if kernel.kind == "attention" or key not in once:
                apart.append(kernel)
            elif key in together:
                other, read = together[key]
                amounts = {name: getattr(other, name) + getattr(kernel, name) for name in AMOUNTS}
                together[key] = replace(other, **amounts), read + weights
            else:
                together[key] = kernel, weights
    kernels = [
        replace(kernel, nbytes=kernel.nbytes - weights + once[key][1]) for key, (kernel, weights) in together.items()
    ]
    times = {path: module.times for path, module in parts[0].modules.items()}
    found = stage_time([*kernels, *apart], device, times, scenario.joint)
    return replace(found, extrapolated=(*found.extrapolated, "decode beside a chunk of a prompt"))


def _launches(stage: AnnotatedStage) -> dict[tuple[str, str, int], Launch]:
    """(module, op, which of several there) → the kernel, its cores computing what their masks let through."""
    exact = replace(stage.conventions, causal="exact")
    graph = stage.graph if exact == stage.conventions else price(stage.recording, exact).graph
    found: dict[tuple[str, str, int], Launch] = {}
    seen: dict[tuple[str, str], int] = {}
    weights = weights_read_by(stage.recording, graph)
    for kernel, read in zip(kernels_of(stage.recording, graph), weights, strict=True):
        place = kernel.module, kernel.op
        seen[place] = seen.get(place, -1) + 1
        found[(*place, seen[place])] = kernel, read
    return found
