"""torch's own attention kernels, which ``scaled_dot_product_attention`` chooses from, and their gradients.

Their matmul FLOPs are those of ``torch.utils.flop_counter``: two products forward; five backward, of which one makes
the scores again (FlashAttention-2, arXiv 2307.08691, algorithms 1 and 2).
"""

from __future__ import annotations

from typing import Literal

import torch

from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.rules.cost import Flops
from fxmeter.annotators.rules.matrix.attention import attended_pairs, core, pairs_from_the_start
from fxmeter.annotators.rules.registry import rule
from fxmeter.models.stage_cost import Size
from fxmeter.tracer.graph.spec import Spec

aten = torch.ops.aten

Mask = Literal["none", "from the start", "to the end"]
"""Which keys query i sees: all, those up to i, or those up to S_kv − S_q + i."""


def gradient(pairs: Size, head_dim: Size, value_dim: Size, *, bias: object = None) -> Flops:
    """Of ``pairs`` (query, key) pairs: scores again, their gradient, and those of query, key and value.

    Vector FLOPs 6 a pair: scale, difference and exp make the weights again; difference and product with them give the
    scores' gradient, which is scaled. A bias is added again.
    """
    return Flops(matmul=2 * pairs * (3 * head_dim + 2 * value_dim), vector=(6 + (bias is not None)) * pairs)


def _row_sums(grad_out: Spec) -> Flops:
    """Σ grad_out ∘ out of each query: 2 per element."""
    return Flops(vector=2 * grad_out.numel)


def _pairs(s_q: Size, s_kv: Size, mask: Mask, conventions: Conventions, window: int | None = None) -> Size:
    if conventions.causal == "full" or mask == "none":
        return s_q * s_kv
    if mask == "from the start" and window is None:
        return pairs_from_the_start(s_q, s_kv)
    return attended_pairs(s_q, s_kv, causal=True, window=window)


def _sdpa_pairs(query: Spec, key: Spec, is_causal: bool, conventions: Conventions) -> Size:
    batch, heads, s_q, _ = query.shape
    pairs = _pairs(s_q, key.shape[2], "from the start" if is_causal else "none", conventions)
    return batch * heads * pairs


@rule(
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_flash_attention.quantized,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
)
def scaled_dot_product_flash(
    query: Spec, key: Spec, value: Spec, is_causal: bool, *, conventions: Conventions
) -> Flops:
    """out = softmax(query[B,H,S_q,D] @ keyᵀ · scale) @ value[B,H_kv,S_kv,D_v]; per pair 6"""
    return core(_sdpa_pairs(query, key, is_causal, conventions), query.shape[-1], value.shape[-1])


@rule(
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
)
def scaled_dot_product(
    query: Spec, key: Spec, value: Spec, attn_bias: Spec | None, is_causal: bool, *, conventions: Conventions
) -> Flops:
    """out = softmax(query[B,H,S_q,D] @ keyᵀ · scale + bias) @ value[B,H_kv,S_kv,D_v]; per pair 6, bias 1"""
    return core(_sdpa_pairs(query, key, is_causal, conventions), query.shape[-1], value.shape[-1], bias=attn_bias)


@rule(
    aten._scaled_dot_product_flash_attention_backward.default,
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
)
def scaled_dot_product_flash_backward(
    grad_out: Spec, query: Spec, key: Spec, value: Spec, is_causal: bool, *, conventions: Conventions
) -> Flops:
    """gradients of query, key, value: five products a pair, one of them the scores again; per pair 6"""
    pairs = _sdpa_pairs(query, key, is_causal, conventions)
    return gradient(pairs, query.shape[-1], value.shape[-1]) + _row_sums(grad_out)


@rule(aten._scaled_dot_product_cudnn_attention_backward.default)
def scaled_dot_product_cudnn_backward(
    grad_out: Spec,
    query: Spec,
    key: Spec,
    value: Spec,
    attn_bias: Spec | None,
    is_causal: bool,
    *,
    conventions: Conventions,
) -> Flops:
    """gradients of query, key, value: five products a pair, one of them the scores again; per pair 6, bias 1"""
    pairs = _sdpa_pairs(query, key, is_causal, conventions)
    return gradient(pairs, query.shape[-1], value.shape[-1], bias=attn_bias) + _row_sums(grad_out)


@rule(aten._scaled_dot_product_efficient_attention_backward.default)
def scaled_dot_product_efficient_backward(
    grad_out_: Spec,
    query: Spec,
    key: Spec,
    value: Spec,
    attn_bias: Spec | None,
    is_causal: bool,
    *,
    conventions: Conventions,
) -> Flops:
    """gradients of query, key, value: five products a pair, one of them the scores again; per pair 6, bias 1"""
    return scaled_dot_product_cudnn_backward(
        grad_out_, query, key, value, attn_bias, is_causal, conventions=conventions
    )


def _packed_pairs(
    query: Spec,
    key: Spec,
    ends: Spec | None,
    longest: tuple[Size, Size],
    mask: Mask,
    window: int | None,
    conventions: Conventions,
) -> Size:
    """Of query [B, S_q, H, D]; or where ``ends`` has where each of several sequences begins and ends, one behind
    another, of that many as long as the longest: their own lengths are data."""
    heads = query.shape[-2]
    if ends is None:
        return query.shape[0] * heads * _pairs(query.shape[1], key.shape[1], mask, conventions, window)
    return (ends.shape[0] - 1) * heads * _pairs(*longest, mask, conventions, window)


def _window(left: Size | None) -> Size | None:
    """Keys that a query sees, itself included; the kernel counts those to its left, −1 for all."""
    return None if left is None or left < 0 else left + 1


@rule(aten._flash_attention_forward.default, aten._flash_attention_forward.quantized)
def flash_forward(
    query: Spec,
    key: Spec,
    value: Spec,
    cum_seq_q: Spec | None,
    max_q: int,
    max_k: int,
    is_causal: bool,
    window_size_left: int | None,
    *,
    conventions: Conventions,
) -> Flops:
    """out = softmax(query[B,S_q,H,D] @ keyᵀ · scale) @ value, or of sequences one behind another; per pair 6"""
    mask: Mask = "to the end" if is_causal else "none"
    pairs = _packed_pairs(query, key, cum_seq_q, (max_q, max_k), mask, _window(window_size_left), conventions)
    return core(pairs, query.shape[-1], value.shape[-1])


@rule(aten._flash_attention_backward.default)
def flash_backward(
    grad_out: Spec,
    query: Spec,
    key: Spec,
    value: Spec,
    cum_seq_q: Spec | None,
    max_q: int,
    max_k: int,
    is_causal: bool,
    window_size_left: int | None,
    *,
    conventions: Conventions,
) -> Flops:
    """gradients of query, key, value: five products a pair, one of them the scores again; per pair 6"""
    mask: Mask = "to the end" if is_causal else "none"
    pairs = _packed_pairs(query, key, cum_seq_q, (max_q, max_k), mask, _window(window_size_left), conventions)
    return gradient(pairs, query.shape[-1], value.shape[-1]) + _row_sums(grad_out)


_MASK_TYPES: tuple[Mask, ...] = ("none", "from the start", "to the end")
"""``custom_mask_type`` of the memory-efficient kernel (ATen/native/transformers/cuda/mem_eff_attention)."""


@rule(aten._efficient_attention_forward.default)
def efficient_forward(
    query: Spec,
    key: Spec,
    value: Spec,
    bias: Spec | None,
    cu_seqlens_q: Spec | None,
    max_seqlen_q: int,
    max_seqlen_k: int,
    custom_mask_type: int,
    window_size: int | None,
    *,
    conventions: Conventions,
) -> Flops:
    """out = softmax(query[B,S_q,H,D] @ keyᵀ · scale + bias) @ value, or of sequences one behind another; per pair 6"""
    mask, longest = _MASK_TYPES[custom_mask_type], (max_seqlen_q, max_seqlen_k)
    pairs = _packed_pairs(query, key, cu_seqlens_q, longest, mask, window_size, conventions)
    return core(pairs, query.shape[-1], value.shape[-1], bias=bias)


@rule(aten._efficient_attention_backward.default)
def efficient_backward(
    grad_out_: Spec,
    query: Spec,
    key: Spec,
    value: Spec,
    bias: Spec | None,
    cu_seqlens_q: Spec | None,
    max_seqlen_q: int,
    max_seqlen_k: int,
    custom_mask_type: int,
    window_size: int | None,
    *,
    conventions: Conventions,
) -> Flops:
    """gradients of query, key, value: five products a pair, one of them the scores again; per pair 6, bias 1"""
    mask, longest = _MASK_TYPES[custom_mask_type], (max_seqlen_q, max_seqlen_k)
    pairs = _packed_pairs(query, key, cu_seqlens_q, longest, mask, window_size, conventions)
    return gradient(pairs, query.shape[-1], value.shape[-1], bias=bias) + _row_sums(grad_out_)
