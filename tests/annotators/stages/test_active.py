"""Active parameters are those that one decoded token reads, and the published ones."""

from __future__ import annotations

import pytest

from fxmeter.annotators.stages.active import active_parameters
from fxmeter.tracer import load_model
from tests.tracer.tiny import GEMMA3, LLAMA, QWEN_MOE, config

PUBLISHED = {
    "deepseek-ocr": "574,127,360",
    "gpt-oss-20b": "3.61B",
    "gpt-oss-120b": "5.13B",
    "qwen3-30b-a3b": "3.04B",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_figure(preset_model, name):
    active = active_parameters(preset_model(name))
    assert PUBLISHED[name] in (f"{active:,}", f"{active / 1e9:.2f}B")


def test_all_but_the_embedding_of_a_dense_model():
    model = load_model(config(LLAMA))
    assert active_parameters(model) == sum(p.numel() for p in model.parameters()) - 40 * 32


def test_a_tied_table_counts_as_the_head():
    model = load_model(config(GEMMA3))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert active_parameters(model) == sum(p.numel() for p in model.parameters())


def test_k_of_e_experts():
    model = load_model(config(QWEN_MOE))
    expert = 3 * 32 * 16
    idle = 3 * (4 - 2) * expert + 40 * 32
    assert active_parameters(model) == sum(p.numel() for p in model.parameters()) - idle


def test_a_table_of_experts_names_different_ones_and_a_split_parameter_is_read_whole():
    """DeepSeek-V4's first layers look the k experts of a token up; parts of a hyper-connection's bias are split off. A
    second token closes no block of the compressed cache, so what closes one is not read."""
    model = load_model("deepseek-v4-flash")
    unread = ("embed_tokens.", "position_bias", "compressor.kv_norm", "indexer.kv_norm")
    idle = sum(p.numel() for path, p in model.named_parameters() if any(name in path for name in unread))
    experts = sum(p.numel() for path, p in model.named_parameters() if ".experts." in path)
    assert active_parameters(model) == sum(p.numel() for p in model.parameters()) - idle - experts * (256 - 6) // 256
