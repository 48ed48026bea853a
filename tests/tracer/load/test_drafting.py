"""Layers that predict further tokens: transformers' own, run as its assisted generation runs them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache
from transformers.cache_utils import MtpCache

from fxmeter import annotate, closed_form, decode, deploy, load_model, prefill
from fxmeter.models.errors import ModelError
from fxmeter.tracer.load.drafting import DraftingDecoder, with_layers
from tests.tracer.tiny import DEEPSEEK, LLAMA, QWEN_MOE, config, real_model
from validation.sharding import Held, held_model

HIDDEN, VOCABULARY = 32, 40  # of the small models


def drafting(fields, count=2):
    """A small model with ``count`` further layers and real weights."""
    torch.manual_seed(1)
    main = real_model(fields)
    main.config.num_mtp_layers = count
    model = DraftingDecoder(main, count).eval()
    for parameter in model.parameters():  # not all of a further layer's are initialised
        nn.init.normal_(parameter, std=0.05)
    return model


def fields_of(fields, count=2):
    return {**fields, "num_nextn_predict_layers": count}


@pytest.mark.parametrize("fields", [DEEPSEEK, QWEN_MOE, LLAMA], ids=lambda fields: fields["model_type"])
def test_drafts_and_logits_are_those_of_transformers(fields):
    """In a prompt and in a step after it, against transformers' own model and its own loop over the further layers."""
    model = drafting(fields)
    ids = torch.randint(0, VOCABULARY, (1, 9))
    cache, own, further = None, DynamicCache(config=model.config), MtpCache(config=model.mtp.config)
    for tokens, start in ((ids[:, :7], 0), (ids[:, 7:], 7)):
        with torch.no_grad():
            out = model(input_ids=tokens, past_key_values=cache, use_cache=True)
            hidden = model.model(input_ids=tokens, past_key_values=own, use_cache=True).last_hidden_state
            following = torch.cat([tokens[:, 1:], model.lm_head(hidden)[:, -1:].argmax(-1)], dim=-1)
            positions = torch.arange(start + 1, start + 1 + tokens.shape[1])[None]
            _, drafts, _ = model.mtp(following, hidden, None, positions, further)
        torch.testing.assert_close(out.logits, model.lm_head(hidden))
        torch.testing.assert_close(torch.cat(out.hidden_states, dim=1), drafts)
        cache = out.past_key_values


@pytest.mark.parametrize("fields", [DEEPSEEK, QWEN_MOE, LLAMA], ids=lambda fields: fields["model_type"])
@pytest.mark.parametrize("scenario", [prefill(7), decode(9, query_len=2)], ids=str)
def test_flops_and_cache_equal_those_of_a_real_pass(fields, scenario):
    real, model = drafting(fields), load_model(fields_of(fields), mtp=True)
    real.model.config._experts_implementation = real.mtp.config._experts_implementation = "batched_mm"
    with torch.no_grad():
        cache = DynamicCache(config=real.config)
        if scenario.past_len:
            real(input_ids=torch.zeros(1, scenario.past_len, dtype=torch.long), past_key_values=cache, use_cache=True)
        with FlopCounterMode(display=False) as counter:
            real(input_ids=torch.zeros(1, scenario.query_len, dtype=torch.long), past_key_values=cache, use_cache=True)
    nbytes = sum(tensor.nbytes for layer in cache.layers for tensor in (layer.keys, layer.values))
    for attention in ("eager", "flash"):
        cost = annotate(model, scenario, attention=attention).cost
        assert cost.matmul_flops == counter.get_total_flops()
        assert 2 * cost.kv_bytes == nbytes  # bfloat16 and float32


def test_what_one_layer_adds_to_a_step():
    """A Llama layer, a projection of two hidden states to one, three norms, and the head on one position."""
    plain, model = load_model(LLAMA), load_model(fields_of(LLAMA, 1), mtp=True)
    layer = 2 * HIDDEN * HIDDEN + 2 * HIDDEN * 16 + 3 * HIDDEN * 48
    more = annotate(model, decode(9, query_len=2)).cost - annotate(plain, decode(9, query_len=2)).cost
    attention = 2 * 2 * 2 * HIDDEN * 11
    assert more.matmul_flops == 2 * 2 * (layer + 2 * HIDDEN * HIDDEN) + attention + 2 * HIDDEN * VOCABULARY
    assert more.weight_bytes == 2 * (layer + 2 * HIDDEN + 2 * HIDDEN * HIDDEN + 3 * HIDDEN)
    assert more.kv_bytes == 2 * 2 * 16 * 11


def test_nothing_is_drafted_where_no_logits_are_kept():
    model = load_model(fields_of(LLAMA, 1), mtp=True)
    costs = [annotate(model, prefill(8), logits=logits).cost for logits in ("last", "none")]
    assert costs[0].matmul_flops - costs[1].matmul_flops == 2 * 2 * HIDDEN * VOCABULARY  # the decoder's, and a draft's
    assert costs[0].kv_bytes == costs[1].kv_bytes


@pytest.mark.parametrize("fields", [DEEPSEEK, LLAMA], ids=lambda fields: fields["model_type"])
def test_folded_equals_full_and_the_closed_form(fields):
    model, scenario = load_model(fields_of(fields), mtp=True), decode(17, batch=3, query_len=2)
    folded, full = (annotate(model, scenario, fold=fold) for fold in (None, False))
    assert folded.cost == full.cost
    assert closed_form(model, stage="decode").at(batch=3, query_len=2, past_len=17) == full.cost


def test_latent_attention_of_further_layers_is_absorbed_too():
    model, plain = load_model(fields_of(DEEPSEEK, 1), mtp=True), load_model(DEEPSEEK)
    layers = [annotate(each, decode(64), deployment=deploy(kernels="serving")).modules for each in (model, plain)]
    own = layers[0]["mtp.layers.0.mtp_block.self_attn"].cost.matmul_flops
    assert own == layers[1]["model.layers.2.self_attn"].cost.matmul_flops


@pytest.mark.parametrize("fields", [LLAMA, DEEPSEEK, QWEN_MOE], ids=lambda fields: fields["model_type"])
@pytest.mark.parametrize(
    "scenario", [prefill(24, batch=2), decode(40, batch=2, query_len=3)], ids=["prefill", "decode"]
)
def test_further_layers_are_shared_by_ranks_as_the_decoder_s_are(fields, scenario):
    """Each op, weight and cache of a rank is a share of one device's, or the same: those of the further layers too."""
    model = load_model(fields_of(fields), mtp=True)
    assert held_model(model, [scenario], 2) == Held()
    one, rank = (annotate(model, scenario, deployment=deploy(tp=tp)) for tp in (1, 2))
    path = "mtp.layers.0.mtp_block.mlp"
    assert rank.modules[path].cost.matmul_flops < one.modules[path].cost.matmul_flops


@pytest.mark.parametrize("fields", [DEEPSEEK, QWEN_MOE], ids=lambda fields: fields["model_type"])
def test_experts_of_further_layers_are_spread_as_the_decoder_s_are(fields):
    model = load_model(fields_of(fields), mtp=True)
    one, rank = (annotate(model, decode(40, batch=2, query_len=3), deployment=deploy(ep=ep)) for ep in (1, 2))
    paths = [path for path in one.modules if path.endswith(".mlp.experts")]
    assert [path.split(".")[0] for path in paths] == ["model", "mtp"]
    for path in paths:
        assert 2 * rank.modules[path].cost.weight_bytes == one.modules[path].cost.weight_bytes > 0
        assert rank.modules[path].cost.matmul_flops == one.modules[path].cost.matmul_flops  # of twice the sequences


def test_what_cannot_be_asked_for_is_told_in_one_line():
    with pytest.raises(ModelError, match="names no layers that predict further tokens"):
        load_model(LLAMA, mtp=True)
    sparse = load_model("deepseek-v3.2", mtp=True)
    with pytest.raises(ModelError, match="transformers cannot run its layers that predict further tokens"):
        annotate(sparse, decode(64))


def test_further_layers_are_of_the_last_layers_kind_unless_the_config_says():
    sliding, full = "sliding_attention", "full_attention"
    fields = {**LLAMA, "layer_types": [full, full, sliding]}
    assert with_layers(config({**fields, "mtp_layer_types": [full]}), 1).mtp_layer_types == [full]
    assert with_layers(config(fields), 2).mtp_layer_types == [sliding, sliding]
