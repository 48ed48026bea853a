"""torch's higher-order functions without a compiler: ``torch.cond``, ``while_loop``, ``scan``, ``flex_attention``.

Called on their own they compile what they are given, which neither meta nor a recorder allows. Inside the block they
hand it to their operator as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fxmeter.models.names import Kwargs
from fxmeter.tracer.graph.values import Args, Function
from fxmeter.tracer.operators.ops import flex_attention
from fxmeter.tracer.private import UNCOMPILED, Name, TorchDispatchMode, swapped, without_modes

_ROWS_AT_ONCE = 2**24
"""(query, key) pairs of a mask that are looked at together."""
_MOST_PAIRS = 2**32
"""Of a mask that is looked at at all: some ten seconds."""


@contextmanager
def without_compiling(*, fuse: bool) -> Iterator[None]:
    """Inside the block nothing is compiled; ``fuse`` makes ``flex_attention`` one core, and not its own plain form."""
    direct: dict[Name, object] = {
        UNCOMPILED.compile_and_call: _call,
        UNCOMPILED.uncompiled_flex: True,
        UNCOMPILED.flex_devices: _any_device,
    }
    if fuse:
        direct[UNCOMPILED.flex_operator] = _flex
    with swapped(direct):
        yield


def _call(function: Function, args: Any, kwargs: Any = None) -> Any:
    return function(*args, **(kwargs or {}))


def _any_device(*_: Tensor) -> None:
    """Meta is as good as another."""


def _flex(
    query: Tensor, key: Tensor, value: Tensor, score_mod: Any, block_mask: Args, scale: float, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """The operator behind ``flex_attention``, with the pairs that its mask lets through."""
    batch, heads, s_q, _ = query.shape
    pairs = _pairs(block_mask[-1], (batch, heads, s_q, key.shape[2]))
    out, lse = flex_attention(query, key, value, scale, pairs, _ops_of(score_mod, query))
    return out, lse, lse


def _pairs(mask_mod: Callable[..., Tensor], shape: tuple[int, int, int, int]) -> int:
    """(query, key) pairs of all batches and heads that a mask lets through; all where it cannot be known."""
    *_, s_q, s_kv = shape
    if math.prod(shape) > _MOST_PAIRS:
        return math.prod(shape)
    rows = max(1, _ROWS_AT_ONCE // (math.prod(shape) // s_q))
    count = 0
    try:
        with without_modes(), torch.device("cpu"):
            b, h, k = (torch.arange(n).view(view) for n, view in zip((*shape[:2], s_kv), _PLACES, strict=True))
            for first in range(0, s_q, rows):
                q = torch.arange(first, min(first + rows, s_q)).view(-1, 1)
                count += int(mask_mod(b, h, q, k).expand(*shape[:2], len(q), s_kv).sum())
    except Exception:  # the mask is the user's code; it may read what has no values here
        return math.prod(shape)
    return count


_PLACES = ((-1, 1, 1, 1), (-1, 1, 1), (-1,))


class _Counted(TorchDispatchMode):
    """How many ops with floating-point results run inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.ops = 0

    def __torch_dispatch__(self, func: Any, types: Args, args: Args = (), kwargs: Kwargs | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.ops += isinstance(out, Tensor) and out.is_floating_point()
        return out


def _ops_of(score_mod: Callable[..., Tensor], query: Tensor) -> int:
    """What a score modification adds for each pair: 1 for each op of it that returns floating point."""
    with without_modes():
        score = torch.zeros((), dtype=query.dtype, device="meta")
        places = torch.zeros(4, dtype=torch.int32, device="meta").unbind()
        with _Counted() as counted:
            score_mod(score, *places)
    return counted.ops
