"""What one op costs: its rule's arithmetic, the bytes of its tensors by role, and what it makes."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import fx

import fxmeter.annotators.rules  # noqa: F401  registers every rule
from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.pricing.accesses import Move
from fxmeter.annotators.rules.cost import Fuses, Moves
from fxmeter.annotators.rules.registry import Routed, rule_for
from fxmeter.annotators.symbolic import rounded_up
from fxmeter.models.stage_cost import Size, is_nothing
from fxmeter.tracer.graph.nodes import arguments_of, meta_of, spec_of, specs_of
from fxmeter.tracer.graph.schema import base_name, changed_arguments
from fxmeter.tracer.graph.spec import Spec, Storage, specs_in
from fxmeter.tracer.private import OpOverload

_TOPK = torch.ops.aten.topk.default
_LOOK_UPS = (torch.ops.aten.index.Tensor, torch.ops.aten.embedding.default, torch.ops.aten.index_select.default)
_GROUPED = torch.ops.aten._grouped_mm.default


@dataclass(slots=True)
class OpPrice:
    """One execution of an op.

    Attributes:
        fields: those of its Cost that are not 0.
        reads: bytes that it reads of each operand, by the Spec's id.
        moves: what it reads and writes of which tensor.
        costed: whether a rule knew the op.
        fuses: how it may share a kernel.
    """

    fields: dict[str, Size] = field(default_factory=dict)
    reads: Mapping[int, Size] = field(default_factory=dict)
    moves: Sequence[Move] = ()
    costed: bool = True
    fuses: Fuses = "alone"


def price_op(node: fx.Node, conventions: Conventions) -> OpPrice:
    """What one execution of a node costs, residency and peaks apart: those hang on the pass around it."""
    op, out = node.target, meta_of(node).spec
    if not isinstance(op, OpOverload):
        return OpPrice(costed=op is operator.getitem)
    known = rule_for(op)
    arguments = arguments_of(node, op)
    results = list(specs_in(out))
    operands = {name: specs for name, value in arguments.items() if (specs := list(specs_in(value)))}
    held = {spec.storage.id for specs in operands.values() for spec in specs}
    arguments.update(out=out, conventions=conventions, op_name=base_name(op), routed=None)
    if op is _GROUPED:
        arguments["routed"] = _routing_of(node)
    traffic = _Traffic()
    if known is not None:
        arithmetic = known.flops(arguments)
        traffic.add("matmul_flops", arithmetic.matmul)
        traffic.add("vector_flops", arithmetic.vector)
    changed = changed_arguments(op)
    if not changed and results and all(is_nothing(spec.numel) for spec in results):
        return OpPrice(costed=known is not None)  # nothing is asked for, and nothing runs
    if not changed and results and all(spec.storage.id in held for spec in results):
        return OpPrice(traffic.fields, costed=known is not None)  # a view: nothing moves
    moves = _NO_MOVES if known is None else known.traffic(arguments)
    traffic.add("network_bytes", moves.sent)
    read_of: dict[int, Size] = {}
    seen: list[Spec] = []
    for name, specs in operands.items():
        fixed = moves.read.get(name)
        for spec in specs:
            if fixed is None and any(spec.same_elements(other) for other in seen):
                continue  # x * x reads x once
            seen.append(spec)
            amount = spec.distinct_bytes if fixed is None else fixed
            read_of[id(spec)] = read_of.get(id(spec), 0) + amount
            traffic.read(spec, amount)
        if name in changed:
            for spec in specs:
                traffic.write(spec, moves.written.get(name, spec.nbytes))
    new: dict[int, Storage] = {}
    for spec in results:
        if spec.storage.id not in held:
            traffic.write(spec, moves.written.get("out", spec.nbytes))
            if spec.storage.is_activation:
                new[spec.storage.id] = spec.storage
    traffic.add("activation_bytes", sum(storage.nbytes for storage in new.values()))
    return OpPrice(traffic.fields, read_of, traffic.moves, known is not None, "alone" if known is None else known.fuses)


class _Traffic:
    """Amounts by field of a Cost, bytes read and written kept apart by role."""

    __slots__ = ("fields", "moves")

    def __init__(self) -> None:
        self.fields: dict[str, Size] = {}
        self.moves: list[Move] = []

    def read(self, spec: Spec, nbytes: Size) -> None:
        self.moves.append((spec, nbytes, 0))
        self.add(_READ_FIELD[spec.role], nbytes)

    def write(self, spec: Spec, nbytes: Size) -> None:
        self.moves.append((spec, 0, nbytes))
        self.add("kv_write_bytes" if spec.role == "cache" else "activation_write_bytes", nbytes)

    def add(self, name: str, amount: Size) -> None:
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
    """The choice that a grouped product's group offsets come from, nearest first; None where there is none.

    A top-k selection, or rows looked up in a table of expert numbers (hash routing: [vocabulary, k], whose rows name k
    different experts).
    """
    offsets = node.args[2] if len(node.args) > 2 else node.kwargs.get("offs")
    left, right = (spec_of(operand) for operand in node.all_input_nodes[:2])
    rows, experts = left.shape[0], right.shape[0]
    queue, seen = [offsets] if isinstance(offsets, fx.Node) else [], set()
    while queue:
        current = queue.pop(0)
        if current.target is _TOPK or current.target in _LOOK_UPS:
            *tokens, top_k = specs_of(current)[0].shape
            table = spec_of(current.all_input_nodes[0])
            of_all = table.shape[-1] if current.target is _TOPK else experts
            routed = _routed(rows, experts, math.prod(tokens), top_k, of_all)
            if routed is not None and (current.target is _TOPK or table.role == "weight"):
                return routed
        for source in current.all_input_nodes:
            if source not in seen:
                seen.add(source)
                queue.append(source)
    return None


def _routed(rows: Size, here: Size, tokens: Size, top_k: Size, experts: Size) -> Routed | None:
    """The choice that ``rows`` rows for the ``here`` experts of a rank come from; None if not from this one.

    ``tokens`` chose ``top_k`` of ``experts`` each. Where other ranks have experts too, a rank has an equal part:
    its rows are those of its own tokens, or of as many tokens of all ranks as give that many rows.
    """
    if experts == here or experts % here:
        return Routed(tokens, top_k) if tokens * top_k == rows else None
    ranks = experts // here
    if rows != rounded_up(tokens * top_k, ranks):
        tokens = rows * ranks // top_k
    return Routed(tokens, top_k / ranks)
