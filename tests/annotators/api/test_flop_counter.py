"""matmul_flops equals torch's own FlopCounterMode on the same model, run apart from everything here."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from fxmeter.annotators import annotate
from fxmeter.models import decode, prefill
from fxmeter.tracer import load_model

PRESETS = [
    "deepseek-ocr",
    "deepseek-v2-lite",
    "deepseek-v2",
    "deepseek-v3",
    "llama-2-7b",
    "llama-3.1-8b",
    "qwen3-8b",
    "qwen3-30b-a3b",
]
SCENARIOS = [prefill(160, batch=3), prefill(32, past_len=64), decode(130, batch=5)]
SMALLEST = [prefill(2), decode(1)]
DEEP = ["deepseek-v2", "deepseek-v3", "qwen3-30b-a3b"]
"""Seconds a scenario; deepseek-v2-lite has their kinds of attention and experts at the smallest sizes too."""


def counted(model, scenario) -> int:
    """FLOPs of the pass alone: all layers, eager attention, experts as batched products, which the counter sees."""

    def tokens(count):
        return torch.zeros(scenario.batch, count, dtype=torch.long, device="meta")

    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        if scenario.past_len:
            model(input_ids=tokens(scenario.past_len), past_key_values=cache, use_cache=True)
        with FlopCounterMode(display=False) as counter:
            model(input_ids=tokens(scenario.query_len), past_key_values=cache, use_cache=True)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", PRESETS)
def test_every_scenario_equals_the_counter(name):
    model = load_model(name)
    text = model.config.get_text_config()
    for scenario in SCENARIOS if name in DEEP else [*SCENARIOS, *SMALLEST]:
        text._experts_implementation = "grouped_mm"
        ours = {kind: annotate(model, scenario, attention=kind).cost for kind in ("eager", "flash")}
        text._experts_implementation = "batched_mm"
        theirs = counted(model, scenario)
        assert theirs > 0
        assert ours["eager"].matmul_flops == theirs
        assert ours["flash"].matmul_flops == theirs
        assert ours["eager"].kv_bytes == ours["flash"].kv_bytes
        assert ours["eager"].weight_bytes == ours["flash"].weight_bytes
