"""Every term of Llama's hand-written formulas, as products of a scenario's sizes and a layer's.

The scenario of the tables is B = 2, S_q = 3, S_kv = 5. Sizes are small primes, so that no two terms are equal.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from fxmeter.models import ModelError, StageCost
from fxmeter.models.hand.causal_lm import Decoder
from fxmeter.models.hand.layer import AttentionCore, Embedding, Layer, Linear, RMSNorm, SiLU
from fxmeter.models.hand.llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaFlashAttention2,
    LlamaMLP,
    LlamaModel,
    LlamaRotaryEmbedding,
    rotate_half_cost,
)
from fxmeter.models.stage_cost import FIELDS

LLAMA_2_7B = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
}
TINY = {
    "hidden_size": 14,
    "intermediate_size": 11,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "vocab_size": 13,
}


def materialised(*, read: int, write: int, **others: int) -> StageCost:
    """A cost whose written activations are all new tensors."""
    return StageCost(activation_read_bytes=read, activation_write_bytes=write, activation_bytes=write, **others)


def attention(kind: type[LlamaAttention] = LlamaAttention, **sizes: int) -> LlamaAttention:
    defaults = {"hidden_size": 7, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 6}
    return kind(**{**defaults, **sizes})


ROTATION_BF16 = materialised(  # 4 query and 2 key heads of 6, in 3 pairs
    vector_flops=2 * 3 * (4 + 2) * 3 * (2 + 1 + 2 + 2),  # x cos, negated half, its product with sin, sum
    read=2 * 3 * (4 + 2) * 3 * (2 + 1 + 2 + 2 + 4) * 2 + (2 + 2) * (3 * 6) * 2,  # and cos, sin for q, for k
    write=2 * 3 * (4 + 2) * 3 * (2 + 1 + 2 + 2 + 2) * 2,
)
CACHE_BF16 = StageCost(  # keys and values of 2 heads of 6
    activation_read_bytes=2 * 3 * (2 * 2 * 6) * 2,
    kv_write_bytes=2 * 3 * (2 * 2 * 6) * 2,
    kv_read_bytes=2 * 5 * (2 * 2 * 6) * 2,
    kv_bytes=2 * 5 * (2 * 2 * 6) * 2,
    kv_storage_bytes=2 * 5 * (2 * 2 * 6) * 2,
)
CORE_FLASH_BF16 = materialised(
    matmul_flops=2 * (2 * 4 * 3 * 5) * 6 + 2 * (2 * 4 * 3 * 5) * 6,
    vector_flops=2 * 4 * 3 * 5 * (1 + 5),
    read=2 * 3 * 4 * 6 * 2,
    write=2 * 3 * 4 * 6 * 2,
)
EAGER_BUFFERS_BF16 = materialised(  # product, scaled, masked, softmax in float32, cast back; the mask once
    vector_flops=2 * 4 * 3 * 5,
    read=2 * 4 * 3 * 5 * (2 + 2 + 2 + 4 + 2) + 2 * 3 * 5 * 2,
    write=2 * 4 * 3 * 5 * (2 + 2 + 2 + 4 + 2),
)
REPEATED_BF16 = materialised(read=2 * (2 * 4 * 5 * 6) * 2, write=2 * (2 * 4 * 5 * 6) * 2)

OWN_WORK = {
    "linear": (
        Linear(in_features=7, out_features=11),
        materialised(
            matmul_flops=2 * (2 * 3) * 7 * 11,
            weight_read_bytes=7 * 11 * 2,
            weight_bytes=7 * 11 * 2,
            read=2 * 3 * 7 * 2,
            write=2 * 3 * 11 * 2,
        ),
    ),
    "linear with a bias, float32": (
        Linear(in_features=7, out_features=11, bias=True, element_bytes=4),
        materialised(
            matmul_flops=2 * (2 * 3) * 7 * 11,
            vector_flops=2 * 3 * 11,
            weight_read_bytes=7 * 11 * 4 + 11 * 4,
            weight_bytes=7 * 11 * 4 + 11 * 4,
            read=2 * 3 * 7 * 4,
            write=2 * 3 * 11 * 4,
        ),
    ),
    "linear that shares the weight of another": (
        Linear(in_features=7, out_features=11, tied=True),
        materialised(
            matmul_flops=2 * (2 * 3) * 7 * 11,
            weight_read_bytes=7 * 11 * 2,
            read=2 * 3 * 7 * 2,
            write=2 * 3 * 11 * 2,
        ),
    ),
    "embedding": (
        Embedding(vocab_size=13, hidden_size=7),
        materialised(weight_read_bytes=2 * 3 * 7 * 2, weight_bytes=13 * 7 * 2, read=2 * 3 * 8, write=2 * 3 * 7 * 2),
    ),
    "embedding, float32": (
        Embedding(vocab_size=13, hidden_size=7, element_bytes=4),
        materialised(weight_read_bytes=2 * 3 * 7 * 4, weight_bytes=13 * 7 * 4, read=2 * 3 * 8, write=2 * 3 * 7 * 4),
    ),
    "silu": (
        SiLU(features=7),
        materialised(vector_flops=2 * 3 * 7 * 5, read=2 * 3 * 7 * 2, write=2 * 3 * 7 * 2),
    ),
    "silu, float32": (
        SiLU(features=7, element_bytes=4),
        materialised(vector_flops=2 * 3 * 7 * 5, read=2 * 3 * 7 * 4, write=2 * 3 * 7 * 4),
    ),
    "norm": (
        RMSNorm(hidden_size=7),
        materialised(  # cast, square, mean, + eps, rsqrt, product, cast, weight
            vector_flops=2 * 3 * (7 + (7 + 1) + 1 + 1 + 7 + 7),
            weight_read_bytes=7 * 2,
            weight_bytes=7 * 2,
            read=2 * 3 * (7 * 2 + 7 * 4 + 7 * 4 + 4 + 4 + (7 * 4 + 4) + 7 * 4 + 7 * 2),
            write=2 * 3 * (7 * 4 + 7 * 4 + 4 + 4 + 4 + 7 * 4 + 7 * 2 + 7 * 2),
        ),
    ),
    "norm, float32: no casts": (
        RMSNorm(hidden_size=7, element_bytes=4),
        materialised(
            vector_flops=2 * 3 * (7 + (7 + 1) + 1 + 1 + 7 + 7),
            weight_read_bytes=7 * 4,
            weight_bytes=7 * 4,
            read=2 * 3 * (7 * 4 + 7 * 4 + 4 + 4 + (7 * 4 + 4) + 7 * 4),
            write=2 * 3 * (7 * 4 + 4 + 4 + 4 + 7 * 4 + 7 * 4),
        ),
    ),
    "rotary embedding": (
        LlamaRotaryEmbedding(head_dim=6),
        materialised(  # positions cast, angles, angles twice, cos, scaled, sin, scaled, both cast
            vector_flops=3 * 3 + 3 * 6 * (1 + 1 + 1 + 1),
            weight_read_bytes=3 * 4,
            read=3 * 8 + 3 * 4 + 3 * 3 * 4 + 3 * 6 * (4 + 4 + 4 + 4 + 4 + 4),
            write=3 * 4 + 3 * 3 * 4 + 3 * 6 * (4 + 4 + 4 + 4 + 4 + 2 + 2),
        ),
    ),
    "rotary embedding, float32: no casts": (
        LlamaRotaryEmbedding(head_dim=6, element_bytes=4),
        materialised(
            vector_flops=3 * 3 + 3 * 6 * (1 + 1 + 1 + 1),
            weight_read_bytes=3 * 4,
            read=3 * 8 + 3 * 4 + 3 * 3 * 4 + 3 * 6 * (4 + 4 + 4 + 4),
            write=3 * 4 + 3 * 3 * 4 + 3 * 6 * (4 + 4 + 4 + 4 + 4),
        ),
    ),
    "flash core": (
        AttentionCore(num_attention_heads=7, qk_head_dim=11, v_head_dim=13, attention="flash"),
        materialised(
            matmul_flops=2 * (2 * 7 * 3 * 5) * 11 + 2 * (2 * 7 * 3 * 5) * 13,
            vector_flops=2 * 7 * 3 * 5 * (1 + 5),
            read=2 * 3 * 7 * 11 * 2,
            write=2 * 3 * 7 * 13 * 2,
        ),
    ),
    "eager core": (
        AttentionCore(num_attention_heads=7, qk_head_dim=11, v_head_dim=13, attention="eager"),
        materialised(
            matmul_flops=2 * (2 * 7 * 3 * 5) * 11 + 2 * (2 * 7 * 3 * 5) * 13,
            vector_flops=2 * 7 * 3 * 5 * (1 + 1 + 5),
            read=2 * 3 * 7 * 11 * 2 + 2 * 7 * 3 * 5 * (2 + 2 + 2 + 4 + 2) + 2 * 3 * 5 * 2,
            write=2 * 3 * 7 * 13 * 2 + 2 * 7 * 3 * 5 * (2 + 2 + 2 + 4 + 2),
        ),
    ),
    "eager core, float32: softmax is not cast back": (
        AttentionCore(num_attention_heads=7, qk_head_dim=11, v_head_dim=13, attention="eager", element_bytes=4),
        materialised(
            matmul_flops=2 * (2 * 7 * 3 * 5) * 11 + 2 * (2 * 7 * 3 * 5) * 13,
            vector_flops=2 * 7 * 3 * 5 * (1 + 1 + 5),
            read=2 * 3 * 7 * 11 * 4 + 2 * 7 * 3 * 5 * (4 + 4 + 4 + 4) + 2 * 3 * 5 * 4,
            write=2 * 3 * 7 * 13 * 4 + 2 * 7 * 3 * 5 * (4 + 4 + 4 + 4),
        ),
    ),
    "grouped-query attention, eager": (
        attention(num_key_value_heads=2),
        ROTATION_BF16 + CACHE_BF16 + REPEATED_BF16 + CORE_FLASH_BF16 + EAGER_BUFFERS_BF16,
    ),
    "grouped-query attention, flash": (
        attention(LlamaFlashAttention2, num_key_value_heads=2),
        ROTATION_BF16 + CACHE_BF16 + CORE_FLASH_BF16,
    ),
    "gated product of the MLP": (
        LlamaMLP(hidden_size=7, intermediate_size=11),
        materialised(vector_flops=2 * 3 * 11, read=(1 + 1) * 2 * 3 * 11 * 2, write=2 * 3 * 11 * 2),
    ),
    "gated product of the MLP, float32": (
        LlamaMLP(hidden_size=7, intermediate_size=11, element_bytes=4),
        materialised(vector_flops=2 * 3 * 11, read=(1 + 1) * 2 * 3 * 11 * 4, write=2 * 3 * 11 * 4),
    ),
    "two residual additions": (
        LlamaDecoderLayer(hidden_size=7, self_attn=Layer(), mlp=Layer()),
        materialised(
            vector_flops=2 * 3 * 7 + 2 * 3 * 7,
            read=(1 + 1) * 2 * 3 * 7 * 2 + (1 + 1) * 2 * 3 * 7 * 2,
            write=2 * 3 * 7 * 2 + 2 * 3 * 7 * 2,
        ),
    ),
    "causal mask, eager": (
        Decoder(vocab_size=13, hidden_size=7, layers=(), norm=Layer(), rotary_emb=Layer(), attention="eager"),
        materialised(read=3 * 8 + 3 * 5 * 1, write=2 * 3 * 8 + 3 * 5 * 1 + 2 * 3 * 5 * 2),
    ),
    "causal mask, eager, float32": (
        Decoder(
            vocab_size=13,
            hidden_size=7,
            layers=(),
            norm=Layer(),
            rotary_emb=Layer(),
            attention="eager",
            element_bytes=4,
        ),
        materialised(read=3 * 8 + 3 * 5 * 1, write=2 * 3 * 8 + 3 * 5 * 1 + 2 * 3 * 5 * 4),
    ),
    "positions, and with flash no causal mask": (
        Decoder(vocab_size=13, hidden_size=7, layers=(), norm=Layer(), rotary_emb=Layer(), attention="flash"),
        materialised(read=3 * 8, write=2 * 3 * 8),
    ),
}


@pytest.mark.parametrize(("layer", "expected"), OWN_WORK.values(), ids=OWN_WORK.keys())
def test_own_work_is_the_sum_of_its_terms(layer: Layer, expected: StageCost) -> None:
    assert layer.own(2, 3, 5) == expected


def test_attention_in_float32_has_every_buffer_in_float32() -> None:
    own = attention(num_key_value_heads=2, element_bytes=4).own(2, 3, 5)
    assert own == materialised(
        matmul_flops=2 * (2 * 4 * 3 * 5) * (6 + 6),
        vector_flops=2 * 3 * (4 + 2) * 3 * 7 + 2 * 4 * 3 * 5 * 7,
        read=2 * 3 * (4 + 2) * 3 * 11 * 4  # rotation
        + (2 + 2) * (3 * 6) * 4  # cos and sin
        + 2 * 3 * (2 * 2 * 6) * 4  # new keys and values
        + 2 * (2 * 4 * 5 * 6) * 4  # repeated keys and values
        + 2 * 3 * 4 * 6 * 4  # queries
        + 2 * 4 * 3 * 5 * 4 * 4  # scores
        + 2 * 3 * 5 * 4,  # mask
        write=2 * 3 * (4 + 2) * 3 * 9 * 4 + 2 * (2 * 4 * 5 * 6) * 4 + 2 * 3 * 4 * 6 * 4 + 2 * 4 * 3 * 5 * 4 * 4,
        kv_write_bytes=2 * 3 * (2 * 2 * 6) * 4,
        kv_read_bytes=2 * 5 * (2 * 2 * 6) * 4,
        kv_bytes=2 * 5 * (2 * 2 * 6) * 4,
        kv_storage_bytes=2 * 5 * (2 * 2 * 6) * 4,
    )


def test_multi_head_attention_repeats_nothing() -> None:
    repeating = attention(num_key_value_heads=2).own(2, 3, 5).activation_bytes
    rotation = rotate_half_cost(2, 3, heads=4 + 2, head_dim=6, element_bytes=2).activation_bytes
    core = CORE_FLASH_BF16.activation_bytes + EAGER_BUFFERS_BF16.activation_bytes
    assert repeating == rotation + core + 2 * (2 * 4 * 5 * 6) * 2
    assert attention().own(2, 3, 5).activation_bytes == 2 * 3 * (4 + 4) * 3 * 9 * 2 + core


@pytest.mark.parametrize("kind", [LlamaAttention, LlamaFlashAttention2])
def test_tensors_of_attention_are_proportional_to_the_batch(kind: type[LlamaAttention]) -> None:
    layer = attention(kind, num_key_value_heads=2)
    assert layer.own(7, 3, 5).activation_bytes == 7 * layer.own(1, 3, 5).activation_bytes


def test_attention_says_which_it_is() -> None:
    assert (LlamaAttention.attention, LlamaFlashAttention2.attention) == ("eager", "flash")


def test_flash_lacks_exactly_the_buffers_of_eager() -> None:
    eager = attention(num_key_value_heads=2).cost(2, 3, 5)
    flash = attention(LlamaFlashAttention2, num_key_value_heads=2).cost(2, 3, 5)
    assert eager == flash + EAGER_BUFFERS_BF16 + REPEATED_BF16


def test_flash_decode_activations_do_not_depend_on_the_context() -> None:
    flash = attention(LlamaFlashAttention2, num_key_value_heads=2)
    assert flash.cost(2, 1, 5).activation_bytes == flash.cost(2, 1, 5000).activation_bytes


def test_parts_of_attention() -> None:
    layer = attention(num_key_value_heads=2, element_bytes=4, attention_bias=True)
    expected = {"q_proj": (7, 4 * 6), "k_proj": (7, 2 * 6), "v_proj": (7, 2 * 6), "o_proj": (4 * 6, 7)}
    assert layer.children() == {
        name: Linear(in_features=rows, out_features=columns, bias=True, element_bytes=4)
        for name, (rows, columns) in expected.items()
    }
    assert layer.modules(2, 3, 5)["k_proj"].matmul_flops == 2 * (2 * 3) * 7 * (2 * 6)


def test_parts_of_the_mlp() -> None:
    assert LlamaMLP(hidden_size=7, intermediate_size=11, mlp_bias=True, element_bytes=4).children() == {
        "gate_proj": Linear(in_features=7, out_features=11, bias=True, element_bytes=4),
        "up_proj": Linear(in_features=7, out_features=11, bias=True, element_bytes=4),
        "down_proj": Linear(in_features=11, out_features=7, bias=True, element_bytes=4),
        "act_fn": SiLU(features=11, element_bytes=4),
    }


def test_biases_are_off_and_elements_are_two_bytes_unless_said() -> None:
    assert attention().children()["q_proj"] == Linear(in_features=7, out_features=4 * 6, element_bytes=2)
    mlp = LlamaMLP(hidden_size=7, intermediate_size=11)
    assert mlp.children()["up_proj"] == Linear(in_features=7, out_features=11, element_bytes=2)


def test_parts_of_a_decoder_layer() -> None:
    self_attn, mlp = attention(), LlamaMLP(hidden_size=7, intermediate_size=11)
    layer = LlamaDecoderLayer(hidden_size=7, self_attn=self_attn, mlp=mlp, element_bytes=4)
    assert layer.children() == {
        "self_attn": self_attn,
        "mlp": mlp,
        "input_layernorm": RMSNorm(hidden_size=7, element_bytes=4),
        "post_attention_layernorm": RMSNorm(hidden_size=7, element_bytes=4),
    }
    assert layer.own(2, 3, 5).activation_bytes == (1 + 1) * 2 * 3 * 7 * 4


def test_a_layer_costs_its_own_work_and_its_parts() -> None:
    layer = LlamaModel.from_config(TINY).model.layers[0]
    parts = [part.cost(2, 3, 5) for part in layer.children().values()]
    assert layer.cost(2, 3, 5) == layer.own(2, 3, 5) + StageCost.total(parts)


def test_modules_are_named_as_in_the_module_tree() -> None:
    projections = [f"self_attn.{name}_proj" for name in "qkvo"]
    mlp = [f"mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj", "act_fn")]
    inside = ["self_attn", *projections, "mlp", *mlp, "input_layernorm", "post_attention_layernorm"]
    layers = [
        path
        for index in (0, 1)
        for path in (f"model.layers.{index}", *(f"model.layers.{index}.{name}" for name in inside))
    ]
    modules = LlamaModel.from_config(TINY).modules(2, 3, 5)
    assert list(modules) == [
        "",
        "model",
        "model.embed_tokens",
        *layers,
        "model.norm",
        "model.rotary_emb",
        "lm_head",
    ]


@pytest.mark.parametrize("attention", ["eager", "flash"])
def test_modules_add_up(attention: str) -> None:
    model = LlamaModel.from_config(TINY, attention=attention)
    modules = model.modules(2, 3, 5)
    tops = ("model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "model.rotary_emb")
    assert modules[""] == model.cost(2, 3, 5) == modules["model"] + modules["lm_head"]
    assert modules["model"] == model.model.own(2, 3, 5) + StageCost.total(modules[path] for path in tops)


def test_config_fields_reach_the_layers() -> None:
    config = {**TINY, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}
    model = LlamaModel.from_config(config, attention="flash", element_bytes=4)
    layer = LlamaDecoderLayer(
        hidden_size=14,
        self_attn=LlamaFlashAttention2(
            hidden_size=14,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=6,
            attention_bias=True,
            element_bytes=4,
        ),
        mlp=LlamaMLP(hidden_size=14, intermediate_size=11, mlp_bias=True, element_bytes=4),
        element_bytes=4,
    )
    assert model.model == Decoder(
        vocab_size=13,
        hidden_size=14,
        layers=(layer, layer),
        norm=RMSNorm(hidden_size=14, element_bytes=4),
        rotary_emb=LlamaRotaryEmbedding(head_dim=6, element_bytes=4),
        attention="flash",
        element_bytes=4,
    )
    assert model.children() == {
        "model": model.model,
        "lm_head": Linear(in_features=14, out_features=13, tied=True, element_bytes=4),
    }
    assert model.model.children()["embed_tokens"] == Embedding(vocab_size=13, hidden_size=14, element_bytes=4)


def test_heads_and_head_size_have_llamas_defaults() -> None:
    config = {**TINY, "hidden_size": 20, "num_key_value_heads": None, "head_dim": None}
    expected = LlamaAttention(hidden_size=20, num_attention_heads=4, num_key_value_heads=4, head_dim=20 // 4)
    model = LlamaModel.from_config(config)
    assert model.model.layers[0].children()["self_attn"] == expected
    assert not model.tie_word_embeddings
    mlp = LlamaMLP(hidden_size=20, intermediate_size=11)
    assert model.model.layers[0].children()["mlp"] == mlp
    assert model.model.attention == "eager"
    assert model.model.element_bytes == 2


def test_tied_embeddings_are_resident_once() -> None:
    apart, tied = (LlamaModel.from_config({**TINY, "tie_word_embeddings": tie}).cost(2, 3, 5) for tie in (False, True))
    assert apart.weight_bytes - tied.weight_bytes == 13 * 14 * 2
    assert apart.weight_read_bytes == tied.weight_read_bytes


@pytest.mark.parametrize(
    "missing",
    ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"],
)
def test_a_missing_field_is_named(missing: str) -> None:
    config = {name: value for name, value in TINY.items() if name != missing}
    with pytest.raises(ModelError, match=f"no field '{missing}'"):
        LlamaModel.from_config(config)


def test_an_mlp_that_is_not_swiglu_is_refused() -> None:
    with pytest.raises(ModelError, match="hidden_act is 'gelu'"):
        LlamaModel.from_config({**TINY, "hidden_act": "gelu"})
    assert LlamaModel.from_config({**TINY, "hidden_act": "silu"}) == LlamaModel.from_config(TINY)


def test_llama_2_7b_prefill_is_the_known_answer() -> None:
    model = LlamaModel.from_config(LLAMA_2_7B)
    cost = model.cost(1, 2048, 2048)
    core = 2 * (32 * 2048 * 2048) * (128 + 128)  # one layer's
    assert round(32 * core / 1e12, 6) == 2.199023
    assert round(cost.matmul_flops / 1e12, 6) == 29.261612
    layer = 4 * 4096 * 4096 + 3 * 4096 * 11008
    assert cost.matmul_flops == 32 * core + 2 * 2048 * (32 * layer + 4096 * 32000)
    assert cost.weight_bytes == 2 * (2 * 32000 * 4096 + 32 * (layer + 2 * 4096) + 4096)
    assert cost.kv_bytes == 2048 * (2 * 32 * 32 * 128 * 2)


@pytest.mark.parametrize(("queries", "keys", "flops"), [(128, 128, 134_217_728), (128, 256, 268_435_456)])
def test_attention_core_is_torchs_own_unit_case(queries: int, keys: int, flops: int) -> None:
    core = AttentionCore(num_attention_heads=8, qk_head_dim=64, v_head_dim=64, attention="flash")
    assert core.cost(4, queries, keys).matmul_flops == flops


sizes = st.integers(min_value=1, max_value=10**7)


@given(batch=sizes, query_len=sizes, past_len=st.integers(0, 10**7), attention=st.sampled_from(["eager", "flash"]))
def test_cost_is_affine_in_the_batch(batch: int, query_len: int, past_len: int, attention: str) -> None:
    endless = {**TINY, "vocab_size": 10**22}  # no batch reads the whole table
    model = LlamaModel.from_config(endless, attention=attention)
    one, two, many = (model.cost(n, query_len, past_len + query_len) for n in (1, 2, batch))
    per_sequence = two + -1 * one
    assert many == one + (batch - 1) * per_sequence
    assert many.matmul_flops == batch * one.matmul_flops
    assert (per_sequence.weight_bytes, many.weight_bytes) == (0, one.weight_bytes)


@given(batch=sizes, query_len=sizes, kv_len=sizes, attention=st.sampled_from(["eager", "flash"]))
def test_a_further_layer_always_costs_the_same(batch: int, query_len: int, kv_len: int, attention: str) -> None:
    costs = [
        LlamaModel.from_config({**TINY, "num_hidden_layers": layers}, attention=attention).cost(
            batch, query_len, kv_len
        )
        for layers in range(4)
    ]
    steps = {more + -1 * fewer for fewer, more in pairwise(costs)}
    assert len(steps) == 1


@given(batch=sizes, query_len=sizes, kv_len=sizes, groups=st.integers(1, 8))
def test_grouped_queries_change_neither_core_nor_scores(batch: int, query_len: int, kv_len: int, groups: int) -> None:
    multi_head = attention(LlamaFlashAttention2, num_attention_heads=8 * groups, num_key_value_heads=8 * groups)
    grouped = attention(LlamaFlashAttention2, num_attention_heads=8 * groups, num_key_value_heads=8)
    many, few = (layer.own(batch, query_len, kv_len) for layer in (multi_head, grouped))
    assert many.matmul_flops == few.matmul_flops
    assert many.kv_bytes == groups * few.kv_bytes
    assert (many == few) == (groups == 1)


@given(first=sizes, second=sizes)
def test_two_chunks_of_a_prefill_multiply_as_often_as_their_keys_allow(first: int, second: int) -> None:
    core = AttentionCore(num_attention_heads=3, qk_head_dim=5, v_head_dim=7, attention="eager")
    whole = core.cost(1, first + second, first + second).matmul_flops
    chunks = core.cost(1, first, first).matmul_flops + core.cost(1, second, first + second).matmul_flops
    assert whole - chunks == 2 * 3 * first * second * (5 + 7)  # what the first chunk does not see


@pytest.mark.parametrize("attention", ["eager", "flash"])
@pytest.mark.parametrize("dtype", ["int64", "object"])
def test_arrays_give_what_ints_give(attention: str, dtype: str) -> None:
    model = LlamaModel.from_config(TINY, attention=attention)
    batch, query_len, kv_len = [1, 2, 7], [1, 3, 1], [4, 3, 9]
    arrays = model.cost(*(np.array(values, dtype=dtype) for values in (batch, query_len, kv_len)))
    for index, scenario in enumerate(zip(batch, query_len, kv_len, strict=True)):
        expected = model.cost(*scenario)
        got = {name: np.broadcast_to(getattr(arrays, name), 3)[index] for name in FIELDS}
        assert got == {name: getattr(expected, name) for name in FIELDS}


@pytest.mark.parametrize("attention", ["eager", "flash"])
def test_symbols_give_what_ints_give(attention: str) -> None:
    model = LlamaModel.from_config(TINY, attention=attention)
    symbols = sympy.symbols("B S_q S_kv", integer=True, positive=True)
    values = dict(zip(symbols, (2, 3, 5), strict=True))
    symbolic, expected = model.cost(*symbols), model.cost(2, 3, 5)
    for name in FIELDS:
        assert sympy.sympify(getattr(symbolic, name)).subs(values) == getattr(expected, name)


def test_layer_models_are_frozen_and_hold_no_scenario() -> None:
    norm = RMSNorm(hidden_size=7)
    with pytest.raises(AttributeError):
        norm.hidden_size = 8  # type: ignore[misc]
    assert not hasattr(norm, "__dict__")
