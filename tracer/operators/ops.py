"""The operators that fxmeter adds to a graph: attention cores and a cache append.

Both run on real tensors too, so that a recorded graph can be executed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fxmeter.tracer.operators.define import operator


@operator()
def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    sinks: Tensor | None,
    scale: float,
    causal: bool,
    window: int | None,
    softcap: float | None,
    from_start: bool = False,
) -> Tensor:
    """:func:`attend` without keeping the scores."""
    batch, heads, s_q, head_dim = query.shape
    if key.shape[-1] != head_dim or key.shape[:3] != value.shape[:3] or heads % key.shape[1]:
        raise RuntimeError(
            f"attention of query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}: "
            "head sizes or head counts do not fit"
        )
    if query.is_meta:
        return query.new_empty(batch, s_q, heads, value.shape[-1])
    return attend(query, key, value, bias, sinks, scale, causal, window, softcap, from_start)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    sinks: Tensor | None,
    scale: float,
    causal: bool,
    window: int | None,
    softcap: float | None,
    from_start: bool = False,
) -> Tensor:
    """softmax(softcap(query @ keyᵀ · scale) + bias) @ value, in float32, from ops that have gradients.

    query [B, H, S_q, D], key [B, H_kv, S_kv, D], value [B, H_kv, S_kv, D_v] → [B, S_q, H, D_v]; H is a multiple
    of H_kv. The last query sees the last key, or ``from_start`` the first query the first key; with ``window`` a query
    sees that many keys, itself included. ``sinks`` [H] adds one logit per head to the softmax, which takes weight and
    returns none.
    """
    batch, heads, s_q, _ = query.shape
    s_kv = key.shape[-2]
    groups = heads // key.shape[1]
    key, value = (x.float().repeat_interleave(groups, dim=1) for x in (key, value))
    scores = query.float() @ key.transpose(-1, -2) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores.masked_fill(~bias, -math.inf) if bias.dtype == torch.bool else scores + bias
    first = 0 if from_start else s_kv - s_q
    device = query.device
    distance = torch.arange(first, first + s_q, device=device)[:, None] - torch.arange(s_kv, device=device)[None, :]
    hidden = torch.zeros_like(distance, dtype=torch.bool)
    if causal:
        hidden |= distance < 0
    if window is not None:
        hidden |= distance >= window
    scores = scores.masked_fill(hidden, -math.inf)
    if sinks is not None:
        column = sinks.float().view(1, heads, 1, 1).expand(batch, heads, s_q, 1)
        scores = torch.cat([scores, column], dim=-1)
    weights = scores.softmax(dim=-1)[..., :s_kv]
    return (weights @ value).transpose(1, 2).contiguous().to(query.dtype)


@operator()
def sparse_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    indices: Tensor,
    bias: Tensor | None,
    sinks: Tensor | None,
    scale: float,
    softcap: float | None,
) -> Tensor:
    """:func:`flash_attention` of each query with the keys that ``indices`` [B, S_q, k] picks; ``bias`` is its mask."""
    if query.is_meta:
        return query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[-1])
    picked = torch.zeros((*indices.shape[:2], key.shape[-2]), dtype=torch.bool, device=query.device)
    picked = picked.scatter(-1, indices.long(), True)[:, None]
    if bias is not None:
        picked = picked & bias if bias.dtype == torch.bool else picked & (bias == 0)
    chosen = torch.zeros(picked.shape, device=query.device).masked_fill(~picked, -math.inf)
    return flash_attention(query, key, value, chosen, sinks, scale, False, None, softcap)


@operator()
def latent_attention(
    query: Tensor,
    latents: Tensor,
    rotated: Tensor,
    indices: Tensor | None,
    bias: Tensor | None,
    sinks: Tensor | None,
    scale: float,
    causal: bool,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Attention whose values are the first part of its keys: one latent vector for each token, shared by all heads.

    query [B, H, S_q, r + d], latents [B, 1, S_kv, r], rotated [B, 1, S_kv, d] → [B, S_q, H, r]. With ``indices``
    [B, S_q, k] each query attends to those k tokens alone; ``bias`` is the mask of either. The others are as for
    :func:`attend`.
    """
    if query.is_meta:
        return query.new_empty(query.shape[0], query.shape[2], query.shape[1], latents.shape[-1])
    keys = torch.cat([latents, rotated], dim=-1)
    if indices is not None:
        return sparse_attention(query, keys, latents, indices, bias, sinks, scale, softcap)
    return flash_attention(query, keys, latents, bias, sinks, scale, causal, window, softcap)


@operator()
def flex_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float, pairs: int, per_pair: int
) -> tuple[Tensor, Tensor]:
    """``torch.nn.attention.flex_attention`` as one kernel: its output, like query, and the log-sum-exp of each query.

    The mask and the change of the scores are Python code and not in the graph: ``pairs`` counts the (query, key) pairs
    that the mask lets through, in all batches and heads, ``per_pair`` what is computed for each. It has shapes alone.
    """
    if not query.is_meta:
        raise RuntimeError("a recorded flex_attention cannot be executed: its mask is no part of the graph")
    out = query.new_empty((*query.shape[:-1], value.shape[-1]))
    return out, query.new_empty(query.shape[:-1], dtype=torch.float32)


@operator()
def cache_append(cache: Tensor | None, entries: Tensor, dim: int) -> Tensor:
    """The cache with ``entries`` behind it along ``dim``; a serving cache writes them in place."""
    return entries.clone() if cache is None else torch.cat([cache, entries], dim=dim)
