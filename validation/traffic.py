"""Bytes that the ops of a real pass read and write, counted at dispatch from their tensors' addresses alone.

For each op, in order: every distinct region that it is given is read once, every tensor with a new storage that it
returns is written once, every operand that its schema calls mutable is written. An op that only returns views of what
it was given moves nothing. Knows by name only ops that overwrite their target, ops that take the shape alone of what
they are given, and the grouped product, of whose experts only those with rows are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

OVERWRITE = frozenset({"copy_", "fill_", "zero_"})
"""In-place ops whose result does not depend on what was there."""
SHAPE_ALONE = frozenset(
    {"empty_like", "zeros_like", "ones_like", "full_like", "new_empty", "new_zeros", "new_ones", "new_full"}
)
"""Ops that make a tensor like the one that they are given, and read nothing of it."""

Way = tuple[str, str]
"""Role of a tensor ("weight", "cache", "activation"), and "read" or "written"."""


@dataclass(slots=True)
class Op:
    """An executed op: its name, and (storage, way, bytes) of all that it moves."""

    name: str
    moves: list[tuple[int, str, int]] = field(default_factory=list)


class TrafficCounter(TorchDispatchMode):
    """Counts while active. Storages are kept alive, so that no two share an address."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[Op] = []
        self.made: dict[int, Any] = {}
        self._foreign: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        arguments = func._schema.arguments
        given = [(a, args[i] if i < len(args) else kwargs.get(a.name)) for i, a in enumerate(arguments)]
        held = {}
        for tensor in _tensors((args, kwargs)):
            held[_address(tensor)] = tensor.untyped_storage()
        self._foreign.update({a: s for a, s in held.items() if a not in self.made})
        out = func(*args, **kwargs)
        op = Op(str(func))
        self.ops.append(op)
        new = {(_address(t), tuple(t.shape)): t for t in _tensors(out) if _address(t) not in held}
        changed = [(a, v) for a, v in given if a.alias_info is not None and a.alias_info.is_write]
        self.made.update({_address(t): t.untyped_storage() for t in new.values()})
        if not new and not changed and any(True for _ in _tensors(out)):
            return out
        name = func._schema.name.split("::")[-1]
        targets = {a.name for a, _ in changed} if name in OVERWRITE else {"self"} if name in SHAPE_ALONE else set()
        regions = {_region(t): t for a, v in given if a.name not in targets for t in _tensors(v)}
        share = experts_touched(args, kwargs) if name == "_grouped_mm" else Fraction(1)
        for tensor in regions.values():
            part = share if tensor.dim() == 3 else 1
            op.moves.append((_address(tensor), "read", int(distinct_bytes(tensor) * part)))
        if "empty" not in name:
            op.moves += [(_address(t), "written", t.nbytes) for t in new.values()]
        op.moves += [(_address(t), "written", t.nbytes) for _, v in changed for t in _tensors(v)]
        return out

    def counted(self, model: nn.Module, cache: Collection[Tensor], inputs: Collection[Tensor]) -> list[Counted]:
        """Every op's bytes by role. What neither the pass nor its caller made is a constant of the model's code."""
        weights = {_address(t) for t in [*model.parameters(), *model.buffers()]}
        held, own = {_address(t) for t in cache}, {_address(t) for t in inputs}

        def role(address: int) -> str:
            if address in held:
                return "cache"
            known = address in self.made or address in own
            return "weight" if address in weights or not known else "activation"

        found = []
        for op in self.ops:
            moved: Counter[Way] = Counter()
            for address, way, amount in op.moves:
                moved[role(address), way] += amount
            found.append(Counted(op.name, +moved))
        return found


@dataclass(frozen=True, slots=True)
class Counted:
    """An op with the bytes that it moves, by role and way."""

    name: str
    moved: Counter[Way]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _tensors(value: Any) -> Iterator[Tensor]:
    return (leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor))


def _region(tensor: Tensor) -> tuple[Any, ...]:
    return _address(tensor), tensor.storage_offset(), tuple(tensor.shape), tensor.stride()


def experts_touched(args: Any, kwargs: Any) -> Fraction:
    """The share of a grouped product's experts that its offsets give rows to."""
    ends = args[2] if len(args) > 2 else kwargs["offs"]
    rows = torch.diff(ends, prepend=ends.new_zeros(1))
    return Fraction(int((rows > 0).sum()), rows.numel())


def distinct_bytes(tensor: Tensor) -> int:
    """Bytes of the elements that differ in address: counted one by one where dimensions may overlap."""
    reach = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride < reach:
            places = torch.zeros(1, dtype=torch.long)
            for step, count in zip(tensor.stride(), tensor.shape, strict=True):
                places = (places[:, None] + step * torch.arange(count)).unique()
            return places.numel() * tensor.itemsize
        reach = max(reach, stride * (size - 1) + 1)
    return tensor.nbytes
