"""Matrix products, convolutions and attention cores: 2 FLOPs per multiply-accumulate."""

from __future__ import annotations

import math
from typing import Any

import torch

from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.rules.cost import Flops, Moves, distinct_experts
from fxmeter.annotators.rules.registry import Routed, rule
from fxmeter.annotators.symbolic import Real
from fxmeter.tracer.graph.spec import Spec
from fxmeter.tracer.operators.ops import flash_attention, sparse_attention

aten = torch.ops.aten


@rule(aten.mm.default)
def mm(self: Spec, mat2: Spec, *, out: Spec) -> Flops:
    """out[M, N] = self[M, K] @ mat2[K, N]"""
    k, _ = mat2.shape
    return Flops(matmul=2 * out.numel * k)


@rule(aten.addmm.default)
def addmm(self: Spec, mat1: Spec, mat2: Spec, *, out: Spec) -> Flops:
    """out[M, N] = self + mat1[M, K] @ mat2[K, N]"""
    return mm(mat1, mat2, out=out) + Flops(vector=out.numel)


@rule(aten.bmm.default)
def bmm(self: Spec, mat2: Spec, *, out: Spec) -> Flops:
    """out[B, M, N] = self[B, M, K] @ mat2[B, K, N]"""
    _, k, _ = mat2.shape
    return Flops(matmul=2 * out.numel * k)


@rule(aten.baddbmm.default)
def baddbmm(self: Spec, batch1: Spec, batch2: Spec, *, out: Spec) -> Flops:
    """out[B, M, N] = self + batch1[B, M, K] @ batch2[B, K, N]"""
    return bmm(batch1, batch2, out=out) + Flops(vector=2 * out.numel)


@rule(aten.mv.default)
def mv(self: Spec, vec: Spec, *, out: Spec) -> Flops:
    """out[M] = self[M, K] @ vec[K]"""
    return Flops(matmul=2 * self.numel)


@rule(aten.dot.default)
def dot(self: Spec, tensor: Spec, *, out: Spec) -> Flops:
    """out = self[K] · tensor[K]"""
    return Flops(matmul=2 * self.numel)


@rule(aten.convolution.default)
def convolution(input: Spec, weight: Spec, bias: Spec | None, transposed: bool, *, out: Spec) -> Flops:
    """out[N, C_out, ...] = input[N, C_in, ...] ∗ weight[C_out, C_in/groups, kernel...] (transposed: in and out swap)"""
    _, per_group, *kernel = weight.shape
    positions = input.numel if transposed else out.numel
    added = 0 if bias is None else out.numel
    return Flops(matmul=2 * positions * per_group * math.prod(kernel), vector=added)


def _grouped_moves(self: Spec, mat2: Spec, routed: Routed | None, conventions: Conventions) -> Moves:
    experts = mat2.shape[0]
    tokens, top_k = (self.shape[0], 1) if routed is None else (routed.tokens, routed.top_k)
    touched = distinct_experts(experts, top_k, tokens, conventions.routing)
    return Moves(read={"mat2": _whole_bytes(touched * (mat2.distinct_bytes // experts))})


def _whole_bytes(value: Any) -> Any:
    """An expectation, rounded once; a sympy expression stays as it is."""
    return round(value) if isinstance(value, (int, float, Real)) else value


@rule(aten._grouped_mm.default, moves=_grouped_moves)
def grouped_mm(self: Spec, mat2: Spec, *, out: Spec) -> Flops:
    """out[M, N] = self[M, K] @ mat2[E, K, N], each row by its expert; reads the experts expected to be touched"""
    _, k, _ = mat2.shape
    return Flops(matmul=2 * out.numel * k)


def attended_pairs(s_q: Any, s_kv: Any, *, causal: bool, window: int | None) -> Any:
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


@rule(flash_attention)
def attention_core(
    query: Spec,
    key: Spec,
    value: Spec,
    bias: Spec | None,
    causal: bool,
    window: int | None,
    softcap: float | None,
    *,
    out: Spec,
    conventions: Conventions,
) -> Flops:
    """out = softmax(query[B,H,S_q,D] @ keyᵀ · scale) @ value[B,H_kv,S_kv,D_v]; per pair 6, softcap 3, bias 1

    The 6 are the scale and a softmax of 5; eager attention adds one for its mask.
    """
    batch, heads, s_q, head_dim = query.shape
    _, _, s_kv, value_dim = value.shape
    exact = conventions.causal == "exact"
    pairs = attended_pairs(s_q, s_kv, causal=causal, window=window) if exact else s_q * s_kv
    per_pair = 6 + 3 * (softcap is not None) + (bias is not None)
    return Flops(
        matmul=2 * batch * heads * pairs * (head_dim + value_dim),
        vector=per_pair * batch * heads * pairs,
    )


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
    per_pair = 6 + 3 * (softcap is not None) + (bias is not None)
    return Flops(matmul=2 * pairs * (head_dim + value.shape[-1]), vector=per_pair * pairs)
