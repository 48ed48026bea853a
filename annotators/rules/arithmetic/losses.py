"""Losses and their gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from fxmeter.annotators.rules.cost import Flops, Moves
from fxmeter.annotators.rules.registry import rule
from fxmeter.annotators.symbolic import smallest
from fxmeter.models.stage_cost import Size
from fxmeter.tracer.graph.spec import Spec
from fxmeter.tracer.private import OpOverload

aten = torch.ops.aten


def _picked(self: Spec, target: Spec) -> Moves:
    """Of each row the element that the target picks."""
    return Moves(read={"self": smallest([self.distinct_bytes, target.numel * self.itemsize])})


@rule(aten.nll_loss_forward.default, aten.nll_loss2d_forward.default, fuses="reduction", moves=_picked)
def nll_loss(target: Spec, weight: Spec | None, reduction: int) -> Flops:
    """1 per target (negation), 1 more to reduce, 2 with weight (product, sum of weights); a quotient for a mean"""
    per_target = 1 + (reduction != 0) + 2 * (weight is not None)
    return Flops(vector=per_target * target.numel + (reduction == 1))


def _shape_only(self: Spec) -> Moves:
    return Moves(read={"self": 0})


@rule(aten.nll_loss_backward.default, aten.nll_loss2d_backward.default, fuses="scatter", moves=_shape_only)
def nll_loss_backward(target: Spec, weight: Spec | None, reduction: int) -> Flops:
    """1 per target (negation), 1 more for a mean (quotient), 1 more with weight"""
    return Flops(vector=(1 + (reduction == 1) + (weight is not None)) * target.numel)


PER_ELEMENT = {
    "mse_loss": (2, 3),  # difference, square; difference, ·2, ·gradient
    "smooth_l1_loss": (
        6,
        4,
    ),  # difference, abs, compare, and of both cases square, ½/β, −½β; difference, compare, /β, ·
    "huber_loss": (6, 4),  # the same, times δ in one case
    "binary_cross_entropy": (8, 6),  # log, 1−x, log, t·, 1−t, ·, sum, neg; x−t, 1−x, ·, max, quotient, ·gradient
    "soft_margin_loss": (5, 7),  # −, t·, exp, +1, log; −, t·, exp, +1, quotient, ·t, ·gradient
}
"""Loss → FLOPs per element of it before it is reduced, and of its gradient."""


def _register(op: OpOverload, count: int) -> None:
    def loss(self: Spec, reduction: int) -> Flops:
        return Flops(vector=(count + (reduction != 0)) * self.numel + (reduction == 1))

    loss.__doc__ = f"{count} per element, 1 more to reduce, and a quotient for a mean"
    rule(op, fuses="reduction")(loss)


def _register_gradient(op: OpOverload, count: int) -> None:
    def gradient(self: Spec, reduction: int) -> Flops:
        return Flops(vector=(count + (reduction == 1)) * self.numel)

    gradient.__doc__ = f"{count} per element, 1 more for a mean (quotient)"
    rule(op, fuses="pointwise")(gradient)


for _name, (_forward, _backward) in PER_ELEMENT.items():
    _register(getattr(aten, _name).default, _forward)
    _register_gradient(getattr(aten, f"{_name}_backward").default, _backward)


@rule(aten.multi_margin_loss.default, fuses="reduction")
def multi_margin_loss(self: Spec, weight: Spec | None, p: float, reduction: int) -> Flops:
    """4 per element (two differences, maximum, sum), 1 more with p = 2, 1 with weight; a quotient per row"""
    rows = math.prod(self.shape[:-1])
    per_element = 4 + (p == 2) + (weight is not None)
    return Flops(vector=per_element * self.numel + (1 + (reduction != 0)) * rows + (reduction == 1))


@rule(aten.multi_margin_loss_backward.default, fuses="pointwise")
def multi_margin_loss_backward(self: Spec, weight: Spec | None, p: float) -> Flops:
    """5 per element (two differences, compare, quotient, sum into the target's), 2 more with p = 2, 1 with weight"""
    return Flops(vector=(5 + 2 * (p == 2) + (weight is not None)) * self.numel)


@rule(aten.multilabel_margin_loss_forward.default, fuses="reduction")
def multilabel_margin_loss(self: Spec, *, out: Sequence[Spec]) -> Flops:
    """4 per pair of classes (two differences, maximum, sum), as if each row's targets were all of them; 1 per row"""
    return Flops(vector=4 * self.numel * self.shape[-1] + math.prod(self.shape[:-1])) if self.shape else Flops(vector=5)


@rule(aten.multilabel_margin_loss_backward.default)
def multilabel_margin_loss_backward(self: Spec) -> Flops:
    """5 per pair of classes (two differences, compare, two sums), as if each row's targets were all; 1 per element"""
    return Flops(vector=5 * self.numel * self.shape[-1] + self.numel) if self.shape else Flops(vector=6)


@rule(aten.binary_cross_entropy_with_logits.default, fuses="reduction")
def binary_cross_entropy_with_logits(self: Spec, weight: Spec | None, pos_weight: Spec | None, reduction: int) -> Flops:
    """7 per element of (1 − t)·x − log σ(x), 1 more with weight, 3 with pos_weight, 1 to reduce"""
    per_element = 7 + (weight is not None) + 3 * (pos_weight is not None) + (reduction != 0)
    return Flops(vector=per_element * self.numel + (reduction == 1))


def _states(input_lengths: list[int], target_lengths: list[int]) -> Size:
    """(time, state) pairs of all sequences: a state for each label and for each blank around it."""
    return sum(steps * (2 * labels + 1) for steps, labels in zip(input_lengths, target_lengths, strict=True))


@rule(aten._ctc_loss.default)
def ctc_loss(input_lengths: list[int], target_lengths: list[int]) -> Flops:
    """13 per time and state: the log-sum-exp of the three states before it, 11, and two sums

    Graves et al., "Connectionist Temporal Classification", ICML 2006, equation 6, in logarithms: 2 maxima, 3
    differences, 3 exponentials, 2 sums, a logarithm, and 2 sums with the maximum and the label's probability: 13.
    """
    return Flops(vector=13 * _states(input_lengths, target_lengths))


@rule(aten._ctc_loss_backward.default)
def ctc_loss_backward(log_probs: Spec, input_lengths: list[int], target_lengths: list[int]) -> Flops:
    """21 per time and state, 6 per element of log_probs

    The same recursion backwards, 13; the sum with the forward one, 1, and the log-sum-exp into its label's, 7: maximum,
    2 differences, 2 exponentials, sum, logarithm with the maximum, of equation 16 in logarithms. Then for each label
    of the alphabet two exponentials, two sums, a difference and the product with the gradient.
    """
    return Flops(vector=21 * _states(input_lengths, target_lengths) + 6 * log_probs.numel)
