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


def _dimensions(op_name: str) -> int:
    """2 or 3, as the name says: the shape has one more where there is a batch."""
    return 3 if "3d" in op_name else 2


def _window(kernel_size: Sequence[int], op_name: str) -> int:
    """Elements of a window; one number stands for all of its sides."""
    sides, dimensions = list(kernel_size), _dimensions(op_name)
    return math.prod(sides if len(sides) == dimensions else sides * dimensions)


@rule(
    aten.max_pool2d_with_indices.default,
    aten.max_pool3d_with_indices.default,
    aten.fractional_max_pool2d.default,
    aten.fractional_max_pool3d.default,
)
def max_pool(kernel_size: list[int], *, out: Sequence[Spec], op_name: str) -> Flops:
    """1 per element of each window (max)"""
    return Flops(vector=_window(kernel_size, op_name) * first(out).numel)


@rule(aten.avg_pool2d.default, aten.avg_pool3d.default)
def avg_pool(kernel_size: list[int], *, out: Spec, op_name: str) -> Flops:
    """1 per element of each window (sum) and 1 per element of out (quotient)"""
    return Flops(vector=(_window(kernel_size, op_name) + 1) * out.numel)


def _adaptive(input: Spec, out: Spec, op_name: str) -> Size:
    """Elements of all windows: that of output i goes from ⌊i·in/out⌋ to ⌈(i + 1)·in/out⌉ in each dimension."""
    dimensions = _dimensions(op_name)
    total = math.prod(input.shape[:-dimensions])
    for size, count in zip(input.shape[-dimensions:], out.shape[-dimensions:], strict=True):
        total *= size if count == 1 else sum(-(-(i + 1) * size // count) - i * size // count for i in range(count))
    return total


@rule(aten._adaptive_avg_pool2d.default, aten._adaptive_avg_pool3d.default)
def adaptive_avg_pool(self: Spec, *, out: Spec, op_name: str) -> Flops:
    """1 per element of each window (sum) and 1 per element of out (quotient)"""
    return Flops(vector=_adaptive(self, out, op_name) + out.numel)


@rule(aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default)
def adaptive_max_pool(self: Spec, *, out: Sequence[Spec], op_name: str) -> Flops:
    """1 per element of each window (max)"""
    return Flops(vector=_adaptive(self, first(out), op_name))


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


@rule(aten.avg_pool2d_backward.default, aten.avg_pool3d_backward.default, moves=_shape_only)
def avg_pool_backward(grad_output: Spec, kernel_size: list[int], *, op_name: str) -> Flops:
    """1 per element of each window (sum) and 1 per element of grad_output (quotient)"""
    return Flops(vector=(_window(kernel_size, op_name) + 1) * grad_output.numel)


@rule(aten._adaptive_avg_pool2d_backward.default, aten._adaptive_avg_pool3d_backward.default, moves=_shape_only)
def adaptive_avg_pool_backward(grad_output: Spec, self: Spec, *, op_name: str) -> Flops:
    """1 per element of each window (sum) and 1 per element of grad_output (quotient)"""
    return Flops(vector=_adaptive(self, grad_output, op_name) + grad_output.numel)
