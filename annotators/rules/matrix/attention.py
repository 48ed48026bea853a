"""Fused attention cores, flash among them: two products over (query, key) pairs, and a softmax.

These price the operators of :mod:`fxmeter.tracer.operators.ops`, one node for each layer. Eager attention is priced by
its products (:mod:`fxmeter.annotators.rules.matrix.products`) and softmax, torch's own kernels in
:mod:`fxmeter.annotators.rules.matrix.torch_attention`.
"""

from __future__ import annotations

from collections.abc import Sequence

from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.rules.cost import Flops, Moves
from fxmeter.annotators.rules.registry import rule
from fxmeter.models.stage_cost import Size
from fxmeter.tracer.graph.spec import Spec
from fxmeter.tracer.operators.ops import flash_attention, flex_attention, latent_attention, sparse_attention


def attended_pairs(s_q: Size, s_kv: Size, *, causal: bool, window: int | None) -> Size:
    """(query, key) pairs that a causal mask, and a window if there is one, let through.

    Query i of S_q sits at position S_kv − S_q + i: it sees one key more than that, at most ``window``. The first
    ``growing`` queries see S_kv − S_q + 1, + 2, ... keys; the others a full window.
    """
    if not causal:
        return s_q * (s_kv if window is None else min(window, s_kv))
    past = s_kv - s_q
    growing = s_q if window is None else max(0, min(s_q, window - past))
    full = 0 if window is None else (s_q - growing) * window
    return growing * past + growing * (growing + 1) // 2 + full


def pairs_from_the_start(s_q: Size, s_kv: Size) -> Size:
    """(query, key) pairs under the causal mask of ``scaled_dot_product_attention``: query i sees keys 0 to i."""
    seeing_more = min(s_q, s_kv)
    return seeing_more * (seeing_more + 1) // 2 + (s_q - seeing_more) * s_kv


def core(pairs: Size, head_dim: Size, value_dim: Size, *, softcap: object = None, bias: object = None) -> Flops:
    """Of ``pairs`` (query, key) pairs: scores and weighted values; vector FLOPs 6 a pair, softcap 3, bias 1.

    The 6 are the scale and a softmax of 5; eager attention adds one for its mask.
    """
    per_pair = 6 + 3 * (softcap is not None) + (bias is not None)
    return Flops(matmul=2 * pairs * (head_dim + value_dim), vector=per_pair * pairs)


@rule(flash_attention)
def attention_core(
    query: Spec,
    key: Spec,
    value: Spec,
    bias: Spec | None,
    causal: bool,
    window: int | None,
    softcap: float | None,
    from_start: bool,
    *,
    out: Spec,
    conventions: Conventions,
) -> Flops:
    """out = softmax(query[B,H,S_q,D] @ keyᵀ · scale) @ value[B,H_kv,S_kv,D_v]; per pair 6, softcap 3, bias 1"""
    batch, heads, s_q, head_dim = query.shape
    _, _, s_kv, value_dim = value.shape
    if conventions.causal == "full":
        pairs = s_q * s_kv
    elif causal and from_start:
        pairs = pairs_from_the_start(s_q, s_kv)
    else:
        pairs = attended_pairs(s_q, s_kv, causal=causal, window=window)
    return core(batch * heads * pairs, head_dim, value_dim, softcap=softcap, bias=bias)


@rule(flex_attention)
def flex_core(
    query: Spec, key: Spec, value: Spec, pairs: int, per_pair: int, *, out: Sequence[Spec], conventions: Conventions
) -> Flops:
    """out = softmax(mod(query[B,H,S_q,D] @ keyᵀ · scale)) @ value; per pair 6, and 1 for each op of the score's mod

    FlexAttention, arXiv 2412.05496. With causal="exact" the pairs that the mask lets through.
    """
    batch, heads, s_q, head_dim = query.shape
    counted = pairs if conventions.causal == "exact" else batch * heads * s_q * key.shape[2]
    return core(counted, head_dim, value.shape[-1]) + Flops(vector=per_pair * counted)


def _picked_moves(query: Spec, key: Spec, value: Spec, indices: Spec) -> Moves:
    """Each sequence reads the entries that its queries pick: at most all of them."""
    s_q, s_kv = query.shape[2], key.shape[2]
    picked = min(s_kv, s_q * indices.shape[-1])
    return Moves(read={"key": key.distinct_bytes * picked // s_kv, "value": value.distinct_bytes * picked // s_kv})


@rule(sparse_attention, moves=_picked_moves)
def sparse_core(
    query: Spec, value: Spec, indices: Spec, bias: Spec | None, softcap: float | None, *, out: Spec
) -> Flops:
    """out = softmax(query[B,H,S_q,D] @ keyᵀ · scale) @ value over the k keys of indices[B,S_q,k]; per pair as a core

    Deepseek sparse attention (DeepSeek-V3.2-Exp report, 2025): k pairs for each query, whatever the context.
    """
    batch, heads, s_q, head_dim = query.shape
    pairs = batch * heads * s_q * indices.shape[-1]
    return core(pairs, head_dim, value.shape[-1], softcap=softcap, bias=bias)


def _latent_moves(query: Spec, latents: Spec, rotated: Spec, indices: Spec | None) -> Moves:
    """Keys and values are one vector, read once for all heads; with indices, the tokens that queries pick."""
    if indices is None:
        return Moves()
    s_q, s_kv = query.shape[2], latents.shape[2]
    picked = min(s_kv, s_q * indices.shape[-1])
    parts = {"latents": latents, "rotated": rotated}
    return Moves(read={name: spec.distinct_bytes * picked // s_kv for name, spec in parts.items()})


@rule(latent_attention, moves=_latent_moves)
def latent_core(
    query: Spec,
    latents: Spec,
    indices: Spec | None,
    bias: Spec | None,
    causal: bool,
    window: int | None,
    softcap: float | None,
    *,
    out: Spec,
    conventions: Conventions,
) -> Flops:
    """out = softmax(query[B,H,S_q,r+d] @ [latents, rotated]ᵀ · scale) @ latents[B,1,S_kv,r]; per pair as a core

    DeepSeek-V2 (arXiv:2405.04434), section 2.1.2: the projections to keys and values absorbed into query and output.
    """
    batch, heads, s_q, head_dim = query.shape
    _, _, s_kv, rank = latents.shape
    pairs = s_q * s_kv
    if indices is not None:
        pairs = s_q * indices.shape[-1]
    elif conventions.causal == "exact":
        pairs = attended_pairs(s_q, s_kv, causal=causal, window=window)
    return core(batch * heads * pairs, head_dim, rank, softcap=softcap, bias=bias)
