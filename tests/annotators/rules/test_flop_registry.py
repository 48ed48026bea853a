"""Every op that torch's own counter knows has a rule, with the same FLOPs."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._ops import OpOverloadPacket
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from fxmeter.annotators import annotate_module
from fxmeter.annotators.rules.registry import rule_for

aten = torch.ops.aten
PACKETS = [packet for packet in flop_registry if isinstance(packet, OpOverloadPacket)]


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


def priced(function, *tensors, **options):
    """The stage of a function of tensors."""

    class Call(nn.Module):
        def forward(self, *args):
            return function(*args)

    return annotate_module(Call(), *tensors, **options)


def test_every_op_of_torchs_registry_has_a_rule():
    overloads = [getattr(packet, name) for packet in PACKETS for name in packet.overloads()]
    assert len(overloads) > 40
    assert [op for op in overloads if rule_for(op) is None] == []


def test_what_else_is_in_torchs_registry_is_no_op_of_the_dispatcher():
    """Higher-order operators are refused while recording: there is nothing to price."""
    others = {str(key) for key in flop_registry if not isinstance(key, OpOverloadPacket)}
    assert others == {"flex_attention", "flex_attention_backward"}


BF16, INT32, INT64, FP8 = torch.bfloat16, torch.int32, torch.int64, torch.float8_e4m3fn
Q, K, V = meta(2, 4, 6, 8, dtype=BF16), meta(2, 4, 10, 8, dtype=BF16), meta(2, 4, 10, 8, dtype=BF16)
PACKED = meta(20, 4, 8, dtype=BF16), meta(26, 4, 8, dtype=BF16), meta(26, 4, 8, dtype=BF16)
ENDS = meta(4, dtype=INT32)
PACKED_OUT = meta(20, 4, 8, dtype=BF16)
OUT, LSE, SEED = meta(2, 4, 6, 8, dtype=BF16), meta(2, 4, 6), meta(dtype=INT64)
BIAS = meta(2, 4, 6, 10, dtype=BF16)
E4 = tuple(x[None] for x in PACKED)

CALLS = {
    "mm": lambda: aten.mm(meta(3, 4), meta(4, 5)),
    "mm.out": lambda: aten.mm.out(meta(3, 4), meta(4, 5), out=meta(3, 5)),
    "addmm": lambda: aten.addmm(meta(5), meta(3, 4), meta(4, 5)),
    "bmm": lambda: aten.bmm(meta(2, 3, 4), meta(2, 4, 5)),
    "baddbmm": lambda: aten.baddbmm(meta(2, 3, 5), meta(2, 3, 4), meta(2, 4, 5)),
    "_scaled_mm": lambda: aten._scaled_mm(
        meta(16, 32, dtype=FP8), meta(48, 32, dtype=FP8).t(), meta(1), meta(1), out_dtype=BF16
    ),
    "convolution": lambda: aten.convolution(
        meta(2, 4, 9), meta(6, 2, 3), meta(6), [2], [1], [1], False, [0], 2
    ),
    "transposed convolution": lambda: aten.convolution(
        meta(2, 4, 9), meta(4, 6, 3), None, [2], [1], [1], True, [0], 1
    ),
    "convolution_backward": lambda: aten.convolution_backward(
        meta(2, 6, 7, 7), meta(2, 4, 9, 9), meta(6, 4, 3, 3), [6], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True] * 3
    ),
    "convolution_backward, weight alone": lambda: aten.convolution_backward(
        meta(2, 6, 7, 7), meta(2, 4, 9, 9), meta(6, 4, 3, 3), [6], [1, 1], [0, 0], [1, 1], False, [0, 0], 1,
        [False, True, False],
    ),
    "transposed convolution_backward": lambda: aten.convolution_backward(
        meta(2, 6, 11), meta(2, 4, 9), meta(4, 6, 3), [6], [1], [0], [1], True, [0], 1, [True, True, False]
    ),
    "flash": lambda: aten._scaled_dot_product_flash_attention(Q, K, V),
    "flash, causal": lambda: aten._scaled_dot_product_flash_attention(Q, K, V, 0.0, True),
    "efficient": lambda: aten._scaled_dot_product_efficient_attention(Q, K, V, BIAS, True),
    "cudnn": lambda: aten._scaled_dot_product_cudnn_attention(Q, K, V, None, True),
    "flash_backward": lambda: aten._scaled_dot_product_flash_attention_backward(
        OUT, Q, K, V, OUT, LSE, None, None, 6, 10, 0.0, False, SEED, SEED
    ),
    "efficient_backward": lambda: aten._scaled_dot_product_efficient_attention_backward(
        OUT, Q, K, V, BIAS, OUT, LSE, SEED, SEED, 0.0, [True, True, True, False]
    ),
    "cudnn_backward": lambda: aten._scaled_dot_product_cudnn_attention_backward(
        OUT, Q, K, V, OUT, LSE, SEED, SEED, BIAS, ENDS, ENDS, 6, 10, 0.0, False
    ),
    "packed flash": lambda: aten._flash_attention_forward(*PACKED, ENDS, ENDS, 9, 13, 0.0, False, False),
    "packed flash_backward": lambda: aten._flash_attention_backward(
        PACKED_OUT, *PACKED, PACKED_OUT, meta(3, 4, 9), ENDS, ENDS, 9, 13, 0.0, False, SEED, SEED
    ),
    "packed efficient": lambda: aten._efficient_attention_forward(*E4, None, ENDS, ENDS, 9, 13, 0.0, 0),
    "packed efficient_backward": lambda: aten._efficient_attention_backward(
        E4[0], *E4, None, E4[0], ENDS, ENDS, 9, 13, meta(3, 4, 9), 0.0, SEED, SEED, 0, False
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_its_rule_has_the_flops_that_torch_counts(name):
    with FlopCounterMode(display=False) as counter:
        CALLS[name]()
    stage = priced(CALLS[name])
    assert not stage.uncosted
    assert stage.cost.matmul_flops == counter.get_total_flops() > 0
