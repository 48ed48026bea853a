"""Absorbed latent attention: the same logits as the model's own code, the published price, the hand-written layer."""

from __future__ import annotations

import copy
from dataclasses import fields

import pytest
import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from fxmeter import annotate, closed_form, decode, deploy, prefill
from fxmeter.models.hand.deepseek import DeepseekModel
from fxmeter.models.presets import preset
from fxmeter.tracer.run.patches.attention import attention_of
from fxmeter.tracer.serving.latent import absorbing
from validation.coverage_real import real_model
from validation.small_configs import small_config

SERVING = deploy(weights="bfloat16", kernels="serving")
LATENT = [
    "axk1",
    "axk2",
    "bailing_hybrid",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "dots3_note",
    "glm4_moe_lite",
    "glm5_next",
    "glm_moe_dsa",
    "hy_v4",
    "kimi_linear",
    "longcat_flash",
    "minicpm3",
    "mistral4",
    "mistral_large4",
    "youtu",
]
MASKED = ("axk2", "deepseek_v32", "dots3_note", "glm_moe_dsa", "hy_v4", "mistral_large4")
"""Those whose own code reads the mask."""


@pytest.mark.parametrize("model_type", LATENT)
def test_absorbed_attention_gives_the_model_s_own_logits(model_type):
    torch.manual_seed(0)
    model = real_model(small_config(model_type))
    assert any(hasattr(type(module), "expand_kv") for module in model.modules())
    ids = torch.randint(0, 50, (2, 12))
    with torch.no_grad(), attention_of(model, "flash", masked=model_type in MASKED):
        cache = model(input_ids=ids[:, :11], use_cache=True).past_key_values
        own = model(input_ids=ids[:, 11:], past_key_values=copy.deepcopy(cache), use_cache=True).logits
        with absorbing(model):
            absorbed = model(input_ids=ids[:, 11:], past_key_values=copy.deepcopy(cache), use_cache=True).logits
    assert 0 < (absorbed - own).abs().max() < 1e-5  # 0 is what was not absorbed
    assert own.abs().max() > 1e-3


def test_deepseek_v3_decodes_at_the_published_cost(preset_model):
    """The expanded step of 8,477,498,556,416 less what absorbing saves, by hand for 61 layers of 128 heads."""
    rank, nope, rope, value, heads, tokens = 512, 128, 64, 128, 128, 4097
    expanded = 2 * tokens * rank * heads * (nope + value) + 2 * heads * tokens * (nope + rope + value)
    absorbed = 2 * heads * rank * (nope + value) + 2 * heads * tokens * (2 * rank + rope)
    cost = annotate(preset_model("deepseek-v3"), decode(4096), deployment=SERVING).cost
    assert cost.matmul_flops == 8_477_498_556_416 - 61 * (expanded - absorbed)
    assert cost.matmul_flops == 142_858_076_160
    assert cost.peak_activation_bytes == 7_427_336


@pytest.mark.parametrize("name", ["deepseek-v2-lite", "deepseek-v3"])
@pytest.mark.parametrize(("context", "batch"), [(4096, 1), (8192, 16)])
def test_the_absorbed_layer_equals_the_one_written_by_hand(preset_model, name, context, batch):
    scenario = decode(context, batch=batch)
    traced = annotate(preset_model(name), scenario, deployment=SERVING)
    hand = DeepseekModel.from_config(preset(name).config, attention="flash", element_bytes=2, absorbed=True)
    path = "model.layers.1.self_attn"
    expected = hand.modules(batch, 1, context + 1)[path]
    for field in ("matmul_flops", "vector_flops", "weight_read_bytes", "kv_read_bytes", "kv_bytes"):
        assert getattr(traced.modules[path].cost, field) == getattr(expected, field), field


def test_folded_equals_full_and_the_closed_form(preset_model):
    model = preset_model("deepseek-v2-lite")
    folded, full = (annotate(model, decode(1000), deployment=SERVING, fold=fold).cost for fold in (True, False))
    assert [f.name for f in fields(folded) if getattr(folded, f.name) != getattr(full, f.name)] == []
    form = closed_form(model, deployment=SERVING)
    assert form.at(batch=16, past_len=8192) == annotate(model, decode(8192, batch=16), deployment=SERVING).cost


def test_prefill_stays_expanded_and_computes_the_last_logits_and_the_causal_half(preset_model):
    model = preset_model("deepseek-v2-lite")
    served = annotate(model, prefill(512), deployment=SERVING)
    assert served.cost == annotate(model, prefill(512), causal="exact", logits="last", deployment=deploy()).cost
    assert served.conventions.causal == "exact"
    assert served.conventions.logits == "last"


def test_the_classes_are_as_before_afterwards(preset_model):
    model = preset_model("deepseek-v3")
    cls = type(model.model.layers[0].self_attn)
    before = cls.expand_kv
    annotate(model, decode(16), deployment=SERVING)
    assert cls.expand_kv is before
    assert type(model).__name__ in {cls.__name__ for cls in MODEL_FOR_CAUSAL_LM_MAPPING.values()}
