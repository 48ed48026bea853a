"""The decode contract: what depends on the context, what on the new tokens, and what the switches change."""

from __future__ import annotations

from itertools import pairwise

import pytest

from fxmeter.annotators import annotate
from fxmeter.models import decode, prefill
from fxmeter.models.stage_cost import FIELDS

HEADS, LAYERS, BFLOAT16, FLOAT32 = 10, 12, 2, 4


@pytest.fixture
def ocr(preset_model):
    return preset_model("deepseek-ocr")


def activations(model, scenario, attention):
    return annotate(model, scenario, attention=attention).cost.activation_bytes


def test_flash_decode_activations_do_not_depend_on_the_context(ocr):
    sizes = {activations(ocr, decode(context), "flash") for context in (1, 512, 32_768, 1_000_000)}
    assert len(sizes) == 1


@pytest.mark.parametrize("stage", [decode, lambda n, **kw: prefill(n, **kw)], ids=["decode", "prefill"])
def test_flash_activations_are_linear_in_the_batch(ocr, stage):
    one, two, three = (activations(ocr, stage(64, batch=b), "flash") for b in (1, 2, 3))
    assert three - two == two - one > 0


def test_flash_activations_are_linear_in_the_query_length(ocr):
    sizes = [activations(ocr, decode(512, query_len=q), "flash") for q in (1, 2, 3, 4)]
    assert len({b - a for a, b in pairwise(sizes)}) == 1
    chunk = [activations(ocr, prefill(q), "flash") for q in (100, 200, 300)]
    assert chunk[2] - chunk[1] == chunk[1] - chunk[0]


def test_eager_decode_grows_by_its_score_probability_and_mask_buffers_alone(ocr):
    """Per layer and head: scores, scaled, masked (bf16), float32 copy, softmax, and the probabilities cast back.

    Once per pass: the mask's key positions twice (int64), the comparison (bool) and the mask itself (bf16).
    """
    scores = LAYERS * HEADS * (3 * BFLOAT16 + 2 * FLOAT32 + BFLOAT16)
    mask = 2 * 8 + 1 + BFLOAT16
    small, large = (activations(ocr, decode(context), "eager") for context in (512, 32_768))
    assert large - small == (32_768 - 512) * (scores + mask)


def test_eager_decode_without_context_is_flash_and_its_one_score(ocr):
    growth = LAYERS * HEADS * (4 * BFLOAT16 + 2 * FLOAT32)
    names = ("flash", "eager")
    flash, eager = (annotate(ocr, decode(0), attention=name) for name in names)
    assert eager.cost.activation_bytes > flash.cost.activation_bytes
    attention = [s.modules["model.layers.0.self_attn"].cost.activation_bytes for s in (flash, eager)]
    assert attention[1] - attention[0] == growth // LAYERS


@pytest.mark.parametrize("context", [0, 1, 512, 8192])
def test_eager_is_never_below_flash_and_prefill_far_above_decode(ocr, context):
    flash, eager = (annotate(ocr, decode(context), attention=a).cost for a in ("flash", "eager"))
    for field in FIELDS:
        assert getattr(eager, field) >= getattr(flash, field)
    if context >= 512:
        for attention, cost in (("flash", flash), ("eager", eager)):
            assert (
                annotate(ocr, prefill(context), attention=attention).cost.activation_bytes > 30 * cost.activation_bytes
            )


def test_gqa_eager_decode_expands_keys_and_values(preset_model):
    model = preset_model("llama-3.1-8b")
    small, large = (activations(model, decode(context), "eager") for context in (100, 200))
    expanded = 32 * 2 * 32 * 128 * BFLOAT16  # layers, K and V, query heads, head size
    scores = 32 * 32 * (4 * BFLOAT16 + 2 * FLOAT32)
    mask = 2 * 8 + 1 + BFLOAT16
    assert large - small == 100 * (expanded + scores + mask)
    assert activations(model, decode(100), "flash") == activations(model, decode(200), "flash")


def changed(a, b):
    return {field for field in FIELDS if getattr(a, field) != getattr(b, field)}


def test_causal_exact_changes_the_attention_cores_arithmetic_and_nothing_else(ocr):
    full = annotate(ocr, prefill(100)).cost
    exact = annotate(ocr, prefill(100), causal="exact").cost
    assert changed(full, exact) == {"matmul_flops", "vector_flops"}
    hidden = 100 * 100 - 100 * 101 // 2
    assert full.matmul_flops - exact.matmul_flops == 61_440 * hidden
    assert full.vector_flops - exact.vector_flops == 6 * HEADS * LAYERS * hidden


def test_causal_exact_of_one_decoded_token_sees_everything(ocr):
    assert annotate(ocr, decode(100), causal="exact").cost == annotate(ocr, decode(100)).cost


def test_causal_exact_of_a_later_chunk(ocr):
    full = annotate(ocr, prefill(8, past_len=32)).cost
    exact = annotate(ocr, prefill(8, past_len=32), causal="exact").cost
    pairs = sum(32 + i + 1 for i in range(8))
    assert full.matmul_flops - exact.matmul_flops == 61_440 * (8 * 40 - pairs)


def test_eager_attention_computes_every_pair_whatever_the_switch(ocr):
    assert annotate(ocr, prefill(64), attention="eager", causal="exact").cost == (
        annotate(ocr, prefill(64), attention="eager").cost
    )


def test_logits_last_changes_the_head_and_nothing_else(ocr):
    every = annotate(ocr, prefill(100))
    last = annotate(ocr, prefill(100), logits="last")
    assert every.cost.matmul_flops - last.cost.matmul_flops == 99 * 2 * 1280 * 129_280
    for path, module in every.modules.items():
        if path not in ("", "lm_head"):
            assert module.cost == last.modules[path].cost
    assert changed(every.cost, last.cost) == {
        "matmul_flops",
        "activation_read_bytes",
        "activation_write_bytes",
        "fused_io_bytes",
        "activation_bytes",
        "peak_activation_bytes",
        "ideal_peak_activation_bytes",
    }


def test_worst_routing_changes_the_expert_weights_read_and_nothing_else(ocr):
    uniform = annotate(ocr, decode(100, batch=8)).cost
    worst = annotate(ocr, decode(100, batch=8), routing="worst").cost
    assert changed(uniform, worst) == {"weight_read_bytes", "fused_io_bytes"}
    more = worst.weight_read_bytes - uniform.weight_read_bytes
    assert worst.fused_io_bytes - uniform.fused_io_bytes == more
    assert worst.weight_read_bytes > uniform.weight_read_bytes


@pytest.mark.parametrize(
    "switch", [{"causal": "some"}, {"logits": "first"}, {"routing": "lucky"}, {"attention": "sparse"}]
)
def test_unknown_switches_are_refused(ocr, switch):
    from fxmeter.models import ScenarioError

    with pytest.raises(ScenarioError, match=next(iter(switch.values()))):
        annotate(ocr, prefill(4), **switch)
