"""What an op's schema says: its arguments by name, which of them it changes in place, its plain name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from fxmeter.tracer.private import OpOverload


def bind(op: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
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


@dataclass(frozen=True, slots=True)
class _Signature:
    """What a schema says, read once: asking torch for it again and again is slow."""

    name: str
    defaults: Mapping[str, Any]
    changed: frozenset[str]


@cache
def _signature(op: OpOverload) -> _Signature:
    arguments = op._schema.arguments
    return _Signature(
        op._schema.name.split("::")[-1],
        {argument.name: argument.default_value for argument in arguments},
        frozenset(a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write),
    )
