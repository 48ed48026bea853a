"""An op that does several things at once costs what they cost one by one, by the same table."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fxmeter.annotators import annotate_module
from fxmeter.tracer.operators.ops import flash_attention

ROWS, WIDTH = 6, 8


def softmax(x):
    weights = torch.exp(x - x.amax(-1, keepdim=True))
    return weights / weights.sum(-1, keepdim=True)


def log_softmax(x):
    x = x - x.amax(-1, keepdim=True)
    return x - torch.exp(x).sum(-1, keepdim=True).log()


def layer_norm(x):
    mean = x.sum(-1, keepdim=True) / WIDTH
    variance = torch.square(x - mean).sum(-1, keepdim=True) / WIDTH
    return (x - mean) * torch.rsqrt(variance + 1e-5)


def rms_norm(x):
    return x * torch.rsqrt(torch.square(x).sum(-1, keepdim=True) / WIDTH + 1e-5)


def sigmoid(x):
    return torch.reciprocal(torch.exp(-x) + 1)


def gelu_tanh(x):
    cube = x * x * x
    return x * (torch.tanh((cube * 0.044715 + x) * math.sqrt(2 / math.pi)) + 1) * 0.5


FUSED = {
    "softmax": (lambda x: F.softmax(x, -1), softmax, 0),
    "log_softmax": (lambda x: F.log_softmax(x, -1), log_softmax, 1),  # the logarithm of each row's sum
    "layer_norm": (lambda x: F.layer_norm(x, (WIDTH,)), layer_norm, 4),  # two quotients, +ε, rsqrt
    "layer_norm with weight and bias": (
        lambda x: F.layer_norm(x, (WIDTH,), torch.ones(WIDTH, device="meta"), torch.ones(WIDTH, device="meta")),
        lambda x: layer_norm(x) * 2 + 1,
        4,
    ),
    "rms_norm": (lambda x: torch.ops.aten._fused_rms_norm(x, [WIDTH], None, 1e-5)[0], rms_norm, 0),
    "sigmoid": (torch.sigmoid, sigmoid, 0),
    "silu": (F.silu, lambda x: x * sigmoid(x), 0),
    "gelu": (F.gelu, lambda x: x * (torch.erf(x / math.sqrt(2)) + 1) * 0.5, 0),
    "gelu, tanh": (lambda x: F.gelu(x, approximate="tanh"), gelu_tanh, 0),
    "softplus": (F.softplus, lambda x: torch.log(torch.exp(x) + 1), 0),
    "logsigmoid": (F.logsigmoid, lambda x: x - torch.log(torch.exp(x) + 1), 0),
    "mish": (F.mish, lambda x: x * torch.tanh(torch.log(torch.exp(x) + 1)), 0),
    "hardswish": (F.hardswish, lambda x: x * (torch.clamp_min(torch.clamp_max(x + 3, 6), 0) / 6), 0),
    "leaky_relu": (F.leaky_relu, lambda x: torch.maximum(x, x * 0.01), 0),
    "hardtanh": (F.hardtanh, lambda x: torch.clamp_max(torch.clamp_min(x, -1), 1), 0),
    "glu": (F.glu, lambda x: x.chunk(2, -1)[0] * sigmoid(x.chunk(2, -1)[1]), 0),
    "lerp": (lambda x: torch.lerp(x, x, 0.3), lambda x: x + (x - x) * 0.3, 0),
    "addcmul": (lambda x: torch.addcmul(x, x, x, value=2), lambda x: x + x * x * 2, 0),
}


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors):
        return self.function(*tensors)


def vector_flops(function, *tensors):
    return annotate_module(Call(function), *tensors).cost.vector_flops


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_op_costs_its_steps(name):
    fused, steps, per_row = FUSED[name]
    x = torch.rand(ROWS, WIDTH)
    meta = x.to("meta")
    assert vector_flops(fused, meta) == vector_flops(steps, meta) - per_row * ROWS > 0
    if "weight" not in name:
        torch.testing.assert_close(fused(x), steps(x))


@pytest.mark.parametrize("softcap", [None, 30.0])
def test_the_flash_core_costs_what_is_fused_into_it(softcap):
    heads, queries, keys, width = 3, 4, 5, 8

    def steps(q, k, v):
        scores = q @ k.transpose(-1, -2) * width**-0.5
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        return F.softmax(scores, -1) @ v

    def fused(q, k, v):
        return flash_attention(q, k, v, None, None, width**-0.5, False, None, softcap)

    q, k = torch.empty(1, heads, queries, width), torch.empty(1, heads, keys, width)
    assert vector_flops(fused, q, k, k) == vector_flops(steps, q, k, k)
    assert vector_flops(fused, q, k, k) == heads * queries * keys * (1 + 5 + (0 if softcap is None else 3))
