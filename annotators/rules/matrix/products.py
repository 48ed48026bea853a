"""Matrix products: 2 FLOPs per multiply-accumulate."""

from __future__ import annotations

import math

import torch

from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.rules.cost import Flops, Moves, distinct_experts
from fxmeter.annotators.rules.registry import Routed, rule
from fxmeter.annotators.symbolic import Real
from fxmeter.models.stage_cost import Size
from fxmeter.tracer.graph.spec import Spec

aten = torch.ops.aten


@rule(aten.mm.default, aten.mm.dtype)
def mm(self: Spec, mat2: Spec, *, out: Spec) -> Flops:
    """out[M, N] = self[M, K] @ mat2[K, N]"""
    k, _ = mat2.shape
    return Flops(matmul=2 * out.numel * k)


@rule(aten.addmm.default, aten.addmm.dtype, aten.addmm_.default)
def addmm(self: Spec, mat1: Spec, mat2: Spec, *, out: Spec) -> Flops:
    """out[M, N] = self + mat1[M, K] @ mat2[K, N]"""
    return mm(mat1, mat2, out=out) + Flops(vector=out.numel)


@rule(aten.bmm.default, aten.bmm.dtype)
def bmm(self: Spec, mat2: Spec, *, out: Spec) -> Flops:
    """out[B, M, N] = self[B, M, K] @ mat2[B, K, N]"""
    _, k, _ = mat2.shape
    return Flops(matmul=2 * out.numel * k)


@rule(aten.baddbmm.default, aten.baddbmm.dtype, aten.baddbmm_.default)
def baddbmm(self: Spec, batch1: Spec, batch2: Spec, *, out: Spec) -> Flops:
    """out[B, M, N] = self + batch1[B, M, K] @ batch2[B, K, N]"""
    return bmm(batch1, batch2, out=out) + Flops(vector=2 * out.numel)


@rule(aten.addbmm.default, aten.addbmm_.default)
def addbmm(self: Spec, batch1: Spec, batch2: Spec, *, out: Spec) -> Flops:
    """out[M, N] = self + Σ_b batch1[B, M, K] @ batch2[B, K, N]"""
    return Flops(matmul=2 * batch1.numel * batch2.shape[-1], vector=out.numel)


@rule(aten._scaled_mm.default)
def scaled_mm(self: Spec, mat2: Spec, scale_a: Spec, scale_b: Spec, bias: Spec | None, *, out: Spec) -> Flops:
    """out[M, N] = (self[M, K] · scale_a) @ (mat2[K, N] · scale_b) + bias; scales 1 per element of out each

    Scales of whole tensors are multiplied with one another first. Those of blocks along K count as those of rows.
    """
    scales = 2 if max(scale_a.numel, scale_b.numel) > 1 else 1
    return mm(self, mat2, out=out) + Flops(vector=(scales + (bias is not None)) * out.numel)


@rule(aten._int_mm.default)
def int_mm(self: Spec, mat2: Spec, *, out: Spec) -> Flops:
    """out[M, N] = self[M, K] @ mat2[K, N], of integers: 2 operations per multiply-accumulate, as if they were FLOPs"""
    return mm(self, mat2, out=out)


@rule(aten._weight_int8pack_mm.default)
def weight_int8pack_mm(self: Spec, *, out: Spec) -> Flops:
    """out[M, N] = (self[M, K] @ mat2[N, K]ᵀ) · scales[N], of weights in eight bits"""
    return Flops(matmul=2 * out.numel * self.shape[-1], vector=out.numel)


@rule(aten._weight_int4pack_mm.default, aten._weight_int4pack_mm_for_cpu.default)
def weight_int4pack_mm(self: Spec, *, out: Spec) -> Flops:
    """out[M, N] = self[M, K] @ mat2[N, K]ᵀ, of weights in four bits, widened inside of the product"""
    return Flops(matmul=2 * out.numel * self.shape[-1])


@rule(aten._addmm_activation.default)
def addmm_activation(self: Spec, mat1: Spec, mat2: Spec, use_gelu: bool, *, out: Spec) -> Flops:
    """addmm, and 1 per element of out for relu, 9 for gelu (by tanh)"""
    return addmm(self, mat1, mat2, out=out) + Flops(vector=(9 if use_gelu else 1) * out.numel)


@rule(aten.mv.default)
def mv(self: Spec, vec: Spec, *, out: Spec) -> Flops:
    """out[M] = self[M, K] @ vec[K]"""
    return Flops(matmul=2 * self.numel)


@rule(aten.addmv.default, aten.addmv_.default)
def addmv(self: Spec, mat: Spec, vec: Spec, *, out: Spec) -> Flops:
    """out[M] = self + mat[M, K] @ vec[K]"""
    return mv(mat, vec, out=out) + Flops(vector=out.numel)


@rule(aten.dot.default, aten.vdot.default)
def dot(self: Spec, *, out: Spec) -> Flops:
    """out = self[K] · tensor[K]"""
    return Flops(matmul=2 * self.numel)


@rule(aten._trilinear.default)
def trilinear(
    i1: Spec, i2: Spec, i3: Spec, expand1: list[int], expand2: list[int], expand3: list[int], sumdim: list[int]
) -> Flops:
    """out = Σ i1 ∘ i2 ∘ i3, missing dimensions inserted: i1 with i2, summed over what i3 lacks; then with i3

    As ATen executes it (ATen/native/Linear.cpp), two batched products. ``nn.Bilinear`` is one:
    2·N·out·in1·in2, then 2·N·out·in2.
    """
    shapes = [_inserted(spec.shape, expand) for spec, expand in ((i1, expand1), (i2, expand2), (i3, expand3))]
    sizes = [next((shape[d] for shape in shapes if shape[d] != 1), 1) for d in range(len(shapes[0]))]
    first = [d for d in range(len(sizes)) if d not in expand1 or d not in expand2]
    second = [d for d in range(len(sizes)) if not (d in sumdim and d in expand3)]
    return Flops(matmul=2 * math.prod(sizes[d] for d in first) + 2 * math.prod(sizes[d] for d in second))


def _inserted(shape: tuple[Size, ...], places: list[int]) -> list[Size]:
    """A shape with a 1 in each of ``places``."""
    sizes = list(shape)
    for place in sorted(places):
        sizes.insert(place, 1)
    return sizes


def _grouped_moves(self: Spec, mat2: Spec, routed: Routed | None, conventions: Conventions) -> Moves:
    """One operand has a matrix of each expert: of it those are read that are expected to be touched."""
    if len(self.shape) == len(mat2.shape):
        return Moves()
    name, experts, rows = ("mat2", mat2, self.shape[0]) if len(mat2.shape) == 3 else ("self", self, mat2.shape[1])
    count = experts.shape[0]
    tokens, top_k = (rows, 1) if routed is None else (routed.tokens, routed.top_k)
    touched = distinct_experts(count, top_k, tokens, conventions.routing)
    return Moves(read={name: _whole_bytes(touched * (experts.distinct_bytes // count))})


def _whole_bytes(value: Size) -> Size:
    """An expectation, rounded once; a sympy expression stays as it is."""
    return round(value) if isinstance(value, (int, float, Real)) else value


@rule(aten._grouped_mm.default, moves=_grouped_moves)
def grouped_mm(self: Spec, mat2: Spec, *, out: Spec) -> Flops:
    """out[M, N] = self[M, K] @ mat2[E, K, N], each row by its expert; reads the experts expected to be touched

    Its gradients: out[M, N] = self[E, M, K] @ mat2[K, N], each column by its expert, and out[E, M, N] = self[M, K] @
    mat2[K, N], each expert from its part of K.
    """
    inner = self.shape[-1]
    if len(self.shape) == len(mat2.shape) == 2:
        return Flops(matmul=2 * self.numel * mat2.shape[-1])
    return Flops(matmul=2 * out.numel * inner)
