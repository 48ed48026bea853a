"""Experts that run on the tokens that chose them, where a model's own code runs every expert on every token.

Such code hands its experts E·T rows, each token scaled by its score for each expert, and the scores of experts that a
token did not choose are 0. An engine gathers the k·T rows that were chosen and runs a grouped product. Inside
:func:`choosing` the router hands on the scores of the chosen alone, [T, k] in place of [T, E], so that the model's own
code makes k·T rows of them, and the experts run each row through the expert that it is for. A row of zeros leaves an
expert without biases as zeros, so the sums are the same.

The pattern: a module with a ``router`` that has a ``top_k``, and with ``experts`` whose ``forward`` is told of no
choice and which have weights [E, in, 2·n] and [E, n, out] for a gated product. No model is known by name.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from fxmeter.tracer.graph.values import Function
from fxmeter.tracer.private import grouped_mm
from fxmeter.tracer.state.tree import derived, walk

_chosen: ContextVar[Tensor | None] = ContextVar("chosen experts", default=None)
"""[T, k]: the experts of each token, from the router that ran last to the experts beside it."""


@contextmanager
def choosing(model: nn.Module) -> Iterator[None]:
    """Inside the block experts of ``model`` see the tokens that chose them; its classes are as before afterwards."""
    changed: list[tuple[Any, Function]] = []
    try:
        for router, experts in derived(model, _all_run):
            changed += [(router, router.forward), (experts, experts.forward)]
            router.forward, experts.forward = _handing_on(router.forward), _by_expert(experts.forward)
        yield
    finally:
        for cls, own in changed:
            cls.forward = own


def runs_all_experts(model: nn.Module) -> bool:
    """Whether ``model`` has experts that its own code runs on every token."""
    return bool(derived(model, _all_run))


def _all_run(model: nn.Module) -> tuple[tuple[Any, Any], ...]:
    """(class of the router, class of the experts) of each kind of mixture that is written so."""
    found: dict[tuple[Any, Any], None] = {}
    for _, module in walk(model):
        router: Any = getattr(module, "router", None)
        experts: Any = getattr(module, "experts", None)
        weights = (getattr(experts, name, None) for name in ("gate_up_proj", "down_proj"))
        stacked = all(isinstance(weight, nn.Parameter) and weight.dim() == 3 for weight in weights)
        if stacked and hasattr(router, "top_k") and len(inspect.signature(type(experts).forward).parameters) == 2:
            found[type(router), type(experts)] = None
    return tuple(found)


def _handing_on(own: Function) -> Function:
    @functools.wraps(own)
    def forward(self: Any, hidden: Tensor) -> Any:
        scores, *rest = own(self, hidden)
        values, indices = scores.topk(self.top_k, dim=-1)
        _chosen.set(indices)
        return values, *rest

    return forward


def _by_expert(own: Function) -> Function:
    @functools.wraps(own)
    def forward(self: Any, rows: Tensor) -> Tensor:
        """Rows [k·T, in], of all tokens for their first choice, then for their second, ... → [k·T, out]."""
        indices = _chosen.get()
        if indices is None:
            raise RuntimeError(f"{type(self).__name__} ran before its router")
        _chosen.set(None)
        number = self.gate_up_proj.shape[0]
        chosen, order = torch.sort(indices.t().reshape(-1))
        rows_each = torch.histc(chosen.float(), bins=number, min=0, max=number - 1)
        ends = torch.cumsum(rows_each, dim=0, dtype=torch.int32)
        gate, up = grouped_mm(rows[order], self.gate_up_proj, ends).chunk(2, dim=-1)
        out = grouped_mm(up * self.act_fn(gate), self.down_proj, ends)
        back = torch.empty_like(order)
        back[order] = torch.arange(order.shape[0], device=order.device)
        return out[back]

    return forward
