"""From a recording to a priced graph: a ``networkx.DiGraph`` with one node per op.

Node attributes
    op        the op's name, e.g. "aten.mm.default"; "input", "weight" or "cache" for what exists before the pass
    module    path of the module that executed it
    times     identical executions (folded layers)
    cost      Cost of one execution
    costed    False where no rule knows the op: ``cost`` then has the bytes of its tensors, and its FLOPs are unknown
    inputs    shapes read, as text; ``outputs`` shapes returned
    order     position in the program
    group     the first op of the kernel that it is fused into (ops that move bytes)

Edge attributes
    bytes         what the consumer reads of the tensor (0 where it only views it)
    tensor_bytes  the tensor's own size
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import networkx as nx
import torch
from torch import fx
from torch._ops import OpOverload

import annotators.rules  # noqa: F401  registers every rule
from annotators.cost import Conventions, Cost, Moves
from annotators.fusion import add_fused_traffic
from annotators.kernels import Move, Moved, kept_tensors, kernels_of, kind_of
from annotators.liveness import add_peaks
from annotators.registry import Routed, bind, rule_for, specs_in
from models.stage_cost import ZERO
from tracer.recording import Recording, times_of
from tracer.spec import Spec, Storage

_TOPK = torch.ops.aten.topk.default
_GROUPED = torch.ops.aten._grouped_mm.default


def price(recording: Recording, conventions: Conventions) -> nx.DiGraph:
    """Price every node of a recording."""
    graph = nx.DiGraph()
    kv: dict[str, Any] = {}
    for entry in recording.cache:
        if entry.node is not None:
            kv[entry.node] = kv.get(entry.node, 0) + entry.spec.nbytes
    weights = {weight.path: weight.nbytes for weight in recording.weights}
    owed = _first_readers(recording, weights)
    moved: list[Moved] = []
    for order, node in enumerate(recording.graph.nodes):
        if node.op == "output":
            continue
        if node.op != "call_function":
            spec = node.meta["spec"]
            graph.add_node(
                node.name,
                op=spec.role,
                module="",
                times=1,
                cost=ZERO,
                costed=True,
                inputs="",
                outputs=str(spec),
                order=order,
            )
            continue
        cost, reads, moves, costed = _price_node(node, conventions)
        if moves:
            moved.append(Moved(node, kind_of(node.target, cost, costed=costed), moves))
        if node.name in kv or node.name in owed:
            cost = replace(cost, kv_bytes=kv.get(node.name, 0), weight_bytes=owed.get(node.name, 0))
        inputs = [n.meta["spec"] for n in node.all_input_nodes]
        graph.add_node(
            node.name,
            op=_name(node.target),
            module=node.meta["module"],
            times=times_of(node),
            cost=cost,
            costed=costed,
            inputs=_shapes(inputs),
            outputs=_shapes(node.meta["spec"]),
            order=order,
        )
        for source in node.all_input_nodes:
            spec = source.meta["spec"]
            size = sum(s.nbytes for s in specs_in(spec))
            graph.add_edge(source.name, node.name, bytes=reads.get(source, 0), tensor_bytes=size)
    kernels = kernels_of(moved, recording)
    add_fused_traffic(graph, kernels, *kept_tensors(recording, kernels), _copies(recording))
    add_peaks(graph, recording)
    return graph


def _copies(recording: Recording) -> dict[int, int]:
    """Storage of a weight → the identical modules that have one like it; 0 for a constant of the model's code."""
    times = {
        i.paths[0]: len(set(i.paths)) * math.prod(len(set(o.paths)) for o in i.outer) for i in recording.instances()
    }
    copies = {}
    for node in recording.graph.nodes:
        if node.op == "get_attr":
            head = str(node.target)
            while head and head not in times:
                head = head.rpartition(".")[0]
            constant = str(node.target) in recording.constants
            copies[node.meta["spec"].storage.id] = 0 if constant else times.get(head, 1)
    return copies


def _price_node(node: fx.Node, conventions: Conventions) -> tuple[Cost, Mapping[fx.Node, Any], Sequence[Move], bool]:
    """The cost of one execution, the bytes read from each operand, what moves, and whether a rule knew the op."""
    op, out = node.target, node.meta["spec"]
    if op is operator.getitem:
        return ZERO, {}, (), True
    if not isinstance(op, OpOverload):
        return ZERO, {}, (), False
    known = rule_for(op)
    given = bind(op, fx.map_arg(node.args, _spec_of), fx.map_arg(node.kwargs, _spec_of))
    outputs = list(specs_in(out))
    operands = [spec for value in given.values() for spec in specs_in(value)]
    held = {spec.storage.id for spec in operands}
    given.update(out=out, conventions=conventions, op_name=op._schema.name.split("::")[-1], routed=None)
    if op is _GROUPED:
        given["routed"] = _routing_of(node)
    arithmetic = ZERO if known is None else known.cost(given)
    changed = [a.name for a in op._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    if not changed and outputs and all(spec.storage.id in held for spec in outputs):
        return arithmetic, {}, (), known is not None
    moves = _NO_MOVES if known is None else known.traffic(given)
    traffic = _Traffic()
    by_spec: dict[int, Any] = {}
    seen: list[Spec] = []
    for argument in op._schema.arguments:
        specs = list(specs_in(given[argument.name]))
        fixed = moves.read.get(argument.name)
        for spec in specs:
            if fixed is None and any(spec.same_elements(other) for other in seen):
                continue
            seen.append(spec)
            amount = spec.distinct_bytes if fixed is None else fixed
            by_spec[id(spec)] = by_spec.get(id(spec), 0) + amount
            traffic.read(spec, amount)
        if argument.name in changed:
            for spec in specs:
                traffic.write(spec, moves.written.get(argument.name, spec.nbytes))
    made: dict[int, Storage] = {}
    for spec in outputs:
        if spec.storage.id not in held:
            traffic.write(spec, moves.written.get("out", spec.nbytes))
            if spec.role == "activation":
                made[spec.storage.id] = spec.storage
    materialised = sum(storage.nbytes for storage in made.values())
    reads = {n: sum(by_spec.get(id(s), 0) for s in specs_in(n.meta["spec"])) for n in node.all_input_nodes}
    return arithmetic + traffic.cost(materialised), reads, traffic.moves, known is not None


class _Traffic:
    """Bytes read and written, kept apart by role."""

    __slots__ = ("fields", "moves")

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.moves: list[Move] = []

    def read(self, spec: Spec, nbytes: Any) -> None:
        self.moves.append((spec, nbytes, 0))
        self._add(_READ_FIELD[spec.role], nbytes)

    def write(self, spec: Spec, nbytes: Any) -> None:
        self.moves.append((spec, 0, nbytes))
        self._add("kv_write_bytes" if spec.role == "cache" else "activation_write_bytes", nbytes)

    def _add(self, name: str, nbytes: Any) -> None:
        self.fields[name] = self.fields.get(name, 0) + nbytes

    def cost(self, materialised: Any) -> Cost:
        return Cost(**self.fields, activation_bytes=materialised)


_READ_FIELD = {
    "weight": "weight_read_bytes",
    "cache": "kv_read_bytes",
    "input": "activation_read_bytes",
    "activation": "activation_read_bytes",
}


_NO_MOVES = Moves()


def _spec_of(node: fx.Node) -> Any:
    return node.meta["spec"]


def _routing_of(node: fx.Node) -> Routed | None:
    """The top-k selection that a grouped product's group offsets come from, nearest first; None where there is none."""
    offsets = node.args[2] if len(node.args) > 2 else node.kwargs.get("offs")
    rows = node.all_input_nodes[0].meta["spec"].shape[0]
    queue, seen = [offsets] if isinstance(offsets, fx.Node) else [], set()
    while queue:
        current = queue.pop(0)
        if current.target is _TOPK:
            *tokens, top_k = current.meta["spec"][0].shape
            routed = Routed(math.prod(tokens), top_k)
            if routed.tokens * routed.top_k == rows:
                return routed
        for source in current.all_input_nodes:
            if source not in seen:
                seen.add(source)
                queue.append(source)
    return None


def _first_readers(recording: Recording, nbytes: Mapping[str, int]) -> dict[str, int]:
    """Node name → bytes of the parameters that it is the first to read, looking through views."""
    owed: dict[str, int] = {}
    for node in recording.graph.nodes:
        size = nbytes.get(str(node.target)) if node.op == "get_attr" else None
        reader = _reader(node) if size else None
        if size and reader is not None:
            owed[reader.name] = owed.get(reader.name, 0) + size
    return owed


def _reader(node: fx.Node) -> fx.Node | None:
    for user in node.users:
        if user.op != "call_function":
            continue
        spec = user.meta["spec"]
        views = isinstance(spec, Spec) and spec.storage is node.meta["spec"].storage
        reader = _reader(user) if views else user
        if reader is not None:
            return reader
    return None


def _name(target: Any) -> str:
    return str(target) if isinstance(target, OpOverload) else getattr(target, "__name__", str(target))


def _shapes(spec: Any) -> str:
    return ", ".join(str(s) for s in specs_in(spec))
