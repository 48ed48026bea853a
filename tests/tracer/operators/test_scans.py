"""A scan over time is one operator: it computes what transformers' own loop computes, and its graph does not grow."""

from __future__ import annotations

import sys
from contextlib import nullcontext

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fxmeter.annotators import annotate, annotate_module
from fxmeter.models import decode, prefill
from fxmeter.tracer import load_model
from fxmeter.tracer.run.patches.scan_hooks import _scans_of, scans_as_operators
from fxmeter.tracer.state.cache import cache_of
from validation.coverage_real import cache_argument, real_model
from validation.small_configs import kinds_of_layers, small_config

FAMILIES = {
    "mamba": "selective_scan",
    "mamba2": "state_space_dual",
    "qwen3_next": "gated_delta_rule",
    "kimi_linear": "gated_delta_rule",
    "rwkv": "wkv",
    "recurrent_gemma": "linear_recurrence",
    "xlstm": "mlstm",
    "minimax": "lightning_attention",
    "qwen4_exp": "gated_delta_rule block_index",
}


def scans(graph):
    names = {*" ".join(FAMILIES.values()).split(), "selective_state_update"}
    return [node for node in graph.nodes if _name(node) in names]


def _name(node):
    parts = str(node.target).split(".")
    return parts[1] if parts[0] == "fxmeter" else ""


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_operator_gives_the_logits_of_transformers_loop(model_type):
    torch.manual_seed(0)
    model = real_model(small_config(model_type))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() <= 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    prompt, new = torch.randint(5, 100, (2, 37)), torch.randint(5, 100, (2, 1))
    logits = []
    for context in (nullcontext(), scans_as_operators(model)):
        with torch.no_grad(), context:
            first = model(input_ids=prompt, use_cache=True)
            cache = cache_of(first) if model_type != "recurrent_gemma" else None
            second = model(input_ids=new, use_cache=True, **cache_argument(model, cache))
        logits.append((first.logits, second.logits))
    torch.testing.assert_close(logits[0][0], logits[1][0], rtol=1e-4, atol=1e-5)
    if model_type != "recurrent_gemma":
        torch.testing.assert_close(logits[0][1], logits[1][1], rtol=1e-4, atol=1e-5)
    code = {sys.modules[type(module).__module__] for module in model.modules()}
    assert all(name == "forward" or not _is_operator(owner, name) for m in code for owner, name, _ in _scans_of(m))


def _is_operator(owner, name):
    return getattr(owner, name).__module__ == "fxmeter.tracer.run.patches.scan_hooks"


@pytest.mark.parametrize("model_type", FAMILIES)
def test_one_node_for_each_layer_whatever_the_length(model_type):
    model = load_model(small_config(model_type), dtype="float32")
    short, long = (annotate(model, prefill(length), fold=False) for length in (32, 256))
    assert len(short.fx_graph.nodes) == len(long.fx_graph.nodes)
    attending = {layer.layer for layer in short.kv_cache if layer.kind in ("DynamicLayer", "DynamicSlidingWindowLayer")}
    assert len(scans(short.fx_graph)) == len(kinds_of_layers(model.config)) - len(attending)
    assert {_name(node) for node in scans(short.fx_graph)} == set(FAMILIES[model_type].split())


@pytest.mark.parametrize("model_type", ["mamba", "falcon_mamba", "xlstm", "rwkv"])
def test_state_and_a_decode_step_do_not_depend_on_the_context(model_type):
    model = load_model(small_config(model_type), dtype="float32")
    short, long = (annotate(model, decode(length)).cost for length in (8, 800))
    assert short == long
    assert short.kv_bytes > 0
    assert short.kv_read_bytes > 0
    assert short.kv_write_bytes > 0


def test_a_gradient_through_a_scan_is_taken_through_transformers_loop():
    layer = real_model(small_config("mamba")).backbone.layers[0]

    class Force(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            with torch.enable_grad():
                x = x.detach().requires_grad_(True)
                self.layer(x).sum().backward()
                return x.grad

    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    x = torch.randn(2, 5, layer.mixer.in_proj.in_features)
    force = Force()
    ours = annotate_module(force, x)
    assert not scans(ours.fx_graph)
    with FlopCounterMode(display=False) as counter:
        force(x)
    assert ours.cost.matmul_flops == counter.get_total_flops() > 0


def test_products_of_a_selective_scan_equal_the_counter_on_transformers_loop():
    config = small_config("mamba")
    ours = annotate(load_model(config, dtype="float32"), prefill(20, batch=2)).cost.matmul_flops
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        real_model(config)(input_ids=torch.zeros(2, 20, dtype=torch.long))
    assert ours == counter.get_total_flops()


@pytest.mark.parametrize("length", [20, 64, 130])
def test_products_of_the_chunkwise_delta_rule_equal_the_counter_on_transformers_code(length):
    config = small_config("qwen3_next")
    ours = annotate(load_model(config, dtype="float32"), prefill(length, batch=2), attention="eager").cost.matmul_flops
    model = real_model(config)
    model.config._experts_implementation = "batched_mm"
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=torch.zeros(2, length, dtype=torch.long))
    assert ours == counter.get_total_flops()


@pytest.mark.parametrize("length", [16, 20])
def test_products_of_state_space_duality_equal_the_counter_but_for_what_transformers_repeats(length):
    """transformers repeats B and C for every head, and passes states between chunks by a product over all of them."""
    config = small_config("mamba2")
    ours = annotate(load_model(config, dtype="float32"), prefill(length, batch=2)).cost.matmul_flops
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        real_model(config)(input_ids=torch.zeros(2, length, dtype=torch.long))
    heads, groups, width, state, chunk = 8, 2, 16, 8, 8
    chunks = (length + chunk - 1) // chunk
    repeated = 2 * 2 * chunks * chunk * chunk * state * (heads - groups)
    passing = 2 * 2 * heads * (chunks + 1) ** 2 * width * state
    assert counter.get_total_flops() - ours == config.num_hidden_layers * (repeated + passing)


@pytest.mark.parametrize("length", [3, 10])
def test_products_of_a_block_indexer_equal_the_counter_on_transformers_loop(length):
    config = small_config("qwen4_exp")
    ours = annotate(load_model(config, dtype="float32"), prefill(length, batch=2), attention="eager").cost.matmul_flops
    model = real_model(config)
    model.config._experts_implementation = "batched_mm"
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=torch.zeros(2, length, dtype=torch.long))
    assert ours == counter.get_total_flops()


@pytest.mark.parametrize("length", [5, 8, 20, 64])
def test_products_of_lightning_attention_equal_the_counter_on_transformers_code(length):
    config = small_config("minimax")
    ours = annotate(load_model(config, dtype="float32"), prefill(length, batch=2), attention="eager").cost.matmul_flops
    model = real_model(config)
    model.config._experts_implementation = "batched_mm"
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=torch.zeros(2, length, dtype=torch.long))
    assert ours == counter.get_total_flops()


def test_a_decode_step_of_lightning_attention_equals_the_counter_on_transformers_code():
    config = small_config("minimax")
    ours = annotate(load_model(config, dtype="float32"), decode(20, batch=2), attention="eager").cost.matmul_flops
    model = real_model(config)
    model.config._experts_implementation = "batched_mm"
    with torch.no_grad():
        cache = cache_of(model(input_ids=torch.zeros(2, 20, dtype=torch.long), use_cache=True))
        with FlopCounterMode(display=False) as counter:
            model(input_ids=torch.zeros(2, 1, dtype=torch.long), past_key_values=cache, use_cache=True)
    assert ours == counter.get_total_flops()
