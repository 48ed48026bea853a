"""Vector FLOPs of normalisations and of their gradients, per element of what is normalised."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from fxmeter.annotators.rules.cost import Flops
from fxmeter.annotators.rules.registry import first, rule
from fxmeter.models.stage_cost import Size
from fxmeter.tracer.graph.spec import Spec

aten = torch.ops.aten


def _each(count: int, input: Spec, weight: Spec | None = None, bias: Spec | None = None) -> Size:
    """``count`` per element of input, 1 more with weight, 1 more with bias."""
    return (count + (weight is not None) + (bias is not None)) * input.numel


@rule(aten.native_layer_norm.default, fuses="reduction")
def native_layer_norm(input: Spec, weight: Spec | None, bias: Spec | None, *, out: Sequence[Spec]) -> Flops:
    """6 per element (sum; difference, square, sum; difference, scale), 1 more with weight, 1 more with bias"""
    return Flops(vector=_each(6, input, weight, bias))


@rule(aten.native_group_norm.default, fuses="reduction")
def native_group_norm(input: Spec, weight: Spec | None, bias: Spec | None, *, out: Sequence[Spec]) -> Flops:
    """6 per element, 1 more with weight, 1 more with bias, as a layer norm over each group"""
    return Flops(vector=_each(6, input, weight, bias))


@rule(aten._fused_rms_norm.default, fuses="reduction")
def _fused_rms_norm(input: Spec, weight: Spec | None, *, out: Spec | Sequence[Spec]) -> Flops:
    """3 per element (square, sum; scale), 1 more with weight, and 3 per row (quotient, +eps, rsqrt)"""
    rows = first(out[1]).numel if isinstance(out, (tuple, list)) else math.prod(input.shape[:-1])
    return Flops(vector=_each(3, input, weight) + 3 * rows)


@rule(aten._native_batch_norm_legit_no_training.default, aten._batch_norm_no_update.default, fuses="pointwise")
def batch_norm_by_running_statistics(input: Spec, weight: Spec | None, bias: Spec | None) -> Flops:
    """2 per element (difference, scale), 1 more with weight, 1 more with bias, and 2 per channel (+eps, rsqrt)"""
    return Flops(vector=_each(2, input, weight, bias) + 2 * input.shape[1])


@rule(aten._native_batch_norm_legit.no_stats, fuses="reduction")
def batch_norm_of_the_batch(input: Spec, weight: Spec | None, bias: Spec | None) -> Flops:
    """6 per element, 1 more with weight, 1 more with bias, as a layer norm over each channel"""
    return Flops(vector=_each(6, input, weight, bias))


@rule(aten._batch_norm_with_update.default, fuses="reduction")
def batch_norm_with_update(input: Spec, weight: Spec | None, bias: Spec | None) -> Flops:
    """6 per element, 1 more with weight, 1 more with bias; 6 per channel: two products and a sum for each statistic"""
    return batch_norm_of_the_batch(input, weight, bias) + Flops(vector=6 * input.shape[1])


@rule(
    aten.native_batch_norm.default,
    aten._native_batch_norm_legit.default,
    aten._native_batch_norm_legit_functional.default,
    aten.cudnn_batch_norm.default,
    fuses="reduction",
)
def native_batch_norm(
    input: Spec, weight: Spec | None, bias: Spec | None, running_mean: Spec | None, training: bool
) -> Flops:
    """2 per element, in training 6; 1 more with weight, with bias; per channel 2, in training 6 if statistics are kept

    In training the statistics are made as a layer norm's, and each running one moves by two products and a sum.
    """
    if not training:
        return batch_norm_by_running_statistics(input, weight, bias)
    if running_mean is None:
        return batch_norm_of_the_batch(input, weight, bias)
    return batch_norm_with_update(input, weight, bias)


def _gradients(input: Spec, weight: Spec | None, output_mask: Sequence[bool]) -> Flops:
    """Of x̂ = (x − mean)·rstd, weight and bias.

    x̂ 2. To the input, with ĝ = g·weight: Σĝ, Σĝ·x̂ 3; rstd·(ĝ − (Σĝ + x̂·Σĝx̂)/n) 4; ĝ itself 1 if there is a weight.
    To the weight Σg·x̂ 2, to the bias Σg 1.
    """
    to_input, to_weight, to_bias = output_mask
    per_element = 2 * (to_input or to_weight) + (7 + (weight is not None)) * to_input + 2 * to_weight + to_bias
    return Flops(vector=per_element * input.numel)


@rule(aten.native_layer_norm_backward.default, fuses="reduction")
def native_layer_norm_backward(input: Spec, weight: Spec | None, output_mask: list[bool]) -> Flops:
    """per element 9 for input and 1 with weight, 2 for weight, 1 for bias"""
    return _gradients(input, weight, output_mask)


@rule(aten.native_group_norm_backward.default, fuses="reduction")
def native_group_norm_backward(input: Spec, weight: Spec | None, output_mask: list[bool]) -> Flops:
    """per element 9 for input and 1 with weight, 2 for weight, 1 for bias, as those of a layer norm"""
    return _gradients(input, weight, output_mask)


@rule(aten._fused_rms_norm_backward.default, fuses="reduction")
def _fused_rms_norm_backward(input: Spec, weight: Spec | None, output_mask: list[bool]) -> Flops:
    """per element 6 for input (x̂; ĝ·x̂, sum; rstd·(ĝ − x̂·s)) and 1 with weight, 2 for weight"""
    to_input, to_weight = output_mask
    per_element = (to_input or to_weight) + (5 + (weight is not None)) * to_input + 2 * to_weight
    return Flops(vector=per_element * input.numel)


@rule(aten.native_batch_norm_backward.default, fuses="reduction")
def native_batch_norm_backward(input: Spec, weight: Spec | None, train: bool, output_mask: list[bool]) -> Flops:
    """as those of a layer norm; by running statistics 1 per element for input, 1 with weight, 4 for weight, 1 for bias

    Running statistics are constants: the gradient of the input is g·weight·rstd, and only that of the weight needs x̂.
    """
    if train:
        return _gradients(input, weight, output_mask)
    to_input, to_weight, to_bias = output_mask
    per_element = (1 + (weight is not None)) * to_input + 4 * to_weight + to_bias
    return Flops(vector=per_element * input.numel)


@rule(aten.cudnn_batch_norm_backward.default, fuses="reduction")
def cudnn_batch_norm_backward(input: Spec, weight: Spec) -> Flops:
    """gradients of input, weight and bias as those of a layer norm"""
    return _gradients(input, weight, (True, True, True))


@rule(aten.batch_norm_backward.default, fuses="reduction")
def batch_norm_backward(input: Spec, weight: Spec, update: bool, output_mask: list[bool]) -> Flops:
    """as the gradients of a native batch norm, in training where statistics are updated"""
    return native_batch_norm_backward(input, weight, update, output_mask)


@rule(aten._weight_norm_interface.default, fuses="reduction")
def weight_norm(v: Spec, g: Spec) -> Flops:
    """3 per element of v (square, sum; scale), and 2 per norm (root, quotient)"""
    return Flops(vector=3 * v.numel + 2 * g.numel)


@rule(aten._weight_norm_interface_backward.default, fuses="reduction")
def weight_norm_backward(saved_v: Spec, saved_g: Spec) -> Flops:
    """5 per element of v (product with the gradient, sum; scale, difference, scale), and 3 per norm"""
    return Flops(vector=5 * saved_v.numel + 3 * saved_g.numel)
