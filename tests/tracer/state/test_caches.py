"""The cache after a pass is the one that transformers really holds, and what the architecture says, layer by layer."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaForCausalLM
from transformers.cache_utils import DynamicCache, QuantizedLayer, StaticCache

from fxmeter.annotators import annotate, annotate_module
from fxmeter.annotators.studies.breakdown import cache_rows
from fxmeter.models import decode, prefill
from fxmeter.models.errors import TraceError
from fxmeter.tracer import load_model
from fxmeter.tracer.load.decoder import DecoderWithHead
from fxmeter.tracer.run.prompt import empty_cache
from tests.tracer.tiny import GEMMA3, GPT_OSS, LLAMA, config, real_model
from validation.held_tensors import left_behind, only_new_objects
from validation.small_configs import small_config

BATCH = 3
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
    "shared layers": lambda: small_config(
        "gemma3n_text",
        num_hidden_layers=5,
        num_kv_shared_layers=2,
        layer_types=[f"{kind}_attention" for kind in ("sliding", "sliding", "full", "sliding", "full")],
        activation_sparsity_pattern=[0.95, 0.0, 0.0, 0.0, 0.0],
    ),
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
    """Bytes of the tensors that are alive after ``past`` tokens and then ``new`` more, and were not before.

    First what they show, then the allocations behind them.
    """
    with torch.no_grad(), only_new_objects():
        cache = empty_cache(model)
        for count in (past, new):
            if count:
                tokens = torch.randint(5, 40, (BATCH, count))
                out = model(input_ids=tokens, past_key_values=cache, use_cache=True)
        left = left_behind(out, [tokens], BATCH)
        return left.entry_bytes, left.allocated_bytes


@pytest.mark.parametrize("tokens", [BELOW, AT, ABOVE], ids=["below", "at", "far above"])
@pytest.mark.parametrize("stage", ["prefill", "decode"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_cache_is_transformers_own(name, stage, tokens, real):
    scenario = prefill(tokens, batch=BATCH) if stage == "prefill" else decode(tokens, batch=BATCH)
    expected = held(real(name), scenario.past_len, scenario.query_len)
    annotated = annotate(load_model(CONFIGS[name](), dtype="float32"), scenario)
    assert annotated.cost.kv_bytes == sum(layer.bytes for layer in annotated.kv_cache) == expected[0]
    assert annotated.cost.kv_storage_bytes == expected[1]


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


TWO = 2  # bytes of bfloat16


def windowed(layers, full, window, width):
    """Layer → bytes held at a number of tokens: ``full`` layers keep every token, the others the last window − 1."""
    return lambda tokens: {
        index: 2 * (tokens if full(index) else min(tokens, window - 1)) * width * TWO for index in range(layers)
    }


PRESETS = {
    # 24 layers, every other one full; window 128; keys and values of 8 heads of 64
    "gpt-oss-20b": (windowed(24, lambda i: i % 2 == 1, 128, 8 * 64), 128),
    # 62 layers, every sixth one full; window 1024; 16 heads of 128
    "gemma-3-27b": (windowed(62, lambda i: i % 6 == 5, 1024, 16 * 128), 1024),
    # 32 layers, every eighth attends, 8 heads of 128; for each of 2 · 4096 channels the others keep 4 inputs of
    # the convolution, and 16 states in float32
    "jamba-v0.1": (
        lambda tokens: {
            i: 2 * tokens * 8 * 128 * TWO if i % 8 == 4 else 2 * 4096 * (4 * TWO + 16 * 4) for i in range(32)
        },
        128,
    ),
    # 61 layers: a latent of 512, a rotary key of 64 and an index key of 128, for every token
    "deepseek-v3.2": (lambda tokens: dict.fromkeys(range(61), tokens * (512 + 64 + 128) * TWO), 2048),
}


@pytest.mark.parametrize("where", ["below", "at", "far above"])
@pytest.mark.parametrize("name", PRESETS)
def test_the_table_of_a_preset_is_what_its_architecture_says(preset_model, name, where):
    expected, window = PRESETS[name]
    context = {"below": window // 2, "at": window - 1, "far above": 40 * window}[where]
    stage = annotate(preset_model(name), decode(context))
    assert {layer.layer: layer.bytes for layer in stage.kv_cache} == expected(context + 1)
    assert sum(row.bytes for row in cache_rows(stage)) == stage.cost.kv_bytes == sum(expected(context + 1).values())
    assert all(len(row.tensors) <= 3 for row in cache_rows(stage))


@pytest.mark.parametrize(("name", "full", "sliding", "window", "width"), [("gpt-oss-20b", 12, 12, 128, 8 * 64)])
def test_a_window_is_read_whole_and_one_token_less_is_kept(preset_model, name, full, sliding, window, width):
    model, context = preset_model(name), 8192
    step = annotate(model, decode(context)).cost
    token = 2 * width * TWO
    assert step.kv_read_bytes == (full * (context + 1) + sliding * window) * token
    assert step.kv_write_bytes == (full + sliding) * token
    prompt = annotate(model, prefill(context)).cost
    assert prompt.kv_write_bytes == prompt.kv_read_bytes == (full + sliding) * context * token
    assert prompt.kv_bytes == (full * context + sliding * (window - 1)) * token


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


def test_a_cache_that_does_more_than_keep_is_refused_by_what_it_does():
    model, tokens = real_model(LLAMA), torch.zeros(1, 4, dtype=torch.long)
    offloaded, quantised = DynamicCache(), DynamicCache()
    offloaded.offloading = True  # making one wants a GPU's stream
    quantised.layers.append(type("Codes", (QuantizedLayer,), {"_quantize": None, "_dequantize": None})())
    for cache, reason in (
        (offloaded, "is offloaded.*without offloading"),
        (quantised, r"quantised \(Codes\).*DynamicCache"),
    ):
        with pytest.raises(TraceError, match=reason):
            annotate_module(model, input_ids=tokens, past_key_values=cache)


@pytest.mark.parametrize("fields", [LLAMA, GEMMA3], ids=lambda fields: fields["model_type"])
def test_a_static_cache_costs_what_a_real_pass_counts(fields):
    model, tokens = real_model(fields), torch.zeros(2, 5, dtype=torch.long)
    caches = [StaticCache(config=model.config, max_cache_len=16) for _ in range(2)]
    with torch.no_grad():
        for cache in caches:
            model(input_ids=tokens, past_key_values=cache)
    stage = annotate_module(model, input_ids=tokens[:, :1], past_key_values=caches[0], attention="eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=tokens[:, :1], past_key_values=caches[1])
    assert stage.cost.matmul_flops == counter.get_total_flops()
    assert stage.cost.kv_bytes == sum(layer.keys.nbytes + layer.values.nbytes for layer in caches[1].layers)
    assert int(caches[0].get_seq_length()) == 5  # as it was


class OwnCache(LlamaForCausalLM):
    def forward(self, input_ids=None, past_key_values=None, **more):
        return super().forward(input_ids=input_ids, past_key_values=DynamicCache(config=self.config), **more)


@pytest.mark.parametrize("scenario", [prefill(6), decode(6)], ids=["prefill", "decode"])
def test_a_model_that_puts_its_own_cache_in_the_place_of_the_given_one_is_refused(scenario):
    with pytest.raises(TraceError, match="a cache of its own in the place of the one that it is given"):
        annotate(OwnCache(config(LLAMA)), scenario)
