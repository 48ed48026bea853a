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
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import torch
from torch import fx

import fxmeter.annotators.rules  # noqa: F401  registers every rule
from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.pricing.fusion import fused_traffic
from fxmeter.annotators.pricing.kernels import Move, Moved, kept_tensors, kernels_of
from fxmeter.annotators.pricing.liveness import peaks_of
from fxmeter.annotators.rules.cost import Fuses, Moves
from fxmeter.annotators.rules.registry import Routed, rule_for
from fxmeter.models.stage_cost import ZERO, Cost, is_nothing
from fxmeter.tracer.capture.recording import Recording
from fxmeter.tracer.graph.nodes import arguments_of, meta_of, spec_of, specs_of, times_of
from fxmeter.tracer.graph.schema import base_name, changed_arguments
from fxmeter.tracer.graph.spec import Spec, Storage, specs_in
from fxmeter.tracer.private import OpOverload

_TOPK = torch.ops.aten.topk.default
_GROUPED = torch.ops.aten._grouped_mm.default


def price(recording: Recording, conventions: Conventions) -> nx.DiGraph:
    """Price every node of a recording."""
    kv: dict[str, Any] = {}
    for entry in recording.cache:
        if entry.node is not None:
            kv[entry.node] = kv.get(entry.node, 0) + entry.spec.nbytes
    owed = _first_readers(recording, {weight.path: weight.nbytes for weight in recording.weights})
    executed = [node for node in recording.graph.nodes if node.op == "call_function"]
    priced = {node: _price_node(node, conventions) for node in executed}
    kernels = kernels_of(
        (Moved(node, found.fuses, found.moves) for node, found in priced.items() if found.moves),
        recording,
    )
    times = {node.name: times_of(node) for node in executed}
    resident = sum(nbytes * times.get(name, 0) for name, nbytes in kv.items())
    fused = fused_traffic(kernels, times, *kept_tensors(recording, kernels), _copies(recording), resident)
    peaks = peaks_of(recording, (node for node, found in priced.items() if found.moves))
    graph = nx.DiGraph(floor_io_bytes=fused.floor_bytes)
    shapes: dict[fx.Node, str] = {}
    sizes: dict[fx.Node, Any] = {}
    for order, node in enumerate(recording.graph.nodes):
        name, op = node.name, node.target
        if node.op == "output":
            continue
        specs = list(specs_of(node))
        shapes[node] = ", ".join(map(str, specs))
        sizes[node] = sum(spec.nbytes for spec in specs)
        if node.op != "call_function":
            role = specs[0].role
            graph.add_node(
                name, op=role, module="", times=1, cost=ZERO, costed=True, inputs="", outputs=shapes[node], order=order
            )
            continue
        found, sources = priced[node], node.all_input_nodes
        fields = found.fields
        if name in fused.bytes:
            fields["fused_io_bytes"] = fused.bytes[name]
        if name in kv:
            fields["kv_bytes"] = kv[name]
        if name in owed:
            fields["weight_bytes"] = owed[name]
        if name in peaks:
            fields["peak_activation_bytes"], fields["ideal_peak_activation_bytes"] = peaks[name]
        group = {"group": fused.groups[name]} if name in fused.groups else {}
        graph.add_node(
            name,
            op=_name(op),
            module=meta_of(node).module,
            times=times[name],
            cost=Cost(**fields) if fields else ZERO,
            costed=found.costed,
            inputs=", ".join(shapes[source] for source in sources if shapes[source]),
            outputs=shapes[node],
            order=order,
            **group,
        )
        for source in sources:
            graph.add_edge(source.name, name, bytes=found.reads.get(source, 0), tensor_bytes=sizes[source])
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
            copies[spec_of(node).storage.id] = 0 if constant else times.get(head, 1)
    return copies


@dataclass(frozen=True, slots=True)
class _Priced:
    """One execution of a node: fields of its Cost that are not 0, bytes read by operand, what moves of which tensor,
    and whether a rule knew the op."""

    fields: dict[str, Any] = field(default_factory=dict)
    reads: Mapping[fx.Node, Any] = field(default_factory=dict)
    moves: Sequence[Move] = ()
    costed: bool = True
    fuses: Fuses = "alone"


def _price_node(node: fx.Node, conventions: Conventions) -> _Priced:
    op, out = node.target, meta_of(node).spec
    if not isinstance(op, OpOverload):
        return _Priced(costed=op is operator.getitem)
    known = rule_for(op)
    given = arguments_of(node, op)
    outputs = list(specs_in(out))
    arguments = {name: specs for name, value in given.items() if (specs := list(specs_in(value)))}
    held = {spec.storage.id for specs in arguments.values() for spec in specs}
    given.update(out=out, conventions=conventions, op_name=base_name(op), routed=None)
    if op is _GROUPED:
        given["routed"] = _routing_of(node)
    traffic = _Traffic()
    if known is not None:
        arithmetic = known.flops(given)
        traffic.add("matmul_flops", arithmetic.matmul)
        traffic.add("vector_flops", arithmetic.vector)
    changed = changed_arguments(op)
    if not changed and outputs and all(spec.storage.id in held for spec in outputs):
        return _Priced(traffic.fields, costed=known is not None)
    moves = _NO_MOVES if known is None else known.traffic(given)
    by_spec: dict[int, Any] = {}
    seen: list[Spec] = []
    for name, specs in arguments.items():
        fixed = moves.read.get(name)
        for spec in specs:
            if fixed is None and any(spec.same_elements(other) for other in seen):
                continue
            seen.append(spec)
            amount = spec.distinct_bytes if fixed is None else fixed
            by_spec[id(spec)] = by_spec.get(id(spec), 0) + amount
            traffic.read(spec, amount)
        if name in changed:
            for spec in specs:
                traffic.write(spec, moves.written.get(name, spec.nbytes))
    made: dict[int, Storage] = {}
    for spec in outputs:
        if spec.storage.id not in held:
            traffic.write(spec, moves.written.get("out", spec.nbytes))
            if spec.storage.is_activation:
                made[spec.storage.id] = spec.storage
    traffic.add("activation_bytes", sum(storage.nbytes for storage in made.values()))
    reads = {n: sum(by_spec.get(id(s), 0) for s in specs_of(n)) for n in node.all_input_nodes}
    return _Priced(traffic.fields, reads, traffic.moves, known is not None, "alone" if known is None else known.fuses)


class _Traffic:
    """Amounts by field of a Cost, bytes read and written kept apart by role."""

    __slots__ = ("fields", "moves")

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.moves: list[Move] = []

    def read(self, spec: Spec, nbytes: Any) -> None:
        self.moves.append((spec, nbytes, 0))
        self.add(_READ_FIELD[spec.role], nbytes)

    def write(self, spec: Spec, nbytes: Any) -> None:
        self.moves.append((spec, 0, nbytes))
        self.add("kv_write_bytes" if spec.role == "cache" else "activation_write_bytes", nbytes)

    def add(self, name: str, amount: Any) -> None:
        if not is_nothing(amount):
            self.fields[name] = self.fields.get(name, 0) + amount


_READ_FIELD = {
    "weight": "weight_read_bytes",
    "cache": "kv_read_bytes",
    "input": "activation_read_bytes",
    "activation": "activation_read_bytes",
}


_NO_MOVES = Moves()


def _routing_of(node: fx.Node) -> Routed | None:
    """The top-k selection that a grouped product's group offsets come from, nearest first; None where there is none."""
    offsets = node.args[2] if len(node.args) > 2 else node.kwargs.get("offs")
    rows = spec_of(node.all_input_nodes[0]).shape[0]
    queue, seen = [offsets] if isinstance(offsets, fx.Node) else [], set()
    while queue:
        current = queue.pop(0)
        if current.target is _TOPK:
            *tokens, top_k = next(specs_of(current)).shape
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
        spec = meta_of(user).spec
        views = isinstance(spec, Spec) and spec.storage is spec_of(node).storage
        reader = _reader(user) if views else user
        if reader is not None:
            return reader
    return None


def _name(target: Any) -> str:
    return str(target) if isinstance(target, OpOverload) else getattr(target, "__name__", str(target))
