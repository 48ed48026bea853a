"""Choices that weights decide, taken to be even: which experts a router picks, which token is drawn.

How many tokens an expert gets, and so the shape of what it computes, hangs on data. Under uniform routing every
position is picked equally often: of T tokens that choose k of E experts, each gets T·k/E, one more or less where that
is no whole number. What a model computes for all experts together does not hang on the split.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from fxmeter.models.names import Kwargs
from fxmeter.tracer.graph.nodes import meta_of, spec_of, specs_of

aten = torch.ops.aten

_NAMES = {
    aten.topk.default: "a top-k",
    aten.argmax.default: "an argmax",
    aten.max.dim: "a maximum's index",
    aten.min.dim: "a minimum's index",
    aten.sort.default: "a sort",
    aten.sort.stable: "a sort",
    aten.argsort.default: "a sort",
    aten.argsort.stable: "a sort",
    aten.multinomial.default: "a random draw",
}
_ORDERS = frozenset({aten.sort.default, aten.sort.stable, aten.argsort.default, aten.argsort.stable})
_DIM = {
    aten.argmax.default: (1, None),
    aten.max.dim: (1, None),
    aten.min.dim: (1, None),
    aten.topk.default: (2, -1),
    aten.sort.default: (1, -1),
    aten.argsort.default: (1, -1),
}
"""Where an op's dimension stands among its arguments, and its default; of others it is the last, or named."""


CHOICES = frozenset(_NAMES)
"""Ops that pick positions: what they return last."""
_IDS = frozenset(map(id, CHOICES))


def chooses(node: fx.Node) -> bool:
    """Whether an op picks positions by values that nothing but weights decides. A top-k does, whatever it is given."""
    if id(node.target) not in _IDS:
        return False
    return node.target is aten.topk.default or not all(meta_of(source).is_known for source in node.all_input_nodes)


def assumption_of(node: fx.Node) -> str:
    """What is taken for granted of a choice, in words."""
    return f"{_NAMES[node.target]} picks every position equally often"  # type: ignore[index]


def evenly(node: fx.Node) -> Any:
    """What a choice returns: the positions, and in the place of values, if it returns those too, ones."""
    *values, picked = specs_of(node)
    source = spec_of(node.all_input_nodes[0])
    positions = even_positions(node.target, node.args, node.kwargs, source.shape, picked.shape)
    return (*(torch.ones(spec.shape, dtype=spec.dtype) for spec in values), positions) if values else positions


def even_positions(
    op: Any, args: Sequence[Any], kwargs: Kwargs, source: Sequence[int], picked: Sequence[int]
) -> Tensor:
    """The positions that ``op(*args, **kwargs)`` picks, of shape ``picked``, in a tensor of shape ``source``."""
    place, default = _DIM.get(op, (None, -1))
    dim = kwargs.get("dim", args[place] if place is not None and len(args) > place else default)
    if dim is None:  # one position in all of the tensor
        return torch.zeros(tuple(picked), dtype=torch.int64)
    dim %= len(source)
    if len(picked) < len(source):  # the dimension is reduced away
        return balanced_picks(picked, source[dim])
    moved = [*picked[:dim], *picked[dim + 1 :], picked[dim]]
    positions = _orders(moved) if op in _ORDERS else balanced_picks(moved, source[dim])
    return positions.movedim(-1, dim)


def _orders(shape: Sequence[int]) -> Tensor:
    """Orders of the last dimension: its first few, of all rows together, are each position equally often."""
    size = shape[-1]
    rows = torch.arange(math.prod(shape[:-1]))[:, None]
    return ((rows + torch.arange(size)) * _step(size) % size).reshape(tuple(shape))


def balanced_picks(shape: Sequence[int], positions: int) -> Tensor:
    """Indices below ``positions``: each as often as any other, any run of them spread evenly over the whole range."""
    return (torch.arange(math.prod(shape)) * _step(positions) % positions).reshape(tuple(shape))


def _step(positions: int) -> int:
    """From one pick to the next: the golden section of the range, rounded to a step that meets every position.

    So the picks of a token differ, and where some positions cost nothing, even a few picks have their share of those.
    """
    step = round(positions * (math.sqrt(5) - 1) / 2)
    while math.gcd(step, positions) != 1:
        step += 1
    return step
