"""What contains what: one ``networkx.DiGraph`` from the stage over its modules to their ops and parameters.

Nodes are module paths ("" is the stage), and below a module "path/name" for the ops that its own code executes and for
the parameters that it registers. An edge's "times" says how many of the one are in one of the other: a folded recording
has identical layers once. The graph is a tree, and the products of "times" down it say how often the stage has a part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeAlias

import networkx as nx

from fxmeter.annotators.pricing.graph import PricedNode
from fxmeter.annotators.sheets.tables import ModuleCost
from fxmeter.models.stage_cost import ZERO, Cost, is_nothing
from fxmeter.tracer.capture.recording import Recording, Weight

PART = "part"
TIMES = "times"
UNREAD = "(parameters that no op reads)"


Part: TypeAlias = ModuleCost | PricedNode | Weight
"""What a node of the graph stands for, under the key "part"."""


def summed(recording: Recording, priced: Iterable[PricedNode]) -> dict[str, ModuleCost]:
    """Path → cost of every recorded module; "" is the whole pass.

    Args:
        recording: the pass.
        priced: its ops.
    """
    multiplicity, folds = recording.multiplicity(), recording.folds()
    own: dict[str, list[tuple[Cost, int]]] = {}
    for path in recording.classes:
        if path not in folds and (not path or path.rpartition(".")[0] in own):
            own[path] = []
    for node in priced:
        if node.executed and (cost := _resident_here(node)) is not ZERO:
            own[node.module].append((cost, node.times // multiplicity.of(node.module)))
    for weight in recording.weights:
        path = weight.path.rpartition(".")[0]
        if path in own:
            own[path].append((_resident_here(weight), 1))
    modules: dict[str, ModuleCost] = {}
    inside: dict[str, list[tuple[Cost, int]]] = {path: [] for path in own}
    for path in reversed(own):
        times, by_itself = multiplicity.of(path), Cost.weighted(own[path])
        parts = inside[path][::-1]
        whole = Cost.weighted([(by_itself, 1), *parts]) if parts else by_itself
        modules[path] = ModuleCost(path, recording.classes[path], times, whole, by_itself)
        if path:
            around = path.rpartition(".")[0]
            inside[around].append((whole, times // multiplicity.of(around)))
    return {path: modules[path] for path in own}


def contained(recording: Recording, modules: Mapping[str, ModuleCost], priced: Iterable[PricedNode]) -> nx.DiGraph:
    """The containment graph of a priced pass, that this module documents.

    Args:
        recording: the pass.
        modules: what is ``recorded`` of them, with their costs.
        priced: its ops.
    """
    multiplicity = recording.multiplicity()
    tree = nx.DiGraph()

    def put(path: str, name: str, part: Part, times: int) -> None:
        tree.add_node(name, **{PART: part})
        tree.add_edge(path, name, **{TIMES: times})

    for path, module in modules.items():
        if path:
            around = path.rpartition(".")[0]
            put(around, path, module, multiplicity.of(path) // multiplicity.of(around))
        else:
            tree.add_node(path, **{PART: module})
    for node in priced:
        if node.executed:
            put(node.module, f"{node.module}/{node.name}", node, node.times // multiplicity.of(node.module))
    for weight in recording.weights:
        path, _, name = weight.path.rpartition(".")
        if path in modules:
            put(path, f"{path}/{name}", weight, 1)
    return tree


def op_totals(priced: Iterable[PricedNode], whole: Cost) -> dict[str, tuple[int, Cost]]:
    """Op → executions in the whole stage, which costs ``whole``, and what they cost together."""
    counts: dict[str, int] = {}
    costs: dict[str, list[tuple[Cost, int]]] = {}
    for node in priced:
        if node.executed:
            counts[node.op] = counts.get(node.op, 0) + node.times
            costs.setdefault(node.op, []).append((node.cost, node.times))
    totals = {op: (counts[op], Cost.weighted(counted)) for op, counted in costs.items()}
    unread = whole.weight_bytes - sum(cost.weight_bytes for _, cost in totals.values())
    if unread > 0:
        totals[UNREAD] = 1, Cost(weight_bytes=unread)
    return totals


def _resident_here(part: PricedNode | Weight) -> Cost:
    """What an op or a parameter adds to its module. Parameters are resident where they are registered, whichever op is
    the first to read them."""
    if isinstance(part, Weight):
        return Cost(weight_bytes=part.nbytes)
    return part.cost if is_nothing(part.cost.weight_bytes) else replace(part.cost, weight_bytes=0)
