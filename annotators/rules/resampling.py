"""Vector FLOPs of interpolation: each output element is a weighted sum of its taps, 2 FLOPs a tap less one addition.

Weights depend on positions alone and are not counted. Antialiased kernels widen by the ratio of sizes when they
shrink (Keys 1981; the support that ATen's UpSampleKernel.cpp uses: 4 taps, times the ratio if that is above 1).
"""

from __future__ import annotations

import math

import torch

from fxmeter.annotators.rules.cost import Flops
from fxmeter.annotators.rules.registry import free, rule
from fxmeter.tracer.graph.spec import Spec

aten = torch.ops.aten

free(
    dict.fromkeys([aten.upsample_nearest1d.default, aten.upsample_nearest2d.default], "a selection"), fuses="pointwise"
)


@rule(aten.upsample_linear1d.default, fuses="pointwise")
def upsample_linear1d(self: Spec, *, out: Spec) -> Flops:
    """3 per element of out: two taps"""
    return Flops(vector=3 * out.numel)


@rule(aten.upsample_bilinear2d.default, fuses="pointwise")
def upsample_bilinear2d(self: Spec, *, out: Spec) -> Flops:
    """7 per element of out: four taps"""
    return Flops(vector=7 * out.numel)


@rule(aten.upsample_bicubic2d.default, fuses="pointwise")
def upsample_bicubic2d(self: Spec, *, out: Spec) -> Flops:
    """31 per element of out: sixteen taps"""
    return Flops(vector=31 * out.numel)


@rule(aten._upsample_bicubic2d_aa.default, fuses="pointwise")
def upsample_bicubic2d_aa(self: Spec, *, out: Spec) -> Flops:
    """two passes, along rows and then columns, of taps = 4·max(1, in/out) each: 2·taps − 1 per element of a pass"""
    *lead, height, width = self.shape
    *_, out_height, out_width = out.shape
    between = math.prod(lead) * height * out_width
    return Flops(vector=(2 * _taps(width, out_width) - 1) * between + (2 * _taps(height, out_height) - 1) * out.numel)


def _taps(size: int, out_size: int) -> int:
    return 4 if out_size >= size else -(-4 * size // out_size)
