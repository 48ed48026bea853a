"""Public numbers that fxmeter is held to, to the unit."""

from __future__ import annotations

import pytest

from fxmeter import deploy
from fxmeter.annotators import annotate
from fxmeter.models import decode, encode, prefill

# DeepSeek-OCR's decoder, 2 FLOPs per multiply-accumulate and token.
HIDDEN, HEADS, HEAD_DIM, LAYERS, VOCABULARY = 1280, 10, 128, 12, 129_280
PROJECTIONS = 4 * 2 * HIDDEN * HIDDEN  # q, k, v, o
DENSE = 3 * 2 * HIDDEN * 6848
EXPERT = 3 * 2 * HIDDEN * 896
MOE = 2 * HIDDEN * 64 + 6 * EXPERT + 2 * EXPERT  # router, six routed, two shared
PER_TOKEN = LAYERS * PROJECTIONS + DENSE + 11 * MOE + 2 * HIDDEN * VOCABULARY
PER_PAIR = LAYERS * 2 * 2 * HEADS * HEAD_DIM  # scores and weighted values
KV_PER_TOKEN = LAYERS * 2 * HEADS * HEAD_DIM * 2
PARAMETERS = 2_934_734_080
ACTIVE_PARAMETERS = 574_127_360


def test_the_constants_are_the_published_ones():
    assert PER_TOKEN == 1_148_190_720
    assert PER_PAIR == 61_440 == KV_PER_TOKEN


@pytest.mark.parametrize("attention", ["eager", "flash"])
class TestDeepseekOcr:
    @pytest.mark.parametrize("length", [1, 2, 493, 1213, 4096])
    @pytest.mark.parametrize("batch", [1, 3])
    def test_prefill(self, preset_model, attention, length, batch):
        cost = annotate(preset_model("deepseek-ocr"), prefill(length, batch=batch), attention=attention).cost
        assert cost.matmul_flops == batch * (PER_TOKEN * length + PER_PAIR * length**2)
        assert cost.kv_bytes == KV_PER_TOKEN * batch * length == cost.kv_write_bytes
        assert cost.weight_bytes == 2 * PARAMETERS

    @pytest.mark.parametrize("cached", [0, 1, 512, 4096, 100_000])
    @pytest.mark.parametrize("batch", [1, 64])
    def test_decode(self, preset_model, attention, cached, batch):
        cost = annotate(preset_model("deepseek-ocr"), decode(cached, batch=batch), attention=attention).cost
        assert cost.matmul_flops == batch * (PER_TOKEN + PER_PAIR * (cached + 1))
        assert cost.kv_bytes == KV_PER_TOKEN * batch * (cached + 1) == cost.kv_read_bytes
        assert cost.kv_write_bytes == KV_PER_TOKEN * batch
        assert cost.weight_bytes == 2 * PARAMETERS

    def test_a_chunk_of_a_prefill_attends_to_the_chunks_before(self, preset_model, attention):
        model = preset_model("deepseek-ocr")
        whole = annotate(model, prefill(96), attention=attention, causal="exact").cost
        first = annotate(model, prefill(64), attention=attention).cost
        second = annotate(model, prefill(32, past_len=64), attention=attention).cost
        assert second.matmul_flops == PER_TOKEN * 32 + PER_PAIR * 32 * 96
        assert first.kv_write_bytes + second.kv_write_bytes == second.kv_bytes == whole.kv_bytes

    def test_several_tokens_in_one_decode_step(self, preset_model, attention):
        cost = annotate(preset_model("deepseek-ocr"), decode(100, query_len=4), attention=attention).cost
        assert cost.matmul_flops == 4 * (PER_TOKEN + PER_PAIR * 104)

    def test_decode_reads_the_active_parameters(self, preset_model, attention):
        cost = annotate(preset_model("deepseek-ocr"), decode(4096), attention=attention).cost
        embedding_row, angles = 2 * HIDDEN, 4 * HEAD_DIM // 2
        assert cost.weight_read_bytes == 2 * ACTIVE_PARAMETERS + embedding_row + angles

    @pytest.mark.parametrize("batch", [1, 2, 64, 1024])
    def test_routed_experts_read_as_many_as_tokens_are_expected_to_touch(self, preset_model, attention, batch):
        model = preset_model("deepseek-ocr")
        stage = annotate(model, decode(128, batch=batch), attention=attention)
        touched = 64 * (1 - (1 - 6 / 64) ** batch)
        up, down = 2 * 896 * HIDDEN * 2, 896 * HIDDEN * 2
        experts = stage.modules["model.layers.1.mlp.experts"].cost
        assert experts.weight_read_bytes == round(touched * up) + round(touched * down)
        worst = annotate(model, decode(128, batch=batch), attention=attention, routing="worst")
        assert worst.modules["model.layers.1.mlp.experts"].cost.weight_read_bytes == min(64, 6 * batch) * (up + down)


def test_llama_2_7b_at_2048(preset_model):
    layer = 4 * 2 * 4096 * 4096 + 3 * 2 * 4096 * 11008
    core = 32 * 2 * 2 * 4096 * 2048 * 2048
    cost = annotate(preset_model("llama-2-7b"), prefill(2048), attention="eager").cost
    assert cost.matmul_flops == 2048 * (32 * layer + 2 * 4096 * 32_000) + core
    assert round(cost.flops_tflops * 0 + cost.matmul_flops / 1e12, 6) == 29.261612
    assert round(core / 1e12, 6) == 2.199023


def test_deepseek_v2_lite_at_2048(preset_model):
    stage = annotate(preset_model("deepseek-v2-lite"), prefill(2048), attention="eager")
    assert round(stage.cost.matmul_flops / 1e12, 6) == 11.200201
    routed = stage.modules["model.layers.1.mlp.experts"]
    assert round(26 * routed.cost.matmul_flops / 1e12, 6) == 5.527623
    assert routed.times == 26


def test_arithmetic_intensity_of_prefill_and_decode(preset_model):
    model = preset_model("deepseek-ocr")
    assert 0.9 < annotate(model, decode(4096)).cost.arithmetic_intensity < 1.1
    assert 100 < annotate(model, prefill(4096)).cost.arithmetic_intensity < 1000


def test_gathered_biases_of_experts_are_read_once(preset_model):
    """gpt-oss-20b, 4k, batch 8: every weight once, but for the rows of the embedding that no token asks for."""
    cost = annotate(preset_model("gpt-oss-20b"), prefill(4096, batch=8), deployment=deploy(weights="bfloat16")).cost
    unread_rows = (201_088 - 8 * 4096) * 2880 * 2
    frequencies, windows = 32 * 4, 12 * 8  # of the positions; the windowed layers' own size
    assert cost.weight_bytes == 41_829_514_368
    assert cost.weight_read_bytes == cost.weight_bytes - unread_rows + frequencies + windows


def test_gemma_3_27b_at_128k_keeps_windows_and_holds_the_prompt(preset_model):
    """62 layers of 16 key heads of 128, every sixth full; the others keep 1,023 tokens of a window of 1,024."""
    model, token, prompt = preset_model("gemma-3-27b"), 2 * 16 * 128 * 2, 128 * 1024
    cost = annotate(model, prefill(prompt)).cost
    assert cost.kv_bytes == (10 * prompt + 52 * 1023) * token == 11_173_199_872
    assert cost.kv_storage_bytes == 62 * prompt * token == 66_571_993_088
    assert (round(cost.kv_bytes / 2**30, 1), cost.kv_storage_bytes / 2**30) == (10.4, 62.0)
    step = annotate(model, decode(prompt)).cost
    assert step.kv_bytes == (10 * (prompt + 1) + 52 * 1023) * token
    assert step.kv_storage_bytes == (10 * (prompt + 1) + 52 * 1024) * token  # 1,023 and the new one, put together


@pytest.mark.parametrize("attention", ["eager", "flash"])
def test_whisper_large_v3_writes_400_tokens_over_1500_positions(preset_model, attention):
    """Published: 3.353 TFLOP with the encoder, 311,296,000 bytes of cache, 1,543.5 M parameters."""
    model, width, hidden = preset_model("whisper-large-v3"), 1280, 5120
    sound, text, written = (annotate(model, s, attention=attention) for s in (encode(1500), prefill(400), decode(399)))
    project, core = 2 * width * width, 2 * 2 * width  # a token through a projection; a pair's score and weighted value
    mlp = 2 * 2 * width * hidden
    convolutions = 2 * 3000 * 3 * 128 * width + 2 * 1500 * 3 * width * width
    assert sound.cost.matmul_flops == convolutions + 32 * (1500 * (4 * project + mlp) + 1500 * 1500 * core)
    own = 400 * 4 * project + 400 * 400 * core
    crossing = 400 * 2 * project + 1500 * 2 * project + 400 * 1500 * core
    assert text.cost.matmul_flops == 32 * (own + crossing + 400 * mlp) + 2 * 400 * width * 51_866
    assert round((sound.cost.matmul_flops + text.cost.matmul_flops) / 1e12, 3) == 3.353
    assert text.cost.kv_bytes == written.cost.kv_bytes == 32 * 2 * (400 + 1500) * width * 2 == 311_296_000
    assert written.cost.kv_write_bytes == 32 * 2 * width * 2
    assert round(text.cost.weight_bytes / 2 / 1e6, 1) == 1543.5
    assert sound.cost.kv_bytes == 0
