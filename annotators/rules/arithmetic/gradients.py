"""Gradients of activations, softmax, look-ups, paddings and slices; of other ops beside the ops themselves."""

from __future__ import annotations

import torch

from fxmeter.annotators.rules.cost import Flops, Moves
from fxmeter.annotators.rules.registry import free, per_element, rule
from fxmeter.tracer.graph.spec import Spec

aten = torch.ops.aten

ACTIVATIONS = {
    "threshold_backward": 1,  # compare
    "leaky_relu_backward": 2,  # compare, product
    "hardtanh_backward": 2,  # two compares
    "softshrink_backward": 2,
    "hardsigmoid_backward": 3,  # two compares, product
    "sigmoid_backward": 3,  # g·y·(1 − y)
    "tanh_backward": 3,  # g·(1 − y²)
    "elu_backward": 3,  # exp, two products
    "softplus_backward": 4,  # exp, +1, quotient, product
    "log_sigmoid_backward": 4,  # difference, quotient and product of what the forward pass kept; sign
    "hardswish_backward": 5,  # two compares, quotient, sum, product
    "silu_backward": 9,  # sigmoid 4; g·σ·(1 + x·(1 − σ))
    "glu_backward": 9,  # sigmoid 4; g·σ, and g·a·σ·(1 − σ), of each pair
    "mish_backward": 14,  # softplus 3, tanh, sigmoid 4; g·(t + x·σ·(1 − t²))
}
"""Op → FLOPs per element of the gradient that it is given."""

per_element(
    {getattr(aten, name).default: count for name, count in ACTIVATIONS.items()}, of="grad_output", fuses="pointwise"
)


per_element({aten.hardshrink_backward.default: 2}, of="grad_out", fuses="pointwise")
per_element(
    {aten.logit_backward.default: 4, aten.rrelu_with_noise_backward.default: 2}, of="grad_output", fuses="pointwise"
)


@rule(aten.gelu_backward.default, fuses="pointwise")
def gelu_backward(self: Spec, approximate: str) -> Flops:
    """11 per element: Φ(x) 4, its density 4, g·(Φ + x·φ) 3; with tanh 18

    With t the tanh of the forward pass, 6: ½(1 + t) 2, 1 − t² 2, inner derivative β(1 + 3κx²) 3, ½x·their product 3,
    sum and product with g 2.
    """
    return Flops(vector=(18 if approximate == "tanh" else 11) * self.numel)


@rule(aten._prelu_kernel.default, fuses="pointwise")
def prelu(self: Spec) -> Flops:
    """2 per element: compare, product"""
    return Flops(vector=2 * self.numel)


@rule(aten._prelu_kernel_backward.default, fuses="pointwise")
def prelu_backward(self: Spec) -> Flops:
    """4 per element: compare, and a product each for the input and for the weight; compare"""
    return Flops(vector=4 * self.numel)


@rule(aten._softmax_backward_data.default, aten._log_softmax_backward_data.default, fuses="reduction")
def softmax_backward(grad_output: Spec) -> Flops:
    """4 per element: y·(g − Σ g·y), of a logarithm g − exp(y)·Σ g"""
    return Flops(vector=4 * grad_output.numel)


@rule(aten.native_dropout.default, fuses="pointwise")
def native_dropout(input: Spec, train: bool | None) -> Flops:
    """2 per element in training: the product with the mask and the scale"""
    return Flops(vector=0 if train is False else 2 * input.numel)


@rule(aten.native_dropout_backward.default, fuses="pointwise")
def native_dropout_backward(grad_output: Spec) -> Flops:
    """2 per element: the product with the mask and the scale"""
    return Flops(vector=2 * grad_output.numel)


@rule(aten._fused_dropout.default, aten._masked_scale.default, fuses="pointwise")
def fused_dropout(self: Spec) -> Flops:
    """2 per element: the product with the mask and the scale"""
    return Flops(vector=2 * self.numel)


@rule(aten.embedding_dense_backward.default, fuses="scatter")
def embedding_dense_backward(grad_output: Spec) -> Flops:
    """1 per element of grad_output: its sum into the row"""
    return Flops(vector=grad_output.numel)


@rule(
    aten.reflection_pad1d_backward.default,
    aten.reflection_pad2d_backward.default,
    aten.reflection_pad3d_backward.default,
    aten.replication_pad1d_backward.default,
    aten.replication_pad2d_backward.default,
    aten.replication_pad3d_backward.default,
    fuses="scatter",
)
def pad_backward(grad_output: Spec) -> Flops:
    """1 per element of grad_output: its sum into the element that it is a copy of"""
    return Flops(vector=grad_output.numel)


@rule(aten.unfold_backward.default, fuses="scatter")
def unfold_backward(grad_in: Spec) -> Flops:
    """1 per element of the gradient: its sum into the element that it is a view of"""
    return Flops(vector=grad_in.numel)


def _into_zeros(grad_output: Spec, out: Spec) -> Moves:
    """Zeros everywhere, then the gradient in its place."""
    return Moves(written={"out": out.nbytes + grad_output.nbytes})


free(
    dict.fromkeys(
        [aten.slice_backward.default, aten.select_backward.default, aten.diagonal_backward.default],
        "zeros, and the gradient in its place",
    ),
    fuses="scatter",
    moves=_into_zeros,
)
free({aten.masked_scatter_backward.default: "a selection: no arithmetic"})
