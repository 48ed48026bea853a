"""Vector FLOPs of interpolation: each output element is a weighted sum of its taps, 2 FLOPs a tap less one addition.

Weights depend on positions alone and are not counted. Antialiased kernels widen by the ratio of sizes when they
shrink (Keys 1981; the support that ATen's UpSampleKernel.cpp uses: 4 taps, times the ratio if that is above 1).
"""

from __future__ import annotations

import math

import torch

from fxmeter.annotators.rules.cost import Flops
from fxmeter.annotators.rules.registry import free, per_element, rule
from fxmeter.tracer.graph.spec import Spec

aten = torch.ops.aten

_NEAREST = [
    getattr(aten, f"{name}{dimensions}d")
    for name in ("upsample_nearest", "_upsample_nearest_exact")
    for dimensions in (1, 2, 3)
]
free({packet.default: "a selection" for packet in _NEAREST}, fuses="pointwise")
per_element(
    {getattr(aten, f"{packet.__name__}_backward").default: 1 for packet in _NEAREST}, of="grad_output", fuses="scatter"
)
per_element(
    {
        aten.upsample_linear1d_backward.default: 2 * 2,
        aten.upsample_bilinear2d_backward.default: 2 * 4,
        aten.upsample_trilinear3d_backward.default: 2 * 8,
        aten.upsample_bicubic2d_backward.default: 2 * 16,
    },
    of="grad_output",
    fuses="scatter",
)


@rule(aten.upsample_linear1d.default, fuses="pointwise")
def upsample_linear1d(self: Spec, *, out: Spec) -> Flops:
    """3 per element of out: two taps"""
    return Flops(vector=3 * out.numel)


@rule(aten.upsample_bilinear2d.default, fuses="pointwise")
def upsample_bilinear2d(self: Spec, *, out: Spec) -> Flops:
    """7 per element of out: four taps"""
    return Flops(vector=7 * out.numel)


@rule(aten.upsample_trilinear3d.default, fuses="pointwise")
def upsample_trilinear3d(self: Spec, *, out: Spec) -> Flops:
    """15 per element of out: eight taps"""
    return Flops(vector=15 * out.numel)


@rule(aten.upsample_bicubic2d.default, fuses="pointwise")
def upsample_bicubic2d(self: Spec, *, out: Spec) -> Flops:
    """31 per element of out: sixteen taps"""
    return Flops(vector=31 * out.numel)


@rule(aten._upsample_bicubic2d_aa.default, fuses="pointwise")
def upsample_bicubic2d_aa(self: Spec, *, out: Spec) -> Flops:
    """two passes, along rows and then columns, of taps = 4·max(1, in/out) each: 2·taps − 1 per element of a pass"""
    return _two_passes(self, out, 4)


@rule(aten._upsample_bilinear2d_aa.default, fuses="pointwise")
def upsample_bilinear2d_aa(self: Spec, *, out: Spec) -> Flops:
    """two passes, along rows and then columns, of taps = 2·max(1, in/out) each: 2·taps − 1 per element of a pass"""
    return _two_passes(self, out, 2)


def _two_passes(self: Spec, out: Spec, support: int) -> Flops:
    *lead, height, width = self.shape
    *_, out_height, out_width = out.shape
    across, down = _taps(width, out_width, support), _taps(height, out_height, support)
    between = math.prod(lead) * height * out_width
    return Flops(vector=(2 * across - 1) * between + (2 * down - 1) * out.numel)


def _taps(size: int, out_size: int, support: int) -> int:
    return support if out_size >= size else -(-support * size // out_size)


_BILINEAR, _NEAREST_MODE, _BICUBIC = 0, 1, 2
"""``interpolation_mode`` (ATen/native/GridSamplerUtils.h)."""
_PLACES = {_BILINEAR: 2 * 5 + 4 * 3, _NEAREST_MODE: 2 * 4, _BICUBIC: 2 * (4 + 4 * 6)}
"""FLOPs per place: its coordinates (scale, shift, two to clip or round), and the weights of its taps."""
_SAMPLES = {_BILINEAR: 7, _NEAREST_MODE: 0, _BICUBIC: 31}


@rule(aten.grid_sampler_2d.default)
def grid_sampler_2d(grid: Spec, interpolation_mode: int, *, out: Spec) -> Flops:
    """7 per element of out (four taps) and 22 per place (coordinates, weights); bicubic 31 and 56, nearest 0 and 8"""
    places = grid.numel // 2
    return Flops(vector=_SAMPLES[interpolation_mode] * out.numel + _PLACES[interpolation_mode] * places)


@rule(aten.grid_sampler_2d_backward.default)
def grid_sampler_2d_backward(grad_output: Spec, grid: Spec, interpolation_mode: int, output_mask: list[bool]) -> Flops:
    """per element of grad_output and tap 2 into the input, 4 into the grid; the places again"""
    taps = {_BILINEAR: 4, _NEAREST_MODE: 1, _BICUBIC: 16}[interpolation_mode]
    to_input, to_grid = output_mask
    moved = to_grid and interpolation_mode != _NEAREST_MODE
    each = taps * (2 * to_input + 4 * moved)
    return Flops(vector=each * grad_output.numel + _PLACES[interpolation_mode] * (grid.numel // 2))


@rule(aten.grid_sampler_3d.default)
def grid_sampler_3d(grid: Spec, interpolation_mode: int, *, out: Spec) -> Flops:
    """15 per element of out (eight taps) and 42 per place (coordinates, weights); nearest 0 and 12"""
    sample, place = (0, 12) if interpolation_mode == _NEAREST_MODE else (15, 42)
    return Flops(vector=sample * out.numel + place * (grid.numel // 3))


@rule(aten.grid_sampler_3d_backward.default)
def grid_sampler_3d_backward(grad_output: Spec, grid: Spec, interpolation_mode: int, output_mask: list[bool]) -> Flops:
    """per element of grad_output and tap (eight; nearest one) 2 into the input, 8 into the grid; the places again

    Into the grid: for each of three coordinates a product with two weights, and one with the gradient; their sums.
    """
    to_input, to_grid = output_mask
    taps, place, moved = (1, 12, False) if interpolation_mode == _NEAREST_MODE else (8, 42, to_grid)
    return Flops(vector=taps * (2 * to_input + 8 * moved) * grad_output.numel + place * (grid.numel // 3))


@rule(aten.affine_grid_generator.default)
def affine_grid_generator(theta: Spec, *, out: Spec) -> Flops:
    """out[N, positions, d] = base[positions, d + 1] @ theta[N, d, d + 1]ᵀ"""
    return Flops(matmul=2 * out.numel * theta.shape[-1])


@rule(aten.col2im.default, fuses="scatter")
def col2im(self: Spec) -> Flops:
    """1 per element of self: its sum into the position that it is a copy of"""
    return Flops(vector=self.numel)


@rule(aten._upsample_bilinear2d_aa_backward.default, fuses="scatter")
def upsample_bilinear2d_aa_backward(grad_output: Spec, input_size: list[int]) -> Flops:
    """2 per tap of grad_output, taps = (2·max(1, in/out))² of both passes together"""
    return _taps_of_gradient(grad_output, input_size, 2)


@rule(aten._upsample_bicubic2d_aa_backward.default, fuses="scatter")
def upsample_bicubic2d_aa_backward(grad_output: Spec, input_size: list[int]) -> Flops:
    """2 per tap of grad_output, taps = (4·max(1, in/out))² of both passes together"""
    return _taps_of_gradient(grad_output, input_size, 4)


def _taps_of_gradient(grad_output: Spec, input_size: list[int], support: int) -> Flops:
    pairs = zip(input_size[-2:], grad_output.shape[-2:], strict=True)
    return Flops(vector=2 * grad_output.numel * math.prod(_taps(size, out, support) for size, out in pairs))
