"""How attention and a decoder layer scale, by the trace and by hand alike."""

from __future__ import annotations

import pytest

from fxmeter.annotators import annotate
from fxmeter.models import decode, prefill
from fxmeter.models.hand.hand_written import hand_written_model
from fxmeter.models.presets import preset

LAYER = "model.layers.1"
ATTENTION = f"{LAYER}.self_attn"


@pytest.fixture(params=["traced", "by hand"])
def cost(request, preset_model):
    """(scenario, attention, path) → StageCost, of DeepSeek-OCR, by either opinion."""

    def traced(scenario, attention, path=ATTENTION):
        return annotate(preset_model("deepseek-ocr"), scenario, attention=attention).modules[path].cost

    def by_hand(scenario, attention, path=ATTENTION):
        model = hand_written_model(preset("deepseek-ocr").config, attention=attention, element_bytes=2)
        return model.modules(scenario.batch, scenario.query_len, scenario.kv_len)[path]

    return traced if request.param == "traced" else by_hand


def test_flash_prefill_grows_linearly_and_eager_quadratically(cost):
    flash = {s: cost(prefill(s), "flash").activation_bytes for s in (1024, 4096, 8192)}
    eager = {s: cost(prefill(s), "eager").activation_bytes for s in (1024, 4096, 8192)}
    assert flash[4096] == 4 * flash[1024]
    assert flash[8192] == 8 * flash[1024]
    buffers = {s: eager[s] - flash[s] for s in flash}
    assert 15.8 < buffers[4096] / buffers[1024] <= 16
    assert 62.9 < buffers[8192] / buffers[1024] <= 64


def test_flash_decode_is_constant_in_context_and_linear_in_queries_and_batch(cost):
    one = cost(decode(1024), "flash").activation_bytes
    assert cost(decode(4096), "flash").activation_bytes == one
    assert cost(decode(8192), "flash").activation_bytes == one
    assert cost(decode(8192, query_len=4), "flash").activation_bytes == 4 * one
    assert cost(decode(8192, batch=8), "flash").activation_bytes == 8 * one


def test_the_gap_of_eager_decode_is_exactly_its_buffers(cost, request):
    per_pair = 16 if "traced" in request.node.name else 12  # the trace sees the float32 copy of the scores
    for context in (1024, 4096, 8192):
        flash, eager = (cost(decode(context), attention).activation_bytes for attention in ("flash", "eager"))
        assert eager - flash == 10 * (context + 1) * per_pair


def test_whole_pass_of_flash_and_eager_decode_are_within_2x_at_1k(cost):
    flash, eager = (cost(decode(1024), attention, "").activation_bytes for attention in ("flash", "eager"))
    assert flash < eager < 2 * flash
    io = [cost(decode(1024), attention).io_bytes for attention in ("flash", "eager")]
    assert io[0] < io[1] < 2 * io[0]


@pytest.mark.parametrize("attention", ["eager", "flash"])
def test_a_decoder_layers_decode_is_far_below_its_prefill(cost, attention):
    for context in (1024, 4096):
        step = cost(decode(context), attention, LAYER)
        prompt = cost(prefill(context), attention, LAYER)
        assert prompt.activation_bytes > 200 * step.activation_bytes
        assert prompt.flops > 500 * step.flops


def test_a_layers_ratio_of_eager_to_flash_stays_in_its_band(cost):
    for context, low, high in ((1024, 1.1, 1.4), (4096, 1.6, 2.3), (8192, 2.2, 3.5)):
        flash, eager = (cost(decode(context), attention, LAYER).activation_bytes for attention in ("flash", "eager"))
        assert low < eager / flash < high
        ratio = cost(decode(context), "eager", LAYER).io_bytes / cost(decode(context), "flash", LAYER).io_bytes
        assert 1 < ratio < 1.03
