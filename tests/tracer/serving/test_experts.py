"""Experts that their model's code runs on every token: an engine runs those that were chosen, with the same logits."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoConfig

from fxmeter import annotate, closed_form, decode, deploy, load_model, prefill
from fxmeter.tracer.run.patches.attention import attention_of
from fxmeter.tracer.serving.experts import choosing, runs_all_experts
from validation.coverage_real import real_model

SERVING = deploy(kernels="serving")
TINY = {
    "model_type": "llama4_text",
    "hidden_size": 32,
    "intermediate_size": 24,
    "intermediate_size_mlp": 48,
    "num_hidden_layers": 4,
    "interleave_moe_layer_step": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_local_experts": 6,
    "vocab_size": 40,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
}


@pytest.mark.parametrize("top_k", [1, 2])
def test_the_logits_are_the_model_s_own(top_k):
    model = real_model(AutoConfig.for_model(**TINY, num_experts_per_tok=top_k))
    assert runs_all_experts(model)
    before = [type(module).forward for module in model.modules()]
    ids = torch.randint(0, 40, (2, 12))
    with torch.no_grad(), attention_of(model, "flash"):
        own = model(input_ids=ids, use_cache=True)
        with choosing(model):
            chosen = model(input_ids=ids, use_cache=True)
            step = model(input_ids=ids[:, :1], past_key_values=copy.deepcopy(own.past_key_values)).logits
        expected = model(input_ids=ids[:, :1], past_key_values=own.past_key_values).logits
    assert (chosen.logits - own.logits).abs().max() < 1e-5 < own.logits.abs().max()
    assert (step - expected).abs().max() < 1e-5
    assert [type(module).forward for module in model.modules()] == before


def test_llama_4_scout_reads_its_active_parameters(preset_model):
    """Of 16 experts in each of 48 layers a token reads one, and the one that all share: 16.1 billion parameters with
    the head. The 17 billion of its name count the embedding too, of which a token reads one row."""
    hidden, inner, vocabulary, heads, kv_heads, head_dim = 5120, 8192, 202_048, 40, 8, 128
    attention = 2 * hidden * heads * head_dim + 2 * hidden * kv_heads * head_dim
    layer = attention + 2 * 3 * hidden * inner + 16 * hidden + 2 * hidden
    read = 48 * layer + vocabulary * hidden + 2 * hidden  # the head; the last norm, and a row of the embedding
    assert read == 16_138_414_080
    model = preset_model("llama-4-scout")
    cost = annotate(model, decode(4096), deployment=SERVING).cost
    frequencies = head_dim // 2 * 4
    assert cost.weight_read_bytes == 2 * read + frequencies
    assert (
        annotate(model, decode(4096)).cost.weight_read_bytes == 2 * (read + 48 * 15 * 3 * hidden * inner) + frequencies
    )


def test_products_are_those_of_the_chosen(preset_model):
    """A prompt of 64 tokens runs one expert for each, and not sixteen."""
    model = preset_model("llama-4-scout")
    served, own = (
        annotate(model, prefill(64), causal="exact", logits="last", deployment=d) for d in (SERVING, deploy())
    )
    path = "model.layers.0.feed_forward.experts"
    one = 2 * 64 * 3 * 5120 * 8192
    assert served.modules[path].cost.matmul_flops == one
    assert own.modules[path].cost.matmul_flops == 16 * one
    assert own.cost.matmul_flops - served.cost.matmul_flops == 48 * 15 * one


def test_folded_is_full_and_the_closed_form():
    model = load_model(AutoConfig.for_model(**TINY, num_experts_per_tok=2))
    full, folded = (annotate(model, decode(20, batch=3), deployment=SERVING, fold=fold) for fold in (False, None))
    assert full.cost == folded.cost
    assert closed_form(model, deployment=SERVING).at(batch=3, past_len=20) == full.cost


def test_ranks_share_the_chosen_experts():
    model, step = load_model(AutoConfig.for_model(**TINY, num_experts_per_tok=2)), decode(20, batch=3)
    own = annotate(model, step, deployment=deploy(tp=2)).cost
    one, rank = (annotate(model, step, deployment=deploy(tp=tp, kernels="serving")) for tp in (1, 2))
    routers = 2 * (2 * 3 * 32 * 6)  # layers; what each rank computes: 3 tokens, hidden, experts
    assert 2 * rank.cost.matmul_flops - one.cost.matmul_flops == routers
    experts = "model.layers.1.feed_forward.experts"
    assert rank.modules[experts].cost.matmul_flops == 2 * (3 * 2) * 3 * 32 * 24 // 2
    assert annotate(model, step, deployment=deploy(tp=2)).cost == own


def test_models_that_are_told_of_the_choice_stay_as_they_are(preset_model):
    assert not runs_all_experts(preset_model("deepseek-v3"))
    assert not runs_all_experts(preset_model("gpt-oss-20b"))
