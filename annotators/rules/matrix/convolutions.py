"""Convolutions and their gradients: 2 FLOPs per multiply-accumulate."""

from __future__ import annotations

import math

import torch

from fxmeter.annotators.rules.cost import Flops
from fxmeter.annotators.rules.registry import rule
from fxmeter.models.stage_cost import Size
from fxmeter.tracer.graph.spec import Spec

aten = torch.ops.aten


def products(positions: Size, weight: Spec) -> Flops:
    """A product with weight[C_out, C_in/groups, kernel...] for each of ``positions`` elements.

    These are the elements of what the convolution returns, or where it is transposed of what it is given.
    """
    _, per_group, *kernel = weight.shape
    return Flops(matmul=2 * positions * per_group * math.prod(kernel))


@rule(
    aten.convolution.default,
    aten._convolution.default,
    aten._convolution.deprecated,
    aten.convolution_overrideable.default,
)
def convolution(input: Spec, weight: Spec, bias: Spec | None, transposed: bool, *, out: Spec) -> Flops:
    """out[N, C_out, ...] = input[N, C_in, ...] ∗ weight[C_out, C_in/groups, kernel...] (transposed: in and out swap)"""
    added = 0 if bias is None else out.numel
    return products(input.numel if transposed else out.numel, weight) + Flops(vector=added)


@rule(aten.cudnn_convolution.default)
def cudnn_convolution(self: Spec, weight: Spec, *, out: Spec) -> Flops:
    """out[N, C_out, ...] = self[N, C_in, ...] ∗ weight[C_out, C_in/groups, kernel...]"""
    return products(out.numel, weight)


@rule(aten._slow_conv2d_forward.default)
def slow_conv2d(self: Spec, weight: Spec, bias: Spec | None, *, out: Spec) -> Flops:
    """out[N, C_out, H, W] = self[N, C_in, ...] ∗ weight[C_out, C_in, kernel...]"""
    return convolution(self, weight, bias, False, out=out)


@rule(aten.convolution_backward.default)
def convolution_backward(
    grad_output: Spec, input: Spec, weight: Spec, transposed: bool, output_mask: list[bool]
) -> Flops:
    """gradients of input and weight: as many products as the convolution has, each; of bias: 1 per element of its sum

    The gradient of the input is the transposed convolution of grad_output with the weight, that of the weight the
    convolution of the input with grad_output: the pairs of elements that meet are the same in all three.
    """
    to_input, to_weight, to_bias = output_mask
    each = products(input.numel if transposed else grad_output.numel, weight)
    return Flops(matmul=each.matmul * (to_input + to_weight), vector=grad_output.numel * to_bias)


@rule(aten.conv_tbc.default)
def conv_tbc(self: Spec, weight: Spec, *, out: Spec) -> Flops:
    """2 · elements of out · (taps of weight[taps, in, out] · in), and the bias"""
    taps, channels, _ = weight.shape
    return Flops(matmul=2 * out.numel * taps * channels, vector=out.numel)
