"""Ops that are others: composites, lists of tensors at once, torch's primitives, and what users wrote in torch.

What they are made of is recorded in their place.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from fxmeter.models.names import Kwargs
from fxmeter.tracer.graph.schema import base_name, bind, changed_arguments
from fxmeter.tracer.graph.values import Args, Function
from fxmeter.tracer.private import OpOverload, custom_op_body, is_composite, primitive_body, pytree, without_modes

aten = torch.ops.aten


def parts_of(op: OpOverload, args: Args, kwargs: Kwargs) -> Function | None:
    """A function that runs ``op`` by the ops that it is made of; None where it is one of its own.

    A composite is taken apart by torch itself, unless in inference mode. A user's op is where it can be: it is written
    in torch, and asks for no values.
    """
    body = body_of(op)
    return None if body is None or (op.namespace not in _TORCH_S and not _runs_on_shapes(body, args, kwargs)) else body


_TORCH_S = frozenset({"aten", "prims"})


@cache
def body_of(op: OpOverload) -> Function | None:
    """What an op may be taken apart into."""
    if is_composite(op):
        return op.decompose
    if op.namespace == "prims":
        return primitive_body(op)
    if op.namespace == "aten":
        return partial(_one_by_one, op) if base_name(op).startswith("_foreach_") and _single(op) is not None else None
    return custom_op_body(op)


def _runs_on_shapes(body: Function, args: Args, kwargs: Kwargs) -> bool:
    try:
        with without_modes():
            given = pytree.tree_map_only(Tensor, lambda t: torch.empty_like(t, device="meta"), (args, kwargs))
            body(*given[0], **given[1])
    except Exception:  # whatever somebody's kernel says to tensors without data
        return False
    return True


_OTHER_NAMES = {"norm": "linalg_vector_norm", "powsum": "linalg__powsum"}
_OF_NUMBERS = {"maximum": "clamp_min", "minimum": "clamp_max"}


def _single(op: OpOverload) -> Any:
    """The op that a ``_foreach_`` op runs on each tensor of its lists."""
    name = base_name(op).removeprefix("_foreach_")
    in_place = "_" if name.endswith("_") else ""
    name = name.removesuffix("_")
    if op._overloadname.startswith("Scalar"):
        name = _OF_NUMBERS.get(name, name)
    return getattr(aten, _OTHER_NAMES.get(name, name) + in_place, None)


def _one_by_one(op: OpOverload, *args: Any, **kwargs: Any) -> list[Tensor] | None:
    """The op on each tensor of its lists in turn, with the number or tensor that belongs to it."""
    given = {name: value for name, value in bind(op, args, kwargs).items() if value is not None}
    lists = [a.name for a in op._schema.arguments if str(a.type).startswith("List[")]
    single, results = _single(op), []
    for index in range(len(given[lists[0]])):
        one = {name: value[index] if name in lists else value for name, value in given.items()}
        options = {name: one.pop(name) for name in ("dtype", "alpha", "value") if name in one}
        if "tensor2" in one and "scalars" in one:  # factors of a product; of a tensor of them, on the host
            factor = one.pop("scalars")
            options["value"] = 1 if isinstance(factor, Tensor) else factor
        results.append(single(*one.values(), **options))
    return None if changed_arguments(op) else results
