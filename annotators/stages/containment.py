"""What contains what: one ``networkx.DiGraph`` from the stage over its modules to their ops and parameters.

Nodes are module paths ("" is the stage), and below a module "path/name" for the ops that its own code executes and for
the parameters that it registers. An edge's "times" says how many of the one are in one of the other: a folded recording
has identical layers once. The graph is a tree, so a sum in reverse topological order meets every part once, and the
products of "times" down the tree say how often the stage has it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import networkx as nx

from fxmeter.annotators.pricing.graph import PricedNode, priced_nodes
from fxmeter.annotators.sheets.tables import ModuleCost
from fxmeter.models.stage_cost import ZERO, Cost, is_nothing
from fxmeter.tracer.capture.recording import Recording, Weight

PART = "part"
TIMES = "times"
UNREAD = "(parameters that no op reads)"


Part: TypeAlias = ModuleCost | PricedNode | Weight
"""What a node of the graph stands for, under the key "part"."""


def contained(recording: Recording, priced: nx.DiGraph) -> nx.DiGraph:
    """The containment graph of a priced pass, the modules' costs summed up.

    Args:
        recording: the pass.
        priced: its graph of ops, see :mod:`fxmeter.annotators.pricing.graph`.

    Returns:
        The tree that this module documents.
    """
    tree = _tree(recording, priced)
    parts: dict[str, Part] = dict(tree.nodes(data=PART))
    for name in reversed(list(nx.topological_sort(tree))):
        part = parts[name]
        if isinstance(part, ModuleCost):
            own, modules = [], []
            for _, child, times in tree.out_edges(name, data=TIMES):
                item = parts[child]
                if isinstance(item, ModuleCost):
                    modules.append((item.cost, times))
                elif (cost := _resident_here(item)) is not ZERO:
                    own.append((cost, times))
            by_itself = Cost.weighted(own)
            whole = Cost.weighted([(by_itself, 1), *modules]) if modules else by_itself
            parts[name] = tree.nodes[name][PART] = replace(part, cost=whole, own=by_itself)
    return tree


def op_totals(tree: nx.DiGraph) -> dict[str, tuple[int, Cost]]:
    """Op → executions in the whole stage, and what they cost together."""
    counts: dict[str, int] = {}
    costs: dict[str, list[tuple[Cost, int]]] = {}
    for _, part in tree.nodes(data=PART):
        if isinstance(part, PricedNode):
            counts[part.op] = counts.get(part.op, 0) + part.times
            costs.setdefault(part.op, []).append((part.cost, part.times))
    totals = {op: (counts[op], Cost.weighted(counted)) for op, counted in costs.items()}
    unread = tree.nodes[""][PART].cost.weight_bytes - sum(cost.weight_bytes for _, cost in totals.values())
    if unread > 0:
        totals[UNREAD] = 1, Cost(weight_bytes=unread)
    return totals


def _resident_here(part: PricedNode | Weight) -> Cost:
    """What an op or a parameter adds to its module. Parameters are resident where they are registered, whichever op is
    the first to read them."""
    if isinstance(part, Weight):
        return Cost(weight_bytes=part.nbytes)
    return part.cost if is_nothing(part.cost.weight_bytes) else replace(part.cost, weight_bytes=0)


def _tree(recording: Recording, priced: nx.DiGraph) -> nx.DiGraph:
    multiplicity = recording.multiplicity()
    tree = nx.DiGraph()

    def put(path: str, name: str, part: Part, times: int) -> None:
        tree.add_node(name, **{PART: part})
        tree.add_edge(path, name, **{TIMES: times})

    for path, class_name in recording.classes.items():
        if multiplicity.folded(path):
            continue
        module = ModuleCost(path, class_name, multiplicity.of(path), ZERO, ZERO)
        if path:
            around = path.rpartition(".")[0]
            put(around, path, module, multiplicity.of(path) // multiplicity.of(around))
        else:
            tree.add_node(path, **{PART: module})
    for node in priced_nodes(priced):
        if node.executed:
            put(node.module, f"{node.module}/{node.name}", node, node.times // multiplicity.of(node.module))
    for weight in recording.weights:
        if not multiplicity.folded(weight.path):
            path, _, name = weight.path.rpartition(".")
            put(path, f"{path}/{name}", weight, 1)
    return tree
