"""What a serving engine runs in place of a model's own code: latent attention with its projections absorbed.

A latent cache keeps one vector for each token; transformers expands it to keys and values of every head at each step.
An engine multiplies the query by the key's half of that projection instead, attends to the latents themselves, and
multiplies what comes out by the value's half: (q W_UKᵀ) · c = q · (W_UK c), so the logits are the same
(DeepSeek-V2, arXiv:2405.04434, section 2.1.2). For one new token that is far less work, for a whole prompt more.

The mechanism is the method ``expand_kv(latents, rotated)`` of transformers' attention classes with a ``kv_b_proj``:
inside :func:`absorbing` it hands both on as they are, and the attention core projects. No model is known by name.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from fxmeter.tracer.graph.values import Args, Function
from fxmeter.tracer.operators.ops import latent_attention
from fxmeter.tracer.private import local_part
from fxmeter.tracer.state.tree import derived, walk

Latents = tuple[Tensor, Tensor]
_handed_on: ContextVar[dict[int, Latents] | None] = ContextVar("latents", default=None)
"""Module → latents [B, 1, S_kv, r] and rotated keys [B, 1, S_kv, d] that its core has not attended to yet."""


@contextmanager
def absorbing(model: nn.Module) -> Iterator[None]:
    """Inside the block latent attention of ``model`` attends to the latents; its classes are as before afterwards."""
    changed: list[tuple[Any, Function]] = []
    token = _handed_on.set({})
    try:
        for cls in derived(model, _latent_classes):
            changed.append((cls, cls.expand_kv))
            cls.expand_kv = _handing_on(cls.expand_kv)
        yield
    finally:
        for cls, own in changed:
            cls.expand_kv = own
        _handed_on.reset(token)


def has_latent_attention(model: nn.Module) -> bool:
    """Whether ``model`` has attention that can be absorbed."""
    return bool(derived(model, _latent_classes))


def _latent_classes(model: nn.Module) -> Args:
    classes = (type(module) for _, module in walk(model) if hasattr(module, "kv_b_proj"))
    return tuple(dict.fromkeys(cls for cls in classes if hasattr(cls, "expand_kv")))


def _handing_on(own: Function) -> Function:
    @functools.wraps(own)
    def expand_kv(self: nn.Module, latents: Tensor, rotated: Tensor) -> Latents:
        waiting = _handed_on.get()
        if waiting is None:
            expanded: Latents = own(self, latents, rotated)
            return expanded
        waiting[id(self)] = latents, rotated
        return latents, latents

    return expand_kv


def latents_of(module: nn.Module) -> Latents | None:
    """What ``module`` has handed on to its core, once; None where it expanded keys and values itself."""
    waiting = _handed_on.get()
    return None if waiting is None else waiting.pop(id(module), None)


def absorbed_attention(
    module: Any,
    query: Tensor,
    latents: Latents,
    *,
    scale: float,
    causal: bool,
    indices: Tensor | None,
    bias: Tensor | None,
    sinks: Tensor | None,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Attention of query [B, H, S_q, n + d] to latents [B, 1, S_kv, r] and rotated keys [B, 1, S_kv, d].

    What it is told beside them is as for :func:`fxmeter.tracer.operators.ops.latent_attention`.
    ``module.kv_b_proj`` has weights [H (n + v), r]. Returns [B, S_q, H, v].
    """
    latent, rotated = latents
    rank, kept = latent.shape[-1], query.shape[-1] - rotated.shape[-1]
    projection = local_part(module.kv_b_proj.weight).view(query.shape[1], -1, rank)
    absorbed = torch.einsum("bhsn,hnr->bhsr", query[..., :kept], projection[:, :kept])
    query = torch.cat([absorbed, query[..., kept:]], dim=-1)
    out = latent_attention(query, latent, rotated, indices, bias, sinks, scale, causal, window, softcap)
    return torch.einsum("bshr,hvr->bshv", out, projection[:, kept:]).contiguous()
