"""scaled_dot_product_attention as one core: torch's alignment, broadcasting, results; gradients are left to it."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fxmeter import annotate_module
from fxmeter.models.errors import TraceError
from fxmeter.tracer.run.patches.sdpa import FuseSdpa
from tests.tracer.tiny import LLAMA, real_model

CORE = "fxmeter.flash_attention.default"
D = 4


def module(forward):
    return type("Made", (nn.Module,), {"forward": forward})()


def qkv(query, key, value=None):
    return torch.randn(query), torch.randn(key), torch.randn(key if value is None else value)


SHAPES = {
    "plain": qkv((2, 3, 5, D), (2, 3, 7, D)),
    "one query batch": qkv((1, 3, 5, D), (2, 3, 7, D)),
    "one key batch": qkv((2, 3, 5, D), (1, 3, 7, D)),
    "one key head": qkv((2, 3, 5, D), (2, 1, 7, D)),
    "one query head": qkv((2, 1, 5, D), (2, 3, 7, D)),
    "one value head": qkv((2, 3, 5, D), (2, 3, 7, D), (2, 1, 7, D)),
    "values of another width": qkv((2, 3, 5, D), (2, 3, 7, D), (2, 3, 7, 6)),
    "no batch": qkv((3, 5, D), (3, 7, D)),
    "no batch, one query": qkv((1, 5, D), (3, 7, D)),
    "no heads": qkv((5, D), (7, D)),
    "two batches": qkv((2, 4, 3, 5, D), (2, 4, 3, 7, D)),
    "two batches, one of them one": qkv((2, 1, 3, 5, D), (1, 4, 3, 7, D)),
    "ranks that differ": qkv((3, 5, D), (2, 3, 7, D)),
    "more queries than keys": qkv((2, 3, 9, D), (2, 3, 4, D)),
}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_the_core_computes_and_counts_what_torch_does(name, causal):
    q, k, v = SHAPES[name]
    call = module(lambda self, q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal))
    with FlopCounterMode(display=False) as counter:
        expected = call(q, k, v)
    with FuseSdpa():
        torch.testing.assert_close(call(q, k, v), expected)
    stage = annotate_module(call, q, k, v)
    assert [op.op for op in stage.ops].count(CORE) == 1
    pairs = expected.numel() // v.shape[-1] * k.shape[-2]  # every query of every batch and head with every key
    assert stage.cost.matmul_flops == 2 * pairs * (D + v.shape[-1])
    assert counter.get_total_flops() in (0, stage.cost.matmul_flops)  # the counter sees nothing of CPU kernels


@pytest.mark.parametrize(
    "shape", [(5, 7), (2, 1, 5, 7), (1, 3, 5, 7), (2, 3, 1, 7), (4, 2, 3, 5, 7), (4, 1, 1, 5, 7)], ids=str
)
@pytest.mark.parametrize("boolean", [True, False])
def test_masks_of_any_rank(shape, boolean):
    lead = (4, 2) if len(shape) == 5 else (2,)
    q, k, v = qkv((*lead, 3, 5, D), (*lead, 3, 7, D))
    mask = torch.rand(shape) > 0.3 if boolean else torch.randn(shape)
    if boolean:
        mask[..., 0] = True
    call = module(lambda self, q, k, v, mask: F.scaled_dot_product_attention(q, k, v, mask))
    with FuseSdpa():
        torch.testing.assert_close(call(q, k, v, mask), F.scaled_dot_product_attention(q, k, v, mask))
    assert [op.op for op in annotate_module(call, q, k, v, mask).ops].count(CORE) == 1


@pytest.mark.parametrize(("s_q", "s_kv"), list(itertools.product([1, 4, 6, 10], [1, 6, 10])))
def test_the_causal_triangle_begins_at_the_first_key(s_q, s_kv):
    q, k, v = qkv((1, 2, s_q, D), (1, 2, s_kv, D))
    call = module(lambda self, q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True))
    visible = torch.ones(s_q, s_kv, dtype=torch.bool).tril()
    pairs = 2 * int(visible.sum())
    assert annotate_module(call, q, k, v, causal="exact").cost.matmul_flops == 2 * 2 * pairs * D
    assert annotate_module(call, q, k, v).cost.matmul_flops == 2 * 2 * 2 * s_q * s_kv * D
    with FuseSdpa():
        torch.testing.assert_close(call(q, k, v), F.scaled_dot_product_attention(q, k, v, visible))


@pytest.mark.parametrize(("heads", "keys", "values"), [(8, 2, 2), (8, 1, 1), (8, 8, 8), (8, 2, 4)])
def test_grouped_heads(heads, keys, values):
    q, k, v = qkv((2, heads, 5, D), (2, keys, 7, D), (2, values, 7, D))
    call = module(lambda self, q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True))
    with FuseSdpa():
        torch.testing.assert_close(call(q, k, v), F.scaled_dot_product_attention(q, k, v, enable_gqa=True))
    assert annotate_module(call, q, k, v).cost.matmul_flops == 2 * 2 * 2 * heads * 5 * 7 * D


@pytest.mark.parametrize(
    "wrong",
    [
        qkv((2, 8, 5, D), (2, 2, 7, D)),
        qkv((2, 3, 5, D), (4, 3, 7, D)),
        qkv((2, 3, 5, D), (2, 3, 7, D + 1)),
        (torch.randn(2, 3, 5, D).half(), torch.randn(2, 3, 7, D), torch.randn(2, 3, 7, D)),
    ],
    ids=["heads", "batch", "width", "dtypes"],
)
def test_what_torch_refuses_is_refused(wrong):
    call = module(lambda self, q, k, v: F.scaled_dot_product_attention(q, k, v))
    with pytest.raises((RuntimeError, ValueError)):
        call(*wrong)
    with pytest.raises(TraceError):
        annotate_module(call, *wrong)


def by_grad(self, q):
    return torch.func.grad(lambda x: F.scaled_dot_product_attention(x, x, x).sum())(q)


def by_autograd(self, q):
    with torch.enable_grad():
        x = q.detach().requires_grad_(True)
        return torch.autograd.grad(F.scaled_dot_product_attention(x, x, x, is_causal=True).sum(), x)[0]


@pytest.mark.parametrize("forward", [by_grad, by_autograd])
def test_a_gradient_inside_forward_is_counted(forward):
    once = 2 * 2 * 4 * 6 * 6 * 8
    stage = annotate_module(module(forward), torch.randn(2, 4, 6, 8))
    assert stage.cost.matmul_flops == 2 * once + 4 * once


def test_a_batch_by_vmap_is_counted():
    call = module(lambda self, q: torch.vmap(lambda x: F.scaled_dot_product_attention(x, x, x))(q))
    assert annotate_module(call, torch.randn(2, 4, 6, 8)).cost.matmul_flops == 2 * 2 * 2 * 4 * 6 * 6 * 8


def test_a_gradient_through_transformers_attention_is_counted():
    layer = real_model(LLAMA).model.layers[0]
    angles = torch.randn(1, 7, 8), torch.randn(1, 7, 8)

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            with torch.enable_grad():
                x = x.detach().requires_grad_(True)
                return torch.autograd.grad(self.layer(x, position_embeddings=angles).sum(), x)[0]

    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    stage = annotate_module(Outer(), torch.randn(1, 7, 32))
    widths = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48
    core = 2 * 4 * 7 * 7 * 8
    assert stage.cost.matmul_flops == 2 * (2 * 7 * widths) + 2 * core + 4 * core


def test_values_for_more_than_there_are_scores_are_left_to_torch():
    call = module(lambda self, q, k, v: F.scaled_dot_product_attention(q, k, v))
    q, k, v = qkv((1, 3, 5, D), (1, 3, 7, D), (2, 3, 7, D))
    assert annotate_module(call, q, k, v).cost.matmul_flops == 2 * 3 * 5 * 7 * D + 2 * 2 * 3 * 5 * 7 * D


def test_dropout_is_left_to_torch():
    call = module(lambda self, q: F.scaled_dot_product_attention(q, q, q, dropout_p=0.5))
    stage = annotate_module(call, torch.randn(2, 4, 6, 8))
    assert CORE not in [op.op for op in stage.ops]
    assert stage.cost.matmul_flops == 2 * 2 * 2 * 4 * 6 * 6 * 8
