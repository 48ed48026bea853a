"""Control flow that torch keeps as an op: ``cond``, ``while_loop``, ``scan`` and the like, as the ops that they run.

A branch whose predicate is known is taken. Where weights decide, the larger branch is: the one with more FLOPs in
products by torch's own counter, or of two alike the one that makes more elements. A loop runs as often as its condition
says where that is known, and once where it is not. Either way the recording says so. A scan runs as many steps as its
input is long.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from fxmeter.models.errors import TraceError
from fxmeter.models.names import Kwargs
from fxmeter.tracer.graph.values import Args, Function
from fxmeter.tracer.operators.ops import flash_attention
from fxmeter.tracer.private import (
    HigherOrderOperator,
    TorchDispatchMode,
    is_composite,
    plain_form,
    pytree,
    scan_step_by_step,
    without_modes,
)


class Watcher(Protocol):
    """Who records what control flow runs."""

    def holds(self, predicate: Tensor) -> bool | None:
        """Whether a predicate does; None where it depends on data."""

    def assume(self, text: str) -> None:
        """Something had to be taken for granted, in words."""

    def aside(self) -> AbstractContextManager[None]:
        """Inside the block no module call is recorded."""


def run_higher_order(op: HigherOrderOperator, args: Sequence[Any], kwargs: Any, watcher: Watcher) -> Any:
    """What ``op`` returns, run by the ops that it is made of."""
    name = op.name()
    if name == "cond":
        return _cond(*args, watcher=watcher)
    if name == "while_loop":
        return _while_loop(*args[:4], watcher=watcher)
    if name == "scan":
        return scan_step_by_step(*args[:3], additional_inputs=args[3])
    plain = plain_form(op)
    if plain is None:
        raise TraceError(f"torch's higher-order operator {name} has no plain form of ops that could be priced")
    return plain(*args, **kwargs)


def _cond(predicate: Any, true_fn: Any, false_fn: Any, operands: Any, *, watcher: Watcher) -> Any:
    truth = watcher.holds(predicate) if isinstance(predicate, Tensor) else bool(predicate)
    if truth is None:
        with watcher.aside():
            work = [_work(branch, operands) for branch in (true_fn, false_fn)]
        truth = work[0] >= work[1]
        flops = f"{max(work)[0]:,} matmul FLOPs against {min(work)[0]:,}"
        branch = "true" if truth else "false"
        watcher.assume(f"a torch.cond that depends on data takes its larger branch, the {branch} one: {flops}")
    return (true_fn if truth else false_fn)(*operands)


def _while_loop(
    cond_fn: Any, body_fn: Any, carried: Sequence[Any], additional: Sequence[Any], *, watcher: Watcher
) -> Args:
    steps = 0
    while True:
        going = cond_fn(*carried, *additional)
        known = watcher.holds(going) if isinstance(going, Tensor) else bool(going)
        if known is None:
            watcher.assume(f"a while_loop that depends on data ends after step {max(steps, 1)}")
            return tuple(carried) if steps else tuple(body_fn(*carried, *additional))
        if not known:
            break
        carried = body_fn(*carried, *additional)
        steps += 1
    if steps:
        return tuple(carried)
    return tuple(value.clone() if isinstance(value, Tensor) else value for value in carried)


class _Work(TorchDispatchMode):
    """FLOPs in products, and elements made, of what runs inside the block."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.elements = 0

    def holds(self, predicate: Tensor) -> bool | None:
        """Nothing is known aside."""
        return None

    def assume(self, text: str) -> None:
        """What is assumed aside is said where it is recorded."""

    def aside(self) -> AbstractContextManager[None]:
        """Nothing is recorded anyway."""
        return nullcontext()

    def __torch_dispatch__(self, func: Any, types: Args, args: Args = (), kwargs: Kwargs | None = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            with self:
                return run_higher_order(func, args, kwargs, self)
        if is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        with without_modes():  # whoever records would see it otherwise
            out = func(*args, **kwargs)
        if func is flash_attention:
            self.flops += sdpa_flop_count(*(tensor.shape for tensor in args[:3]))
        elif (count := flop_registry.get(func.overloadpacket)) is not None:
            self.flops += count(*args, **kwargs, out_val=out)
        self.elements += sum(leaf.numel() for leaf in pytree.tree_leaves(out) if isinstance(leaf, Tensor))
        return out


def _work(function: Function, operands: Sequence[Any]) -> tuple[int, int]:
    with torch.no_grad(), _Work() as work:
        function(*operands)
    return work.flops, work.elements
