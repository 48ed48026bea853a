"""A recorded graph is the model: executed on real tensors it gives the model's own logits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import fx
from transformers import DynamicCache

from fxmeter.models import decode, prefill
from fxmeter.tracer import record
from fxmeter.tracer.state.cache import cache_tensors
from tests.tracer.tiny import DEEPSEEK, GEMMA3, GPT_OSS, LLAMA, QWEN_MOE, real_model

MODELS = {"deepseek": DEEPSEEK, "llama": LLAMA, "qwen-moe": QWEN_MOE, "gemma3": GEMMA3, "gpt-oss": GPT_OSS}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("attention", ["eager", "flash"])
@pytest.mark.parametrize(
    "scenario",
    [prefill(11, batch=2), decode(11, batch=2), prefill(5, past_len=11), decode(3, query_len=3)],
    ids=["prefill", "decode", "chunk", "multi-token"],
)
def test_interpreting_the_graph_gives_the_models_logits(name, attention, scenario):
    model = real_model(MODELS[name])
    tokens = torch.randint(0, 40, (scenario.batch, scenario.kv_len))
    prompt, new = tokens[:, : scenario.past_len], tokens[:, scenario.past_len :]

    def cache():
        held = DynamicCache(config=model.config)
        if scenario.past_len:
            model(input_ids=prompt, past_key_values=held, use_cache=True)
        return held

    with torch.no_grad():
        expected = model(input_ids=new, past_key_values=cache(), use_cache=True).logits
        recording = record(
            model, scenario, attention=attention, fold=False, input_ids=torch.zeros_like(new), cache=cache()
        )
        given = [entry.tensor for entry in cache_tensors(cache())]
        logits = fx.Interpreter(recording.graph_module(model)).run(*given, new)
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_a_graph_fed_other_tokens_gives_other_logits():
    model = real_model(LLAMA)
    recording = record(model, prefill(4), attention="eager", fold=False)
    run = fx.Interpreter(recording.graph_module(model)).run
    first, second = run(torch.tensor([[1, 2, 3, 4]])), run(torch.tensor([[1, 2, 3, 5]]))
    assert torch.equal(first[:, :3], second[:, :3])
    assert not torch.equal(first[:, 3], second[:, 3])


def test_recording_changes_nothing_about_the_model():
    model = real_model(LLAMA).train()
    before = copy.deepcopy(model.state_dict())
    config = copy.deepcopy(model.config.to_dict())
    names = {id(module): set(vars(module)) for module in model.modules()}
    record(model, prefill(4), attention="flash")
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.config.to_dict() == config
    assert model.config._attn_implementation == "eager"
    assert model.training
    assert {id(module): set(vars(module)) for module in model.modules()} == names
