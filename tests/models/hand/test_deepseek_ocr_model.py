"""The DeepSeek-OCR decoder against what is publicly known of it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import sympy

from fxmeter.models import ModelError, decode, prefill
from fxmeter.models.hand.causal_lm import Decoder
from fxmeter.models.hand.deepseek import DeepseekOCRModel, DeepseekV2DecoderLayer
from fxmeter.models.hand.layer import RMSNorm
from fxmeter.models.hand.llama import LlamaAttention, LlamaFlashAttention2, LlamaRotaryEmbedding
from fxmeter.models.hand.moe import DeepseekV2Experts, DeepseekV2MLP, DeepseekV2MoE, MoEGate
from fxmeter.models.stage_cost import FIELDS

DEEPSEEK_OCR = {
    "model_type": "deepseek_ocr2_text",
    "hidden_size": 1280,
    "intermediate_size": 6848,
    "moe_intermediate_size": 896,
    "num_hidden_layers": 12,
    "first_k_dense_replace": 1,
    "num_attention_heads": 10,
    "num_key_value_heads": 10,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "topk_method": "greedy",
    "vocab_size": 129280,
}
TINY = {
    "hidden_size": 12,
    "intermediate_size": 13,
    "moe_intermediate_size": 5,
    "num_hidden_layers": 3,
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "num_attention_heads": 3,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "vocab_size": 19,
}

ATTENTION = 4 * 1280 * 1280
MOE_ACTIVE = 1280 * 64 + 6 * (3 * 1280 * 896) + 3 * 1280 * (2 * 896)
DENSE = 3 * 1280 * 6848
HEAD = 1280 * 129280
NORMS = 12 * 2 * 1280 + 1280


def deepseek_ocr(**options: Any) -> DeepseekOCRModel:
    return DeepseekOCRModel.from_config(DEEPSEEK_OCR, **options)


@pytest.mark.parametrize("attention", ["eager", "flash"])
@pytest.mark.parametrize("length", [1, 493, 1213, 8192])
def test_prefill_matmul_flops_are_those_measured_on_the_vendors_model(length: int, attention: str) -> None:
    scenario = prefill(length)
    cost = deepseek_ocr(attention=attention).cost(scenario.batch, scenario.query_len, scenario.kv_len)
    assert 2 * (12 * ATTENTION + 11 * MOE_ACTIVE + DENSE + HEAD) == 1_148_190_720
    assert 12 * 2 * 10 * (128 + 128) == 61_440
    assert cost.matmul_flops == 1_148_190_720 * length + 61_440 * length**2


@pytest.mark.parametrize("attention", ["eager", "flash"])
@pytest.mark.parametrize("cached", [0, 1, 4096])
def test_decode_matmul_flops_are_those_measured_on_the_vendors_model(cached: int, attention: str) -> None:
    scenario = decode(cached, batch=3)
    cost = deepseek_ocr(attention=attention).cost(scenario.batch, scenario.query_len, scenario.kv_len)
    assert cost.matmul_flops == 3 * (1_148_190_720 + 61_440 * (cached + 1))


def test_parameters_are_the_checkpoints() -> None:
    everything = 12 * ATTENTION + DENSE + 11 * (1280 * 64 + (64 + 2) * 3 * 1280 * 896) + 2 * HEAD + NORMS
    assert everything == 2_934_734_080
    assert deepseek_ocr().cost(1, 1, 1).weight_bytes == 2 * 2_934_734_080


def test_active_parameters_are_what_a_decode_step_reads() -> None:
    active = 12 * ATTENTION + 11 * MOE_ACTIVE + DENSE + HEAD + NORMS
    assert active == 574_127_360
    embedding_row, inv_freq = 1280 * 2, 64 * 4
    assert deepseek_ocr().cost(1, 1, 4097).weight_read_bytes == 2 * active + embedding_row + inv_freq


def test_kv_is_61440_bytes_a_token() -> None:
    cost = deepseek_ocr().cost(2, 3, 5)
    assert 12 * 2 * 10 * 128 * 2 == 61_440
    assert cost.kv_bytes == cost.kv_read_bytes == 2 * 5 * 61_440
    assert cost.kv_write_bytes == 2 * 3 * 61_440


def test_only_eager_decode_activations_grow_with_the_context() -> None:
    flash = [deepseek_ocr(attention="flash").cost(1, 1, length).activation_bytes for length in (101, 100_001)]
    assert flash[0] == flash[1]
    eager = [deepseek_ocr(attention="eager").cost(1, 1, length).activation_bytes for length in (101, 100_001)]
    a_key_more = 12 * 10 * (2 + 2 + 2 + 4 + 2) + (1 + 2)  # scores in every layer; the mask, boolean and additive
    assert eager[1] - eager[0] == 99_900 * a_key_more


def test_decode_at_batch_one_is_bound_by_memory() -> None:
    assert 0.5 < deepseek_ocr(attention="flash").cost(1, 1, 1001).arithmetic_intensity < 2


@pytest.mark.parametrize("attention", ["eager", "flash"])
def test_config_fields_reach_the_layers(attention: str) -> None:
    model = DeepseekOCRModel.from_config({**TINY, "tie_word_embeddings": True}, attention=attention, element_bytes=4)
    kind = {"eager": LlamaAttention, "flash": LlamaFlashAttention2}[attention]
    self_attn = kind(hidden_size=12, num_attention_heads=3, num_key_value_heads=3, head_dim=12 // 3, element_bytes=4)
    routed: dict[str, Any] = {
        "hidden_size": 12,
        "n_routed_experts": 8,
        "num_experts_per_tok": 3,
        "element_bytes": 4,
    }
    mixture = DeepseekV2MoE(
        gate=MoEGate(**routed),
        experts=DeepseekV2Experts(moe_intermediate_size=5, **routed),
        shared_experts=DeepseekV2MLP(hidden_size=12, intermediate_size=5 * 2, element_bytes=4),
    )
    dense, sparse = (
        DeepseekV2DecoderLayer(hidden_size=12, self_attn=self_attn, mlp=mlp, element_bytes=4)
        for mlp in (DeepseekV2MLP(hidden_size=12, intermediate_size=13, element_bytes=4), mixture)
    )
    assert model == DeepseekOCRModel(
        model=Decoder(
            vocab_size=19,
            hidden_size=12,
            layers=(dense, sparse, sparse),
            norm=RMSNorm(hidden_size=12, element_bytes=4),
            rotary_emb=LlamaRotaryEmbedding(head_dim=4, element_bytes=4),
            attention=attention,
            element_bytes=4,
        ),
        tie_word_embeddings=True,
    )


def test_both_spellings_of_the_layer_kinds_mean_the_same() -> None:
    vendor = {**TINY, "first_k_dense_replace": 1, "mlp_layer_types": None}
    assert DeepseekOCRModel.from_config(vendor) == DeepseekOCRModel.from_config(TINY)
    assert DeepseekOCRModel.from_config(TINY) == DeepseekOCRModel.from_config(TINY, attention="eager", element_bytes=2)
    assert not DeepseekOCRModel.from_config(TINY).tie_word_embeddings


@pytest.mark.parametrize("missing", ["vocab_size", "n_routed_experts", "moe_intermediate_size"])
def test_a_missing_field_is_named(missing: str) -> None:
    config = {name: value for name, value in TINY.items() if name != missing}
    with pytest.raises(ModelError, match=f"no field '{missing}'"):
        DeepseekOCRModel.from_config(config)


def test_an_mlp_that_is_not_swiglu_is_refused() -> None:
    with pytest.raises(ModelError, match="hidden_act is 'relu'"):
        DeepseekOCRModel.from_config({**TINY, "hidden_act": "relu"})


def test_modules_are_named_as_in_the_module_tree() -> None:
    modules = deepseek_ocr().modules(1, 1, 101)
    dense = {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "mlp.act_fn"}
    sparse = {"mlp.gate", "mlp.experts", "mlp.experts.act_fn", "mlp.shared_experts"}
    sparse |= {f"mlp.shared_experts.{name[4:]}" for name in dense}
    both = {"mlp", "self_attn", "input_layernorm", "post_attention_layernorm"}
    both |= {f"self_attn.{name}_proj" for name in "qkvo"}
    for index in range(12):
        path = f"model.layers.{index}."
        names = {name.removeprefix(path) for name in modules if name.startswith(path)}
        assert names == both | (dense if index == 0 else sparse)
    assert modules[""] == modules["model"] + modules["lm_head"]


@pytest.mark.parametrize("attention", ["eager", "flash"])
def test_ints_arrays_and_symbols_agree(attention: str) -> None:
    model = deepseek_ocr(attention=attention)
    expected = model.cost(2, 3, 500)
    arrays = model.cost(np.array([2, 2]), np.array([3, 3]), np.array([500, 500]))
    symbols = sympy.symbols("B S_q S_kv", integer=True, positive=True)
    symbolic = model.cost(*symbols)
    for name in FIELDS:
        assert np.broadcast_to(getattr(arrays, name), 2).tolist() == 2 * [getattr(expected, name)]
        value = sympy.sympify(getattr(symbolic, name)).subs(dict(zip(symbols, (2, 3, 500), strict=True)))
        rounded = 11 * 2 * Fraction(1, 2) if name == "weight_read_bytes" else 0  # in ints, once per expert tensor
        assert abs(value - getattr(expected, name)) <= rounded
