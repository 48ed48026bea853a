"""Vector FLOPs of pooling and of its gradients: a reduction over each window, 1 per element that it looks at.

Windows are counted whole: where one reaches into the padding a kernel looks at as many positions, or at a few less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from fxmeter.annotators.rules.cost import Flops, Moves
from fxmeter.annotators.rules.registry import first, free, rule
from fxmeter.models.stage_cost import Size
from fxmeter.tracer.graph.spec import Spec

aten = torch.ops.aten


def _window(kernel_size: Sequence[int], dimensions: int) -> int:
    """Elements of a window; one number stands for all of its sides."""
    sides = list(kernel_size)
    return math.prod(sides if len(sides) == dimensions else sides * dimensions)


@rule(aten.max_pool2d_with_indices.default)
def max_pool2d_with_indices(kernel_size: list[int], *, out: Sequence[Spec]) -> Flops:
    """1 per element of each window (max)"""
    return Flops(vector=_window(kernel_size, 2) * first(out).numel)


@rule(aten.max_pool3d_with_indices.default)
def max_pool3d_with_indices(kernel_size: list[int], *, out: Sequence[Spec]) -> Flops:
    """1 per element of each window (max)"""
    return Flops(vector=_window(kernel_size, 3) * first(out).numel)


@rule(aten.avg_pool2d.default)
def avg_pool2d(kernel_size: list[int], *, out: Spec) -> Flops:
    """1 per element of each window (sum) and 1 per element of out (quotient)"""
    return Flops(vector=(_window(kernel_size, 2) + 1) * out.numel)


@rule(aten.avg_pool3d.default)
def avg_pool3d(kernel_size: list[int], *, out: Spec) -> Flops:
    """1 per element of each window (sum) and 1 per element of out (quotient)"""
    return Flops(vector=(_window(kernel_size, 3) + 1) * out.numel)


def _adaptive(input: Spec, out: Spec, dimensions: int) -> Size:
    """Elements of all windows: that of output i goes from ⌊i·in/out⌋ to ⌈(i + 1)·in/out⌉ in each dimension."""
    total = math.prod(input.shape[:-dimensions])
    for size, count in zip(input.shape[-dimensions:], out.shape[-dimensions:], strict=True):
        total *= size if count == 1 else sum(-(-(i + 1) * size // count) - i * size // count for i in range(count))
    return total


@rule(aten._adaptive_avg_pool2d.default)
def adaptive_avg_pool2d(self: Spec, *, out: Spec) -> Flops:
    """1 per element of each window (sum) and 1 per element of out (quotient)"""
    return Flops(vector=_adaptive(self, out, 2) + out.numel)


@rule(aten._adaptive_avg_pool3d.default)
def adaptive_avg_pool3d(self: Spec, *, out: Spec) -> Flops:
    """1 per element of each window (sum) and 1 per element of out (quotient)"""
    return Flops(vector=_adaptive(self, out, 3) + out.numel)


@rule(aten.adaptive_max_pool2d.default)
def adaptive_max_pool2d(self: Spec, *, out: Sequence[Spec]) -> Flops:
    """1 per element of each window (max)"""
    return Flops(vector=_adaptive(self, first(out), 2))


@rule(aten.adaptive_max_pool3d.default)
def adaptive_max_pool3d(self: Spec, *, out: Sequence[Spec]) -> Flops:
    """1 per element of each window (max)"""
    return Flops(vector=_adaptive(self, first(out), 3))


@rule(aten.fractional_max_pool2d.default)
def fractional_max_pool2d(kernel_size: list[int], *, out: Sequence[Spec]) -> Flops:
    """1 per element of each window (max)"""
    return Flops(vector=_window(kernel_size, 2) * first(out).numel)


@rule(aten.fractional_max_pool3d.default)
def fractional_max_pool3d(kernel_size: list[int], *, out: Sequence[Spec]) -> Flops:
    """1 per element of each window (max)"""
    return Flops(vector=_window(kernel_size, 3) * first(out).numel)


free(
    dict.fromkeys([aten.max_unpool2d.default, aten.max_unpool3d.default], "puts what a max pooling kept in its place"),
    fuses="scatter",
)


def _shape_only(self: Spec) -> Moves:
    """Of what was pooled the gradient takes the shape."""
    return Moves(read={"self": 0})


@rule(
    aten.max_pool2d_with_indices_backward.default,
    aten.max_pool3d_with_indices_backward.default,
    aten.adaptive_max_pool2d_backward.default,
    aten.adaptive_max_pool3d_backward.default,
    aten.fractional_max_pool2d_backward.default,
    aten.fractional_max_pool3d_backward.default,
    fuses="scatter",
    moves=_shape_only,
)
def max_pool_backward(grad_output: Spec) -> Flops:
    """1 per element of grad_output (a sum, where windows overlap)"""
    return Flops(vector=grad_output.numel)


@rule(aten.avg_pool2d_backward.default, moves=_shape_only)
def avg_pool2d_backward(grad_output: Spec, kernel_size: list[int]) -> Flops:
    """1 per element of each window (sum) and 1 per element of grad_output (quotient)"""
    return Flops(vector=(_window(kernel_size, 2) + 1) * grad_output.numel)


@rule(aten.avg_pool3d_backward.default, moves=_shape_only)
def avg_pool3d_backward(grad_output: Spec, kernel_size: list[int]) -> Flops:
    """1 per element of each window (sum) and 1 per element of grad_output (quotient)"""
    return Flops(vector=(_window(kernel_size, 3) + 1) * grad_output.numel)


@rule(aten._adaptive_avg_pool2d_backward.default, moves=_shape_only)
def adaptive_avg_pool2d_backward(grad_output: Spec, self: Spec) -> Flops:
    """1 per element of each window (sum) and 1 per element of grad_output (quotient)"""
    return Flops(vector=_adaptive(self, grad_output, 2) + grad_output.numel)


@rule(aten._adaptive_avg_pool3d_backward.default, moves=_shape_only)
def adaptive_avg_pool3d_backward(grad_output: Spec, self: Spec) -> Flops:
    """1 per element of each window (sum) and 1 per element of grad_output (quotient)"""
    return Flops(vector=_adaptive(self, grad_output, 3) + grad_output.numel)
