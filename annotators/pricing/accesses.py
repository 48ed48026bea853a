"""Ops as fusion sees them: what each reads and writes of which tensor, and whether it may share a kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import fx

from fxmeter.annotators.rules.cost import Fuses
from fxmeter.models.stage_cost import Size
from fxmeter.tracer.capture.recording import Recording
from fxmeter.tracer.graph.instances import Instance, Skip
from fxmeter.tracer.graph.nodes import meta_of, output_of, specs_of
from fxmeter.tracer.graph.spec import Role, Spec

TensorKey = tuple[int, int]
"""A tensor's storage, and how many layer calls that were not run have handed it on since it was made."""


Elements = tuple[Size | tuple[Size, Size], ...]
"""Which elements of a storage: the offset, then (stride, size) of each dimension."""


@dataclass(slots=True)
class Access:
    """What an op does with one tensor: which elements of which storage, and the bytes that it reads and writes."""

    key: TensorKey
    role: Role
    elements: Elements
    nbytes: Size
    read: Size
    written: Size
    gathered: bool = False

    @classmethod
    def of(cls, spec: Spec, key: TensorKey, *, read: Size = 0, written: Size = 0, gathered: bool = False) -> Access:
        """An access to the elements of ``spec``; the order of its dimensions does not matter."""
        dims = [(stride, size) for size, stride in zip(spec.shape, spec.strides, strict=True) if size != 1 and stride]
        elements = (spec.offset, *_merged(sorted(dims, key=lambda dim: dim[0])))
        return cls(key, spec.role, elements, spec.storage.nbytes, read, written, gathered)


def _merged(dims: Iterable[tuple[Size, Size]]) -> list[tuple[Size, Size]]:
    """Dimensions by stride, the smallest first; those that continue one another as one."""
    merged: list[tuple[Size, Size]] = []
    for stride, size in dims:
        if merged and merged[-1][0] * merged[-1][1] == stride:
            merged[-1] = (merged[-1][0], merged[-1][1] * size)
        else:
            merged.append((stride, size))
    return merged


@dataclass(slots=True)
class FusionOp:
    """An op as fusion sees it.

    ``calls`` are the calls of list members around it. A layer call that was not run is an "alone" that reads what it
    was given and makes what it handed on.
    """

    name: str
    fuses: Fuses
    calls: tuple[str, ...]
    accesses: tuple[Access, ...]
    elements: Size = 0


Move = tuple[Spec, Size, Size]
"""A tensor with the bytes that an op reads and writes of it."""


@dataclass(slots=True)
class Moved:
    """A priced node before tensors have names of their own."""

    node: fx.Node
    fuses: Fuses
    moves: Sequence[Move]


def fusion_ops(moved: Iterable[Moved], recording: Recording) -> list[FusionOp]:
    """The ops of a recording in program order, and between them the layer calls that were not run."""
    priced = list(moved)
    timed: list[tuple[int, Moved | tuple[Instance, Skip]]] = [(meta_of(item.node).span[0], item) for item in priced]
    instances = {id(i): i for item in priced for i in meta_of(item.node).instances if i.skips}
    timed += [(skip.moment, (i, skip)) for i in instances.values() for skip in i.skips]
    timed.sort(key=lambda pair: pair[0])
    used = _used_inside(priced)
    handed: dict[int, int] = {}
    return [
        _fusion_op(item, handed) if isinstance(item, Moved) else _skipped(moment, *item, used, handed)
        for moment, item in timed
    ]


def kept_tensors(recording: Recording, ops: Sequence[FusionOp]) -> tuple[set[TensorKey], set[TensorKey]]:
    """The tensors that the pass returns, and those that anyone still holds after it."""
    latest = {access.key[0]: access.key for op in ops for access in op.accesses}
    specs = [spec for node in output_of(recording.graph).all_input_nodes for spec in specs_of(node)]
    returned = {latest[spec.storage.id] for spec in specs if spec.storage.id in latest}
    alive = {s.id for s in recording.storages if s.died is None and s.role == "activation"}
    return returned, returned | {latest[id] for id in alive if id in latest}


def _fusion_op(item: Moved, handed: Mapping[int, int]) -> FusionOp:
    accesses = tuple(
        Access.of(
            spec,
            (spec.storage.id, handed.get(spec.storage.id, 0)),
            read=read,
            written=written,
            gathered=item.fuses == "gather" and place == 0,
        )
        for place, (spec, read, written) in enumerate(item.moves)
    )
    elements = item.moves[0][0].numel if item.fuses == "reduction" and item.moves else 0
    return FusionOp(item.node.name, item.fuses, meta_of(item.node).calls, accesses, elements)


def _skipped(
    moment: int, instance: Instance, skip: Skip, used: Mapping[int, set[int]], handed: dict[int, int]
) -> FusionOp:
    accesses = []
    for recorded, own in zip(instance.given, skip.given, strict=True):
        if recorded is not None and own is not None and recorded.id in used.get(id(instance), ()):
            key = (own.id, handed.get(own.id, 0))
            accesses.append(Access(key, own.role, (), own.nbytes, read=1, written=0))
    for index, _ in instance.returned:
        own = skip.given[index]
        if own is not None:
            handed[own.id] = handed.get(own.id, 0) + 1
            accesses.append(Access((own.id, handed[own.id]), own.role, (), own.nbytes, read=0, written=1))
    return FusionOp(f"call at {moment}", "alone", (), tuple(accesses))


def _used_inside(priced: Sequence[Moved]) -> dict[int, set[int]]:
    """Instance → storages that the ops inside it read or write."""
    used: dict[int, set[int]] = {}
    for item in priced:
        for instance in meta_of(item.node).instances:
            used.setdefault(id(instance), set()).update(spec.storage.id for spec, _, _ in item.moves)
    return used
