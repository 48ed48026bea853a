"""The graph of a generation: its steps' graphs as one, so that what its nodes cost adds up to what the stage costs.

Steps whose graphs have the same nodes and edges share them; a step of another structure (a cache that compresses its
blocks does other work in every n-th) has nodes of its own, "mm_3@2" beside "mm_3".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import networkx as nx

from fxmeter.annotators.pricing.graph import (
    PricedEdge,
    add_edge,
    add_node,
    priced_edge,
    priced_node,
    priced_nodes,
)
from fxmeter.models.figures import Figure
from fxmeter.models.stage_cost import FIELDS, FIGURES, PASS_FIGURES, ZERO, Cost, Size

Combine = Callable[[Mapping[int, Size], Figure], Size]
"""From what a figure of a part is in runs of steps, by their place, to what it is over all of them; 0 in other runs."""


def is_of_the_largest_step(figure: Figure) -> bool:
    """Whether parts add up to the whole in one step, the largest: what each makes in a step of its own would not."""
    return figure.over_steps == "max" and figure.over_parts == "sum"


@dataclass(frozen=True, slots=True)
class StepsAlike:
    """Steps in a row with one priced graph, whose sizes may be polynomials.

    Attributes:
        graph: of each of them.
        count: how many there are.
        shown: the graph of the last of them, for the shapes that its nodes have.
    """

    graph: nx.DiGraph
    count: int
    shown: Callable[[], nx.DiGraph]


def graph_of_steps(runs: Sequence[StepsAlike], combine: Combine) -> nx.DiGraph:
    """The graph of all steps of a generation, in their order.

    Returns:
        A graph as :mod:`fxmeter.annotators.pricing.graph` documents it. A node's ``cost`` is that of all steps that
        have it, ``steps`` of them; its shapes are those of the last.
    """
    whole = nx.DiGraph()
    structures: dict[object, dict[int, StepsAlike]] = {}
    for place, run in enumerate(runs):
        structures.setdefault(_structure(run.graph), {})[place] = run
    for number, alike in enumerate(structures.values(), start=1):
        _add(whole, alike, combine, "" if number == 1 else f"@{number}")
    floors = {place: run.graph.graph["floor_io_bytes"] for place, run in enumerate(runs)}
    whole.graph["floor_io_bytes"] = combine(floors, PASS_FIGURES["floor_io_bytes"])
    return whole


def _structure(graph: nx.DiGraph) -> object:
    nodes = tuple((node.name, node.op, node.module, node.times, node.group) for node in priced_nodes(graph))
    return nodes, tuple(graph.edges)


def _add(whole: nx.DiGraph, alike: Mapping[int, StepsAlike], combine: Combine, mark: str) -> None:
    """Put the nodes and edges of runs of one structure into the graph, ``mark`` behind their names."""
    *_, last = alike.values()
    shown = last.shown()
    steps = sum(run.count for run in alike.values())
    for node in priced_nodes(shown):
        of_runs = {place: priced_node(run.graph, node.name) for place, run in alike.items()}
        add_node(
            whole,
            replace(
                node,
                name=node.name + mark,
                cost=cost_over_steps({place: one.cost for place, one in of_runs.items()}, combine),
                order=whole.number_of_nodes(),
                steps=steps if node.executed else 1,
                group=None if node.group is None else node.group + mark,
            ),
        )
    for source, target in shown.edges:
        read = {place: priced_edge(run.graph, source, target).bytes for place, run in alike.items()}
        size = priced_edge(shown, source, target).tensor_bytes
        flow = PricedEdge(combine(read, FIGURES["activation_read_bytes"]), size)
        add_edge(whole, source + mark, target + mark, flow)


def cost_over_steps(costs: Mapping[int, Cost], combine: Combine) -> Cost:
    """The cost of a part over all steps, from those of the runs that have it."""
    if all(cost is ZERO for cost in costs.values()):
        return ZERO
    of_fields = {name: {place: getattr(cost, name) for place, cost in costs.items()} for name in FIELDS}
    return Cost(**{name: combine(values, FIGURES[name]) for name, values in of_fields.items()})
