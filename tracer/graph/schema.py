"""What an op's schema says: its arguments by name, which of them it changes in place, its plain name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from fxmeter.models.names import Kwargs
from fxmeter.tracer.graph.values import Args
from fxmeter.tracer.private import OpOverload

T = TypeVar("T")


def bind(op: OpOverload, args: Args, kwargs: Kwargs) -> Kwargs:
    """An op's arguments by name, those left out at the schema's default."""
    arguments = dict(_signature(op).defaults)
    arguments.update(zip(arguments, args, strict=False))
    arguments.update(kwargs)
    return arguments


def changed_arguments(op: OpOverload) -> frozenset[str]:
    """Names of the arguments that an op changes in place."""
    return _signature(op).changed


def base_name(op: OpOverload) -> str:
    """An op's name without namespace and overload: "add_" of aten.add_.Tensor."""
    return _signature(op).name


def returned_into(op: OpOverload) -> tuple[str, ...]:
    """Names of the arguments that an ``out=`` variant writes what it returns into; none of any other op's."""
    changed = changed_arguments(op)
    return tuple(a.name for a in op._schema.arguments if a.kwarg_only and a.name in changed)


@cache
def functional(op: OpOverload) -> OpOverload | None:
    """The overload that returns what this ``out=`` variant writes; None where it is none, or torch has no other."""
    outs = returned_into(op)
    if not outs:
        return None
    packet = op.overloadpacket
    wanted = [(a.name, str(a.type)) for a in op._schema.arguments if a.name not in outs]
    for overload in (getattr(packet, name) for name in packet.overloads()):
        if [(a.name, str(a.type)) for a in overload._schema.arguments] == wanted:
            return overload
    return None


@dataclass(frozen=True, slots=True)
class _Signature:
    """What a schema says, read once: asking torch for it again and again is slow."""

    name: str
    defaults: Mapping[str, Any]
    changed: frozenset[str]


def once_an_op(function: Callable[[OpOverload], T]) -> Callable[[OpOverload], T]:
    """``function``, run once for each op, as by ``functools.cache``, but found by the op's id: it hashes slowly. The op
    is kept beside, so that no other comes to have its id."""
    known: dict[int, tuple[OpOverload, T]] = {}

    def looked_up(op: OpOverload) -> T:
        found = known.get(id(op))
        if found is None:
            found = known[id(op)] = op, function(op)
        return found[1]

    return looked_up


@once_an_op
def _signature(op: OpOverload) -> _Signature:
    arguments = op._schema.arguments
    return _Signature(
        op._schema.name.split("::")[-1],
        {argument.name: argument.default_value for argument in arguments},
        frozenset(a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write),
    )
