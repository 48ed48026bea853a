"""Every term of DeepSeek's hand-written formulas, as products of a scenario's sizes and a layer's.

The scenario of the tables is B = 2, S_q = 3, S_kv = 5. Sizes are small primes where they can be.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from fxmeter.models import ModelError, StageCost
from fxmeter.models.hand.deepseek import DeepseekModel, DeepseekV2DecoderLayer
from fxmeter.models.hand.layer import Layer, Linear, RMSNorm, SiLU
from fxmeter.models.hand.llama import LlamaRotaryEmbedding
from fxmeter.models.hand.mla import (
    AbsorbedProjection,
    DeepseekV2AbsorbedAttention,
    DeepseekV2Attention,
    DeepseekV2RotaryEmbedding,
    LatentExpansion,
)
from fxmeter.models.hand.moe import (
    DeepseekV2Experts,
    DeepseekV2MLP,
    DeepseekV2MoE,
    MoEGate,
    expected_experts_bytes,
)
from fxmeter.models.stage_cost import FIELDS

DEEPSEEK_V2_LITE = {
    "model_type": "deepseek_v2",
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "num_hidden_layers": 27,
    "first_k_dense_replace": 1,
    "num_attention_heads": 16,
    "q_lora_rank": None,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "topk_method": "greedy",
    "vocab_size": 102400,
}
TINY = {
    "model_type": "deepseek_v2",
    "hidden_size": 11,
    "intermediate_size": 13,
    "moe_intermediate_size": 5,
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "num_attention_heads": 4,
    "q_lora_rank": 17,
    "kv_lora_rank": 7,
    "qk_nope_head_dim": 3,
    "qk_rope_head_dim": 6,
    "v_head_dim": 5,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "vocab_size": 19,
}
TINY_V3 = {**TINY, "model_type": "deepseek_v3", "n_group": 4, "topk_group": 2, "norm_topk_prob": True}
LATENT: dict[str, Any] = {
    "hidden_size": 11,
    "num_attention_heads": 4,
    "q_lora_rank": None,
    "kv_lora_rank": 7,
    "qk_nope_head_dim": 3,
    "qk_rope_head_dim": 6,
    "v_head_dim": 5,
}
ROUTER: dict[str, Any] = {"hidden_size": 7, "n_routed_experts": 12, "num_experts_per_tok": 5}
GROUPED = {**ROUTER, "n_group": 4, "topk_group": 3}


def materialised(*, read: int, write: int, **others: int) -> StageCost:
    """A cost whose written activations are all new tensors."""
    return StageCost(activation_read_bytes=read, activation_write_bytes=write, activation_bytes=write, **others)


def in_place(*, read: int, write: int, **others: int) -> StageCost:
    """A cost that writes into a tensor that is there already."""
    return StageCost(activation_read_bytes=read, activation_write_bytes=write, **others)


# Multi-head latent attention: 4 heads, r = 7, d_n = 3, d_r = 6 (3 pairs), d_v = 5; S_kv = 5.

ROTATION_COMPLEX = materialised(  # float32 copy, complex product, cast back, of 4 query heads and one key
    vector_flops=2 * 3 * (4 + 1) * 3 * (4 + 2),
    read=2 * 3 * (4 + 1) * 6 * (2 + 4 + 4) + (1 + 1) * (3 * 3 * 8),
    write=2 * 3 * (4 + 1) * 6 * (4 + 4 + 2),
)
ROTATION_INTERLEAVED = materialised(  # two products and their difference, the same and their sum, both joined
    vector_flops=2 * 3 * (4 + 1) * 3 * (3 + 3),
    read=2 * 3 * (4 + 1) * 3 * ((1 + 1 + 2) + (1 + 1 + 2) + 2) * 2 + (1 + 1) * (2 + 2) * (3 * 3 * 2),
    write=2 * 3 * (4 + 1) * 3 * ((1 + 1 + 1) + (1 + 1 + 1) + 2) * 2,
)
ROTATION_HALF = materialised(
    vector_flops=2 * 3 * (4 + 1) * 3 * (2 + 1 + 2 + 2),
    read=2 * 3 * (4 + 1) * 3 * (2 + 1 + 2 + 2 + 4) * 2 + (1 + 1) * 2 * (3 * 6 * 2),
    write=2 * 3 * (4 + 1) * 3 * (2 + 1 + 2 + 2 + 2) * 2,
)
CACHE = StageCost(
    activation_read_bytes=2 * 3 * (7 + 6) * 2,
    kv_write_bytes=2 * 3 * (7 + 6) * 2,
    kv_bytes=2 * 5 * (7 + 6) * 2,
    kv_storage_bytes=2 * 5 * (7 + 6) * 2,
)
EXPANDED = materialised(  # queries joined; keys put together from heads and the cached rotated key; then read
    kv_read_bytes=2 * 5 * 6 * 2,
    read=2 * 3 * 4 * (3 + 6) * 2 + 2 * 5 * 4 * 3 * 2 + 2 * 5 * 4 * (3 + 6) * 2 + 2 * 5 * 4 * 5 * 2,
    write=2 * 3 * 4 * (3 + 6) * 2 + 2 * 5 * 4 * (3 + 6) * 2,
)
CORE_FLASH = materialised(
    matmul_flops=2 * (2 * 4 * 3 * 5) * (3 + 6) + 2 * (2 * 4 * 3 * 5) * 5,
    vector_flops=2 * 4 * 3 * 5 * (1 + 5),
    read=2 * 3 * 4 * (3 + 6) * 2,
    write=2 * 3 * 4 * 5 * 2,
)
EAGER_BUFFERS = materialised(
    vector_flops=2 * 4 * 3 * 5,
    read=2 * 4 * 3 * 5 * (2 + 2 + 2 + 4 + 2) + 2 * 3 * 5 * 2,
    write=2 * 4 * 3 * 5 * (2 + 2 + 2 + 4 + 2),
)

# The router: T = 2·3 tokens, h = 7, E = 12, k = 5; 4 groups, of which 3 are kept.

SCORES = materialised(  # tokens and weight to float32, the product
    matmul_flops=2 * (2 * 3) * 7 * 12,
    weight_read_bytes=12 * 7 * 2,
    weight_bytes=12 * 7 * 2,
    read=2 * 3 * 7 * 2 + 2 * 3 * 7 * 4 + 12 * 7 * 4,
    write=2 * 3 * 7 * 4 + 12 * 7 * 4 + 2 * 3 * 12 * 4,
)
SOFTMAX = materialised(vector_flops=2 * 3 * 12 * 5, read=2 * 3 * 12 * 4, write=2 * 3 * 12 * 4)
SIGMOID = materialised(vector_flops=2 * 3 * 12 * 4, read=2 * 3 * 12 * 4, write=2 * 3 * 12 * 4)
TOP_K = materialised(vector_flops=2 * 3 * 12, read=2 * 3 * 12 * 4, write=2 * 3 * 5 * (4 + 8))
SCALED = materialised(vector_flops=2 * 3 * 5, read=2 * 3 * 5 * 4, write=2 * 3 * 5 * 4)
BEST_OF_GROUPS = materialised(vector_flops=2 * 3 * 12, read=2 * 3 * 12 * 4, write=2 * 3 * 4 * (4 + 8))
GROUP_CHOICE = (
    materialised(vector_flops=2 * 3 * 4, read=2 * 3 * 4 * 4, write=2 * 3 * 3 * (4 + 8))  # top-k of groups
    + materialised(read=0, write=2 * 3 * 4 * 4)  # zeros
    + in_place(read=2 * 3 * 3 * 8, write=2 * 3 * 4 * 4)  # scatter
    + materialised(read=2 * 3 * 4 * 4, write=2 * 3 * 12 * 4)  # spread to experts
    + materialised(read=2 * 3 * 12 * 4, write=2 * 3 * 12 * 1)  # to boolean
    + materialised(read=2 * 3 * 12 * 1, write=2 * 3 * 12 * 1)  # not
    + materialised(read=2 * 3 * 12 * (4 + 1), write=2 * 3 * 12 * 4)  # blanked scores
)
CORRECTED = (
    materialised(vector_flops=2 * 3 * 12, weight_read_bytes=12 * 4, read=2 * 3 * 12 * 4, write=2 * 3 * 12 * 4)
    + materialised(vector_flops=2 * 3 * 12, read=2 * 3 * 12 * 4, write=2 * 3 * 4 * 2 * (4 + 8))  # best two
    + materialised(vector_flops=2 * 3 * 4 * 2, read=2 * 3 * 4 * 2 * 4, write=2 * 3 * 4 * 4)  # their sum
    + materialised(read=2 * 3 * 5 * (8 + 4), write=2 * 3 * 5 * 4)  # gathered weights
)
NORMALISED = (
    materialised(vector_flops=2 * 3 * 5, read=2 * 3 * 5 * 4, write=2 * 3 * 4)  # sum
    + materialised(vector_flops=2 * 3, read=2 * 3 * 4, write=2 * 3 * 4)  # + 1e-20
    + in_place(vector_flops=2 * 3 * 5, read=2 * 3 * 5 * 4 + 2 * 3 * 4, write=2 * 3 * 5 * 4)  # division
)


def moe(**sizes: int) -> DeepseekV2MoE:
    return DeepseekV2MoE(
        gate=MoEGate(hidden_size=7, n_routed_experts=12, num_experts_per_tok=5, **sizes),
        experts=DeepseekV2Experts(
            hidden_size=7, n_routed_experts=12, num_experts_per_tok=5, moe_intermediate_size=11, **sizes
        ),
        shared_experts=DeepseekV2MLP(hidden_size=7, intermediate_size=2 * 11, **sizes),
    )


OWN_WORK = {
    "complex rotary embedding": (
        DeepseekV2RotaryEmbedding(head_dim=6),
        materialised(  # positions cast, angles, ones, polar, scaled
            vector_flops=3 * 3 * (1 + (2 + 2) + 2),
            weight_read_bytes=3 * 4,
            read=3 * 8 + 3 * 4 + 3 * 3 * ((4 + 4) + 8),
            write=3 * 4 + 3 * 3 * (4 + 4 + 8 + 8),
        ),
    ),
    "latent expansion": (
        LatentExpansion(kv_lora_rank=7, out_features=11),
        materialised(
            matmul_flops=2 * (2 * 5) * 7 * 11,
            weight_read_bytes=7 * 11 * 2,
            weight_bytes=7 * 11 * 2,
            kv_read_bytes=2 * 5 * 7 * 2,
            read=0,
            write=2 * 5 * 11 * 2,
        ),
    ),
    "absorbed projection": (
        AbsorbedProjection(num_attention_heads=4, kv_lora_rank=7, qk_nope_head_dim=3, v_head_dim=5),
        materialised(
            matmul_flops=2 * (2 * 3 * 4) * 3 * 7 + 2 * (2 * 3 * 4) * 7 * 5,
            weight_read_bytes=4 * 7 * 3 * 2 + 4 * 7 * 5 * 2,
            weight_bytes=4 * 7 * 3 * 2 + 4 * 7 * 5 * 2,
            read=2 * 3 * 4 * 3 * 2 + 2 * 3 * 4 * 7 * 2,
            write=2 * 3 * 4 * 7 * 2 + 2 * 3 * 4 * 5 * 2,
        ),
    ),
    "latent attention, eager, complex": (
        DeepseekV2Attention(**LATENT),
        ROTATION_COMPLEX + CACHE + EXPANDED + CORE_FLASH + EAGER_BUFFERS,
    ),
    "latent attention, flash, interleaved": (
        DeepseekV2Attention(**LATENT, attention="flash", rope="interleaved"),
        ROTATION_INTERLEAVED + CACHE + EXPANDED + CORE_FLASH,
    ),
    "latent attention, flash, half": (
        DeepseekV2Attention(**LATENT, attention="flash", rope="half"),
        ROTATION_HALF + CACHE + EXPANDED + CORE_FLASH,
    ),
    "absorbed attention": (
        DeepseekV2AbsorbedAttention(**LATENT),
        ROTATION_COMPLEX
        + CACHE
        + materialised(
            matmul_flops=2 * (2 * 4 * 3 * 5) * (7 + 6) + 2 * (2 * 4 * 3 * 5) * 7,
            vector_flops=2 * 4 * 3 * 5 * (1 + 5),
            kv_read_bytes=2 * 5 * (7 + 6) * 2,
            read=2 * 3 * 4 * (7 + 6) * 2,
            write=2 * 3 * 4 * 7 * 2,
        ),
    ),
    "greedy router": (MoEGate(**ROUTER), SCORES + SOFTMAX + TOP_K + SCALED),
    "group-limited router": (
        MoEGate(**GROUPED, topk_method="group_limited_greedy"),
        SCORES + SOFTMAX + BEST_OF_GROUPS + GROUP_CHOICE + TOP_K + SCALED,
    ),
    "router with a correction bias": (
        MoEGate(**GROUPED, topk_method="noaux_tc"),
        SCORES + SIGMOID + CORRECTED + GROUP_CHOICE + TOP_K + SCALED,
    ),
    "router with a correction bias and normalised weights": (
        MoEGate(**GROUPED, topk_method="noaux_tc", norm_topk_prob=True),
        SCORES + SIGMOID + CORRECTED + GROUP_CHOICE + TOP_K + NORMALISED + SCALED,
    ),
    "greedy router, float32: no casts": (
        MoEGate(**ROUTER, element_bytes=4),
        materialised(
            matmul_flops=2 * (2 * 3) * 7 * 12,
            weight_read_bytes=12 * 7 * 4,
            weight_bytes=12 * 7 * 4,
            read=2 * 3 * 7 * 4,
            write=2 * 3 * 12 * 4,
        )
        + SOFTMAX
        + TOP_K
        + SCALED,
    ),
    "experts": (  # 2·3·5 pairs; all tokens together touch round(12·(1 − (7/12)⁶)·bytes)
        DeepseekV2Experts(hidden_size=7, n_routed_experts=12, num_experts_per_tok=5, moe_intermediate_size=11),
        materialised(
            matmul_flops=2 * (2 * 3 * 5) * 7 * (11 + 11) + 2 * (2 * 3 * 5) * 11 * 7,
            vector_flops=2 * 3 * 5 * 11 + 2 * 3 * 5 * 7 + 2 * 3 * 5 * 7,  # gate times up, weights, sum
            weight_read_bytes=round(12 * (1 - Fraction(7, 12) ** 6) * 2 * 11 * 7 * 2)
            + round(12 * (1 - Fraction(7, 12) ** 6) * 11 * 7 * 2),
            weight_bytes=12 * (2 * 11 * 7 + 7 * 11) * 2,
            read=2 * 3 * 5 * 7 * 2  # gathered
            + 2 * 3 * 5 * 7 * 2  # gate and up
            + 2 * 3 * 5 * (11 + 11) * 2  # their product
            + 2 * 3 * 5 * 11 * 2  # down
            + 2 * 3 * 5 * 4  # routing weights, gathered
            + 2 * 3 * 5 * 7 * 2
            + 2 * 3 * 5 * 4  # weighted
            + 2 * 3 * 5 * 7 * 4  # in token order
            + 2 * 3 * 5 * 7 * 4  # summed
            + 2 * 3 * 7 * 4,  # cast
            write=2 * 3 * 5 * 7 * 2
            + 2 * 3 * 5 * (11 + 11) * 2
            + 2 * 3 * 5 * 11 * 2
            + 2 * 3 * 5 * 7 * 2
            + 2 * 3 * 5 * 4
            + 2 * 3 * 5 * 7 * 4
            + 2 * 3 * 5 * 7 * 4
            + 2 * 3 * 7 * 4
            + 2 * 3 * 7 * 2,
        ),
    ),
    "experts, float32: the sum is not cast": (
        DeepseekV2Experts(
            hidden_size=7, n_routed_experts=12, num_experts_per_tok=5, moe_intermediate_size=11, element_bytes=4
        ),
        materialised(
            matmul_flops=2 * (2 * 3 * 5) * 7 * (11 + 11) + 2 * (2 * 3 * 5) * 11 * 7,
            vector_flops=2 * 3 * 5 * 11 + 2 * 3 * 5 * 7 + 2 * 3 * 5 * 7,
            weight_read_bytes=round(12 * (1 - Fraction(7, 12) ** 6) * 2 * 11 * 7 * 4)
            + round(12 * (1 - Fraction(7, 12) ** 6) * 11 * 7 * 4),
            weight_bytes=12 * (2 * 11 * 7 + 7 * 11) * 4,
            read=2 * 3 * 5 * (7 + 7 + (11 + 11) + 11 + 1 + (7 + 1) + 7 + 7) * 4,
            write=2 * 3 * 5 * (7 + (11 + 11) + 11 + 7 + 1 + 7 + 7) * 4 + 2 * 3 * 7 * 4,
        ),
    ),
    "routed plus shared": (
        moe(),
        materialised(vector_flops=2 * 3 * 7, read=(1 + 1) * 2 * 3 * 7 * 2, write=2 * 3 * 7 * 2),
    ),
    "routed plus shared, float32": (
        moe(element_bytes=4),
        materialised(vector_flops=2 * 3 * 7, read=(1 + 1) * 2 * 3 * 7 * 4, write=2 * 3 * 7 * 4),
    ),
}


@pytest.mark.parametrize(("layer", "expected"), OWN_WORK.values(), ids=OWN_WORK.keys())
def test_own_work_is_the_sum_of_its_terms(layer: Layer, expected: StageCost) -> None:
    assert layer.own(2, 3, 5) == expected


@pytest.mark.parametrize("rope", ["complex", "interleaved", "half"])
def test_latent_attention_in_float32_has_every_tensor_in_float32(rope: str) -> None:
    rotation_read, rotation_write = {
        "complex": (2 * 3 * (4 + 1) * 6 * 4 + 2 * (3 * 3 * 8), 2 * 3 * (4 + 1) * 6 * 4),  # no casts
        "interleaved": (2 * ROTATION_INTERLEAVED.activation_read_bytes, 2 * ROTATION_INTERLEAVED.activation_bytes),
        "half": (2 * ROTATION_HALF.activation_read_bytes, 2 * ROTATION_HALF.activation_bytes),
    }[rope]
    own = DeepseekV2Attention(**LATENT, rope=rope, element_bytes=4).own(2, 3, 5)
    assert own.activation_read_bytes == rotation_read + 2 * (
        CACHE.activation_read_bytes + EXPANDED.activation_read_bytes + CORE_FLASH.activation_read_bytes
    ) + (2 * 4 * 3 * 5 * 4 * 4 + 2 * 3 * 5 * 4)
    assert own.activation_bytes == rotation_write + 2 * (EXPANDED.activation_bytes + CORE_FLASH.activation_bytes) + (
        2 * 4 * 3 * 5 * 4 * 4
    )
    assert own.kv_bytes == 2 * CACHE.kv_bytes
    assert own.kv_write_bytes == 2 * CACHE.kv_write_bytes
    assert own.kv_read_bytes == 2 * EXPANDED.kv_read_bytes


def test_absorbed_attention_in_float32_has_every_tensor_in_float32() -> None:
    own = DeepseekV2AbsorbedAttention(**LATENT, rope="half", element_bytes=4).own(2, 3, 5)
    half = DeepseekV2AbsorbedAttention(**LATENT, rope="half").own(2, 3, 5)
    assert own.io_bytes == 2 * half.io_bytes
    assert own.activation_bytes == 2 * half.activation_bytes
    assert own.flops == half.flops


@pytest.mark.parametrize("kind", [LatentExpansion, AbsorbedProjection])
def test_kv_b_proj_in_float32_is_twice_the_bytes(kind: type[Layer]) -> None:
    sizes = {
        LatentExpansion: {"kv_lora_rank": 7, "out_features": 11},
        AbsorbedProjection: {"num_attention_heads": 4, "kv_lora_rank": 7, "qk_nope_head_dim": 3, "v_head_dim": 5},
    }[kind]
    two, four = (kind(**sizes, element_bytes=size).own(2, 3, 5) for size in (2, 4))
    assert four == 2 * two + StageCost(matmul_flops=-two.matmul_flops)


def test_flash_lacks_exactly_the_buffers_of_eager() -> None:
    eager, flash = (DeepseekV2Attention(**LATENT, attention=kind).cost(2, 3, 5) for kind in ("eager", "flash"))
    assert eager == flash + EAGER_BUFFERS


def test_parts_of_latent_attention_without_query_compression() -> None:
    layer = DeepseekV2Attention(**LATENT, attention_bias=True, element_bytes=4)
    assert layer.children() == {
        "q_proj": Linear(in_features=11, out_features=4 * (3 + 6), element_bytes=4),
        "kv_a_proj_with_mqa": Linear(in_features=11, out_features=7 + 6, bias=True, element_bytes=4),
        "kv_a_layernorm": RMSNorm(hidden_size=7, element_bytes=4),
        "kv_b_proj": LatentExpansion(kv_lora_rank=7, out_features=4 * (3 + 5), element_bytes=4),
        "o_proj": Linear(in_features=4 * 5, out_features=11, bias=True, element_bytes=4),
    }


def test_parts_of_latent_attention_with_query_compression() -> None:
    layer = DeepseekV2Attention(**{**LATENT, "q_lora_rank": 17}, attention_bias=True, element_bytes=4)
    assert layer.children() == {
        "q_a_proj": Linear(in_features=11, out_features=17, bias=True, element_bytes=4),
        "q_a_layernorm": RMSNorm(hidden_size=17, element_bytes=4),
        "q_b_proj": Linear(in_features=17, out_features=4 * (3 + 6), element_bytes=4),
        "kv_a_proj_with_mqa": Linear(in_features=11, out_features=7 + 6, bias=True, element_bytes=4),
        "kv_a_layernorm": RMSNorm(hidden_size=7, element_bytes=4),
        "kv_b_proj": LatentExpansion(kv_lora_rank=7, out_features=4 * (3 + 5), element_bytes=4),
        "o_proj": Linear(in_features=4 * 5, out_features=11, bias=True, element_bytes=4),
    }


def test_biases_are_off_and_elements_are_two_bytes_unless_said() -> None:
    parts = DeepseekV2Attention(**LATENT).children()
    assert parts["o_proj"] == Linear(in_features=4 * 5, out_features=11, element_bytes=2)


def test_absorbing_a_projection_changes_one_part_and_no_parameter() -> None:
    expanded, absorbed = DeepseekV2Attention(**LATENT), DeepseekV2AbsorbedAttention(**LATENT, element_bytes=4)
    assert absorbed.children()["kv_b_proj"] == AbsorbedProjection(
        num_attention_heads=4, kv_lora_rank=7, qk_nope_head_dim=3, v_head_dim=5, element_bytes=4
    )
    assert absorbed.attention == "flash"
    with pytest.raises(TypeError, match="attention"):
        DeepseekV2AbsorbedAttention(**LATENT, attention="eager")  # type: ignore[call-arg]
    half = DeepseekV2AbsorbedAttention(**LATENT)
    for name in ("weight_bytes", "weight_read_bytes", "kv_bytes", "kv_write_bytes", "kv_read_bytes"):
        assert getattr(half.cost(2, 3, 5), name) == getattr(expanded.cost(2, 3, 5), name)
    others = expanded.children().keys() - {"kv_b_proj"}
    assert {name: half.children()[name] for name in others} == {name: expanded.children()[name] for name in others}


@given(head=st.integers(1, 9), rank=st.integers(1, 9), past=st.integers(0, 10**6))
def test_absorbed_scores_are_the_expanded_ones_by_associativity(head: int, rank: int, past: int) -> None:
    """(q W_UK) c = q (W_UK c): with one query the two orders differ by what each multiplies first."""
    sizes = {**LATENT, "qk_nope_head_dim": head, "v_head_dim": head, "kv_lora_rank": rank}
    expanded = DeepseekV2Attention(**sizes).cost(1, 1, past + 1).matmul_flops
    absorbed = DeepseekV2AbsorbedAttention(**sizes).cost(1, 1, past + 1).matmul_flops
    expansion = 2 * (past + 1) * 4 * rank * (head + head)
    core = 2 * (past + 1) * 4 * (head + head)
    assert expanded - absorbed == expansion + core - (2 * 4 * rank * (head + head) + 2 * (past + 1) * 4 * (rank + rank))


def test_parts_of_the_mixture() -> None:
    layer = moe()
    assert layer.children() == {
        "experts": layer.experts,
        "gate": layer.gate,
        "shared_experts": layer.shared_experts,
    }
    assert moe(element_bytes=4).experts.children() == {"act_fn": SiLU(features=5 * 11, element_bytes=4)}
    assert set(layer.modules(2, 3, 5)) >= {"experts.act_fn", "shared_experts.act_fn", "shared_experts.up_proj"}


# Expected distinct experts


@pytest.mark.parametrize(
    ("tokens", "experts", "expected"),
    [
        (1, (64, 6), 6 * 1024),
        (2, (64, 6), 12 * 1024 - 36 * 1024 // 64),  # 64·(1 − (58/64)²) = 12 − 36/64
        (1, (8, 8), 8 * 1024),
        (7, (8, 8), 8 * 1024),
        (10**9, (64, 6), 64 * 1024),
        (10**18, (256, 8), 256 * 1024),
    ],
)
def test_expected_experts(tokens: int, experts: tuple[int, int], expected: int) -> None:
    assert expected_experts_bytes(tokens, *experts, 1024) == expected


@given(
    tokens=st.integers(1, 3000),
    experts=st.integers(1, 300),
    chosen=st.integers(1, 300),
    expert_bytes=st.integers(1, 10**9),
)
def test_expected_experts_are_the_exact_value_rounded(
    tokens: int, experts: int, chosen: int, expert_bytes: int
) -> None:
    chosen = min(chosen, experts)
    exact = experts * (1 - (1 - Fraction(chosen, experts)) ** tokens) * expert_bytes
    assert expected_experts_bytes(tokens, experts, chosen, expert_bytes) == round(exact)


def test_a_byte_that_is_probably_not_read_is_not_read() -> None:
    assert Fraction(1, 2) < 15 * Fraction(2, 3) ** 8 < 1
    assert expected_experts_bytes(8, 3, 1, 5) == 15 - 1
    assert Fraction(1, 2) < 3 * Fraction(2, 3) ** 3 < 1
    assert expected_experts_bytes(3, 3, 1, 1) == 3 - 1
    assert expected_experts_bytes(9, 3, 1, 5) == 15


def test_expected_experts_is_an_int_whatever_kind_of_whole_number_it_is_given() -> None:
    for tokens in (6, np.int64(6), np.array(6), sympy.Integer(6)):
        value = expected_experts_bytes(tokens, 64, 6, 100)
        assert type(value) is int
        assert value == round(64 * (1 - Fraction(58, 64) ** 6) * 100)


@pytest.mark.parametrize("dtype", ["int64", "object"])
def test_expected_experts_of_an_array(dtype: str) -> None:
    tokens = [1, 2, 7, 100, 10**6]
    got = expected_experts_bytes(np.array(tokens, dtype=dtype), 64, 6, 2 * 1280 * 896 * 2)
    assert got.dtype == dtype
    assert got.tolist() == [expected_experts_bytes(count, 64, 6, 2 * 1280 * 896 * 2) for count in tokens]


def test_expected_experts_of_a_symbol_is_exact() -> None:
    tokens = sympy.Symbol("T", integer=True, positive=True)
    expression = expected_experts_bytes(tokens, 64, 6, 100)
    assert expression.subs(tokens, 2) == sympy.Rational(64 * 100) * (1 - sympy.Rational(58, 64) ** 2)


# Whole models


def test_v2_config_fields_reach_the_layers() -> None:
    config = {
        **TINY,
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
        "topk_method": "group_limited_greedy",
        "n_group": 4,
        "topk_group": 2,
    }
    model = DeepseekModel.from_config(config, attention="flash", element_bytes=4)
    self_attn = DeepseekV2Attention(
        **{**LATENT, "q_lora_rank": 17}, attention="flash", rope="complex", attention_bias=True, element_bytes=4
    )
    mlp = {"hidden_size": 11, "mlp_bias": True, "element_bytes": 4}
    routed: dict[str, Any] = {
        "hidden_size": 11,
        "n_routed_experts": 8,
        "num_experts_per_tok": 3,
        "element_bytes": 4,
    }
    mixture = DeepseekV2MoE(
        gate=MoEGate(topk_method="group_limited_greedy", n_group=4, topk_group=2, **routed),
        experts=DeepseekV2Experts(moe_intermediate_size=5, **routed),
        shared_experts=DeepseekV2MLP(intermediate_size=5 * 2, **mlp),
    )
    dense, sparse = (
        DeepseekV2DecoderLayer(hidden_size=11, self_attn=self_attn, mlp=feed_forward, element_bytes=4)
        for feed_forward in (DeepseekV2MLP(intermediate_size=13, **mlp), mixture)
    )
    assert model.model.layers == (dense, sparse, sparse)
    assert model.model.rotary_emb == DeepseekV2RotaryEmbedding(head_dim=6)
    assert model.model.norm == RMSNorm(hidden_size=11, element_bytes=4)
    assert (model.model.vocab_size, model.model.hidden_size) == (19, 11)
    assert (model.model.attention, model.model.element_bytes) == ("flash", 4)
    assert model.tie_word_embeddings


def test_v2_defaults() -> None:
    model = DeepseekModel.from_config({**TINY, "q_lora_rank": None})
    dense, sparse, _ = model.model.layers
    assert dense.children()["self_attn"] == DeepseekV2Attention(**LATENT)
    assert dense.children()["mlp"] == DeepseekV2MLP(hidden_size=11, intermediate_size=13)
    assert sparse.children()["mlp"].children()["gate"] == MoEGate(
        hidden_size=11, n_routed_experts=8, num_experts_per_tok=3
    )
    assert (model.model.attention, model.tie_word_embeddings) == ("eager", False)
    explicit = {"topk_method": "greedy", "n_group": None, "topk_group": None, "hidden_act": "silu"}
    assert DeepseekModel.from_config({**TINY, **explicit}) == DeepseekModel.from_config(TINY)


def test_v3_routes_and_rotates_its_own_way() -> None:
    model = DeepseekModel.from_config({**TINY_V3, "mlp_bias": True}, element_bytes=4)
    dense, sparse, _ = model.model.layers
    gate = sparse.children()["mlp"].children()["gate"]
    assert gate == MoEGate(
        hidden_size=11,
        n_routed_experts=8,
        num_experts_per_tok=3,
        topk_method="noaux_tc",
        n_group=4,
        topk_group=2,
        norm_topk_prob=True,
        element_bytes=4,
    )
    assert model.model.rotary_emb == LlamaRotaryEmbedding(head_dim=6, element_bytes=4)
    assert dense.children()["mlp"] == DeepseekV2MLP(hidden_size=11, intermediate_size=13, element_bytes=4)
    for interleave, rope in ((True, "interleaved"), (False, "half")):
        layer = DeepseekModel.from_config({**TINY_V3, "rope_interleave": interleave}).model.layers[0]
        assert layer.children()["self_attn"] == DeepseekV2Attention(**{**LATENT, "q_lora_rank": 17}, rope=rope)
    assert DeepseekModel.from_config({**TINY_V3, "rope_interleave": True}) == DeepseekModel.from_config(TINY_V3)


def test_absorbed_models_keep_everything_but_the_attention() -> None:
    flash, absorbed = (DeepseekModel.from_config(TINY_V3, attention="flash", absorbed=flag) for flag in (False, True))
    sizes = {**LATENT, "q_lora_rank": 17}
    expected = DeepseekV2AbsorbedAttention(**sizes, rope="interleaved")
    assert {layer.children()["self_attn"] for layer in absorbed.model.layers} == {expected}
    for before, after in zip(flash.model.layers, absorbed.model.layers, strict=True):
        assert before.children()["mlp"] == after.children()["mlp"]
    with pytest.raises(ModelError, match="'eager'"):
        DeepseekModel.from_config(TINY_V3, absorbed=True)


@pytest.mark.parametrize("missing", sorted(TINY))
def test_a_missing_field_is_named(missing: str) -> None:
    config = {name: value for name, value in TINY.items() if name != missing}
    with pytest.raises(ModelError, match=f"no field '{missing}'"):
        DeepseekModel.from_config(config)


def test_what_the_formulas_do_not_know_is_refused() -> None:
    with pytest.raises(ModelError, match="topk_method is 'random'"):
        DeepseekModel.from_config({**TINY, "topk_method": "random"})
    with pytest.raises(ModelError, match="hidden_act is 'gelu'"):
        DeepseekModel.from_config({**TINY, "hidden_act": "gelu"})


def test_deepseek_v2_lite_prefill_is_the_known_answer() -> None:
    model = DeepseekModel.from_config(DEEPSEEK_V2_LITE)
    modules = model.modules(1, 2048, 2048)
    core = 27 * 2 * (16 * 2048 * 2048) * (128 + 64 + 128)
    routed = sum(cost.matmul_flops for path, cost in modules.items() if path.endswith(".experts"))
    assert round(core / 1e12, 6) == 1.159641
    assert round(routed / 1e12, 6) == 5.527623
    assert round(modules[""].matmul_flops / 1e12, 6) == 11.200201
    assert round((modules[""].matmul_flops - core - routed) / 1e12, 6) == 4.512937
    assert modules[""].kv_bytes == 27 * 2048 * (512 + 64) * 2


@pytest.mark.parametrize(("config", "attention"), [(TINY, "eager"), (TINY_V3, "flash"), (TINY_V3, "eager")])
@pytest.mark.parametrize("dtype", ["int64", "object"])
def test_arrays_give_what_ints_give(config: dict[str, Any], attention: str, dtype: str) -> None:
    model = DeepseekModel.from_config(config, attention=attention)
    batch, query_len, kv_len = [1, 2, 7], [1, 3, 1], [4, 3, 9]
    arrays = model.cost(*(np.array(values, dtype=dtype) for values in (batch, query_len, kv_len)))
    for index, scenario in enumerate(zip(batch, query_len, kv_len, strict=True)):
        expected = model.cost(*scenario)
        got = {name: np.broadcast_to(getattr(arrays, name), 3)[index] for name in FIELDS}
        assert got == {name: getattr(expected, name) for name in FIELDS}


@pytest.mark.parametrize("absorbed", [False, True])
@pytest.mark.parametrize("config", [TINY, TINY_V3])
def test_symbols_give_what_ints_give(config: dict[str, Any], absorbed: bool) -> None:
    model = DeepseekModel.from_config(config, attention="flash", absorbed=absorbed)
    symbols = sympy.symbols("B S_q S_kv", integer=True, positive=True)
    values = dict(zip(symbols, (2, 3, 5), strict=True))
    symbolic, expected = model.cost(*symbols), model.cost(2, 3, 5)
    for name in FIELDS:
        got = sympy.sympify(getattr(symbolic, name)).subs(values)
        if name == "weight_read_bytes":  # the expectation is not rounded: twice half a byte in each of two layers
            assert abs(got - expected.weight_read_bytes) <= 2 * 2 * Fraction(1, 2)
        else:
            assert got == getattr(expected, name)


lengths = st.integers(min_value=1, max_value=10**6)


@given(batch=lengths, query_len=lengths, past_len=st.integers(0, 10**6), config=st.sampled_from([TINY, TINY_V3]))
def test_cost_but_for_expert_weights_is_affine_in_the_batch(
    batch: int, query_len: int, past_len: int, config: dict[str, Any]
) -> None:
    model = DeepseekModel.from_config(config)
    one, two, many = (model.cost(n, query_len, past_len + query_len) for n in (1, 2, batch))
    for name in set(FIELDS) - {"weight_read_bytes"}:
        first, second = getattr(one, name), getattr(two, name)
        assert getattr(many, name) == first + (batch - 1) * (second - first)
    assert many.matmul_flops == batch * one.matmul_flops


@given(batch=lengths, query_len=lengths, kv_len=lengths, config=st.sampled_from([TINY, TINY_V3]))
def test_a_further_sparse_layer_always_costs_the_same(
    batch: int, query_len: int, kv_len: int, config: dict[str, Any]
) -> None:
    costs = [
        DeepseekModel.from_config({**config, "num_hidden_layers": layers}).cost(batch, query_len, kv_len)
        for layers in range(1, 5)
    ]
    assert len({more + -1 * fewer for fewer, more in pairwise(costs)}) == 1


@pytest.mark.parametrize("config", [TINY, TINY_V3])
def test_expert_weights_read_grow_with_tokens_up_to_all_of_them(config: dict[str, Any]) -> None:
    experts = DeepseekModel.from_config(config).model.layers[1].children()["mlp"].children()["experts"]
    read = [experts.cost(batch, 1, 9).weight_read_bytes for batch in (1, 2, 3, 5, 8, 100)]
    assert read == sorted(set(read))
    assert read[0] == 3 * (2 * 5 * 11 + 5 * 11) * 2
    assert read[-1] == experts.cost(1, 1, 1).weight_bytes == 8 * (2 * 5 * 11 + 5 * 11) * 2
