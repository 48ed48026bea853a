"""The cache after a pass is the one that transformers really holds: layer by layer, kind, shapes and bytes."""

from __future__ import annotations

import pytest
import torch

from annotators import annotate
from benchmarks.small_configs import small_config
from models import decode, prefill
from tests.tracer.tiny import GEMMA3, GPT_OSS, LLAMA, config
from tracer import load_model
from tracer.cache import cache_tensors
from tracer.context import empty_cache
from tracer.decoder import DecoderWithHead

WINDOW = 8
BELOW, AT, ABOVE = 5, WINDOW, 60
CONFIGS = {
    "gpt-oss": lambda: config(GPT_OSS),
    "gemma-3": lambda: config(GEMMA3),
    "mamba hybrid": lambda: small_config("jamba"),
    "mamba-2 hybrid": lambda: small_config("bamba"),
    "delta-rule hybrid": lambda: small_config("qwen3_next"),
    "deepseek-v3.2": lambda: small_config("deepseek_v32"),
    "deepseek-v4": lambda: small_config("deepseek_v4"),
    "chunked attention": lambda: small_config("llama4_text"),
    "shared layers": lambda: small_config("gemma3n_text"),
}


@pytest.fixture(scope="module")
def real():
    """name → the model with real weights on the CPU."""
    models = {}

    def get(name):
        if name not in models:
            torch.manual_seed(0)
            models[name] = DecoderWithHead.from_config(CONFIGS[name](), dtype=torch.float32).eval()
        return models[name]

    return get


def held(model, past, new):
    """Layer → bytes that transformers' own cache holds after ``past`` tokens and then ``new`` more."""
    cache = empty_cache(model)
    with torch.no_grad():
        for count in (past, new):
            if count:
                model(input_ids=torch.randint(5, 40, (2, count)), past_key_values=cache, use_cache=True)
    sizes: dict[tuple[int, str], int] = {}
    for entry in cache_tensors(cache):
        key = (entry.layer, entry.kind)
        sizes[key] = sizes.get(key, 0) + entry.tensor.nbytes
    return sizes


@pytest.mark.parametrize("tokens", [BELOW, AT, ABOVE], ids=["below", "at", "far above"])
@pytest.mark.parametrize("stage", ["prefill", "decode"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_cache_is_transformers_own(name, stage, tokens, real):
    scenario = prefill(tokens, batch=2) if stage == "prefill" else decode(tokens, batch=2)
    expected = held(real(name), scenario.past_len, scenario.query_len)
    for attention in ("eager", "flash"):
        annotated = annotate(load_model(CONFIGS[name](), dtype="float32"), scenario, attention=attention)
        assert {(layer.layer, layer.kind): layer.bytes for layer in annotated.kv_cache} == expected
        assert annotated.cost.kv_bytes == sum(expected.values())


def layers_of(name, tokens):
    stage = annotate(load_model(CONFIGS[name](), dtype="float32"), decode(tokens))
    return {layer.layer: layer for layer in stage.kv_cache}


@pytest.mark.parametrize(("name", "sliding"), [("gpt-oss", {0, 2}), ("gemma-3", {0, 1, 3, 4})])
def test_a_windowed_layer_holds_its_window_and_a_full_one_everything(name, sliding):
    for tokens in (BELOW, AT, ABOVE):
        for index, layer in layers_of(name, tokens).items():
            length = min(tokens + 1, WINDOW - 1) if index in sliding else tokens + 1
            assert layer.shapes == ((1, 2, length, 8),) * 2, (tokens, index)
            assert layer.bytes == 2 * 2 * length * 8 * 4


def test_recurrent_state_does_not_grow_with_the_context():
    short, long = layers_of("mamba hybrid", BELOW), layers_of("mamba hybrid", ABOVE)
    states = [index for index, layer in short.items() if layer.kind == "LinearAttentionLayer"]
    assert states
    assert all(short[index] == long[index] for index in states)
    assert all(long[index].bytes > short[index].bytes for index in short if index not in states)


def test_deepseek_v32_keeps_a_latent_and_the_indexers_keys():
    text = CONFIGS["deepseek-v3.2"]()
    for layer in layers_of("deepseek-v3.2", ABOVE).values():
        assert layer.kind == "DynamicIndexedLayer"
        widths = sorted(shape[-1] for shape in layer.shapes)
        assert widths == sorted([text.kv_lora_rank, text.qk_rope_head_dim, text.index_head_dim])
        assert all(ABOVE + 1 in shape for shape in layer.shapes)


def test_a_model_without_a_cache_goes_through_the_whole_context_again():
    model = load_model(small_config("openai-gpt"), dtype="float32")
    step, whole = annotate(model, decode(20)), annotate(model, prefill(21))
    assert step.cost == whole.cost
    assert step.cost.kv_bytes == 0


def test_one_cache_tensor_is_declared_once():
    stage = annotate(load_model(config(LLAMA)), decode(9), fold=False)
    names = [node.target for node in stage.fx_graph.nodes if node.op == "placeholder"]
    assert len(names) == len(set(names)) == 2 * 3 + 1


def test_keys_that_serve_as_values_are_held_once():
    for layer in layers_of("deepseek-v4", ABOVE).values():
        assert layer.shapes.count((1, 1, WINDOW - 1, 16)) == 1
