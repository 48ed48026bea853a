"""A closed form is what a recording at the same point gives, in every field and for every module."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import sympy
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from transformers import CONFIG_MAPPING

from fxmeter import FxmeterError
from fxmeter.annotators import annotate, closed_form
from fxmeter.annotators.api import annotate_steps
from fxmeter.models import decode, generation, vision
from fxmeter.models.presets import preset_names
from fxmeter.models.scenario import Scenario
from fxmeter.tracer import load_model
from fxmeter.tracer.load.vision import build_vision
from tests.annotators.closed.test_generation import COMPRESSES
from tests.tracer.tiny import config
from validation.small_configs import small_config

OPTIONS = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "database": None,
    "derandomize": True,
}
PRESET_POINTS = st.tuples(
    st.one_of(st.sampled_from([1, 2]), st.integers(1, 512)),
    st.one_of(st.just(1), st.integers(1, 4096)),
    st.one_of(st.just(0), st.integers(0, 200_000), st.sampled_from([126, 127, 128, 1022, 1023, 1024, 4095, 4096])),
)
SMALL_POINTS = st.tuples(
    st.one_of(st.sampled_from([1, 2]), st.integers(1, 512)),
    st.one_of(st.just(1), st.sampled_from([6, 7, 8, 9]), st.integers(1, 300)),
    st.one_of(st.just(0), st.sampled_from([6, 7, 8, 9]), st.integers(0, 3000)),
)
QUICK = ["gpt_oss", "deepseek_v3", "mamba2"]
"""Windows, sinks and routed experts; a latent cache; recurrent state. Their windows, or chunks, are of 8 tokens."""
CACHES = ["mistral", "gemma3_text", "cohere2", "llama4_text", "deepseek_v2", "deepseek_v32", "deepseek_v4", "gpt_neo"]
STATES = ["mamba", "falcon_mamba", "jamba", "bamba", "granitemoehybrid", "qwen3_next", "recurrent_gemma", "minimax"]
OTHERS = ["lfm2", "zamba2", "nemotron_h", "gemma3n_text", "mixtral", "qwen3_moe", "glm4_moe", "bloom", "falcon"]
KINDS = [*QUICK, *CACHES, *STATES, *OTHERS]


@functools.cache
def small_model(model_type):
    return load_model(small_config(model_type))


@functools.cache
def form_of(name, stage, attention, **options):
    model = small_model(name) if name in KINDS else load_model(name)
    return closed_form(model, stage=stage, attention=attention, **options)


def same_everywhere(name, model, point, attention):
    """Every field of every module, against a fresh recording."""
    batch, query_len, past_len = point
    stage = "decode" if query_len == 1 and past_len else "prefill"
    scenario = Scenario(stage=stage, batch=batch, query_len=query_len, past_len=past_len)
    try:
        expected = annotate(model, scenario, attention=attention)
    except FxmeterError:
        return  # a size that torch itself cannot hold, or the model's own code
    form = form_of(name, stage, attention)
    at = {"batch": batch, "query_len": query_len, "past_len": past_len}
    assert form.at(**at) == expected.cost
    assert {path: form.modules[path].at(**at) for path in expected.modules} == {
        path: module.cost for path, module in expected.modules.items()
    }


@pytest.mark.parametrize("attention", ["eager", "flash"])
@pytest.mark.parametrize("name", QUICK)
@settings(max_examples=3, **OPTIONS)
@given(point=SMALL_POINTS.map(lambda p: p if p[1] == 1 else (*p[:2], 0)))
@example(point=(1, 1, 0))
@example(point=(3, 1, 7))
def test_at_equals_annotate(name, attention, point):
    same_everywhere(name, small_model(name), point, attention)


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["eager", "flash"])
@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=50, **OPTIONS)
@given(point=SMALL_POINTS)
def test_at_equals_annotate_for_every_kind_of_cache_and_experts(name, attention, point):
    same_everywhere(name, small_model(name), point, attention)


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["eager", "flash"])
@pytest.mark.parametrize("name", preset_names())
@settings(max_examples=50, **OPTIONS)
@given(point=PRESET_POINTS)
def test_at_equals_annotate_for_every_preset(preset_model, name, attention, point):
    same_everywhere(name, preset_model(name), point, attention)


def test_a_table_is_read_at_most_whole_however_many_rows_are_looked_up():
    model = small_model("llama")
    form, rows = closed_form(model, stage="prefill"), model.config.vocab_size
    assert form.at(batch=1, query_len=7).weight_read_bytes < form.at(batch=1, query_len=8).weight_read_bytes
    for batch, query_len in ((1, rows - 1), (1, rows), (1, rows + 1), (7, rows)):
        scenario = Scenario(stage="prefill", batch=batch, query_len=query_len, past_len=0)
        assert form.at(batch=batch, query_len=query_len) == annotate(model, scenario).cost
    most = form.evaluate(batch=[1, 1, 2, 9], query_len=[rows, rows + 1, rows, 2 * rows])["weight_read_bytes"]
    assert len(set(most.tolist())) == 1
    steps = annotate(model, generation(9, steps=3, batch=rows + 5))
    assert closed_form(model).generation(past_len=9, steps=3, batch=rows + 5) == steps.cost
    assert form.reason is None


def test_a_model_that_runs_up_to_a_length_has_a_form_up_to_there():
    model = small_model("gpt_neo")  # its causal mask is a buffer of 256 x 256
    form = closed_form(model, stage="prefill")
    for batch, query_len in ((1, 3), (2, 100), (5, 256)):
        scenario = Scenario(stage="prefill", batch=batch, query_len=query_len, past_len=0)
        assert form.at(batch=batch, query_len=query_len) == annotate(model, scenario).cost
    assert form.reason is None
    with pytest.raises(FxmeterError, match="more than its 256 positions"):
        form.at(batch=2, query_len=257)


def test_a_model_whose_ops_change_with_every_length_is_said_to_be_so():
    model = load_model(config(COMPRESSES))  # blocks of four tokens
    form, whole = closed_form(model, stage="decode"), annotate(model, decode(9, batch=2))
    for path in ("", "model.layers.0"):
        assert form.modules[path].at(batch=2, past_len=9) == whole.modules[path].cost
    assert "again and again" in form.reason
    with pytest.raises(FxmeterError, match="again and again"):
        form.expressions  # noqa: B018


WINDOWED = {
    "model_type": "mistral",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "sliding_window": 6,
}


@pytest.mark.parametrize(
    ("attention", "causal", "batches"),
    [("flash", "exact", [1, 3]), pytest.param("eager", "full", [1, 3], marks=pytest.mark.slow)],
)
def test_a_window_is_crossed_exactly(attention, causal, batches):
    fields = dict(WINDOWED)
    windowed = load_model(CONFIG_MAPPING[fields.pop("model_type")](**fields))
    form = closed_form(windowed, attention=attention, causal=causal, stage="prefill")
    for batch in batches:
        for query_len, past_len in [(1, 0), (1, 5), (1, 6), (2, 4), (5, 0), (5, 1), (6, 0), (7, 0), (7, 5), (12, 20)]:
            scenario = Scenario(stage="prefill", batch=batch, query_len=query_len, past_len=past_len)
            expected = annotate(windowed, scenario, attention=attention, causal=causal).cost
            assert form.at(batch=batch, query_len=query_len, past_len=past_len) == expected, scenario
    assert form.reason is None


def test_deepseek_ocr_in_symbols():
    B, S_q, C = sympy.symbols("B S_q C")
    step = form_of("deepseek-ocr", "decode", "flash").expressions["matmul_flops"]
    prompt = form_of("deepseek-ocr", "prefill", "flash").expressions["matmul_flops"]
    named = {symbol.name: symbol for symbol in step.free_symbols | prompt.free_symbols}
    swap = {named["B"]: B, named["S_q"]: S_q, named["C"]: C}
    assert sympy.expand(step.subs(swap) - B * (61_440 * (C + 1) + 1_148_190_720)) == 0
    assert sympy.expand(prompt.subs(swap) - B * (1_148_190_720 * S_q + 61_440 * S_q**2)) == 0


def same_as_expressions(name, attention, points):
    """sympy's value of every field at points of the usual decode and prefill."""
    for batch, length in points:
        for stage, point in (("decode", (batch, 1, length)), ("prefill", (batch, length, 0))):
            form = form_of(name, stage, attention)
            cost = form.at(**dict(zip(("batch", "query_len", "past_len"), point, strict=True)))
            for field, expression in form.expressions.items():
                values = {symbol: point[["B", "S_q", "C"].index(symbol.name)] for symbol in expression.free_symbols}
                assert int(expression.subs(values)) == getattr(cost, field), (field, point)


def test_expressions_evaluate_to_the_cost_where_pieces_meet():
    same_as_expressions("gpt_oss", "flash", [(1, 1), (3, 6), (3, 7), (2, 8), (1, 9), (40, 700)])


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["eager", "flash"])
@pytest.mark.parametrize("name", ["gpt-oss-20b", "deepseek-v2-lite", "gemma-2-9b", "mixtral-8x7b", "qwen2.5-7b"])
def test_expressions_of_presets_evaluate_to_the_cost(name, attention):
    lengths = [1, 2, 3, 126, 127, 128, 129, 500, 4095, 4096, 4097, 70_000]
    same_as_expressions(name, attention, [(batch, length) for batch in (1, 2, 5, 64) for length in lengths])


def test_arrays_broadcast_and_equal_single_points():
    form = form_of("gpt_oss", "decode", "eager")
    batches, pasts = np.array([[1], [2], [70]]), np.array([0, 1, 5, 6, 7, 8, 493, 100_000])
    found = form.evaluate(batch=batches, past_len=pasts)
    for i, batch in enumerate(batches[:, 0]):
        for j, past_len in enumerate(pasts):
            cost = form.at(batch=int(batch), past_len=int(past_len))
            assert {name: int(array[i, j]) for name, array in found.items()} == {
                name: getattr(cost, name) for name in found
            }


def test_nothing_overflows_silently():
    form = form_of("deepseek-ocr", "decode", "flash")
    found = form.evaluate(batch=[1, 10**9], past_len=[10, 10**9])["matmul_flops"].tolist()
    assert found == [1_148_190_720 + 61_440 * 11, 10**9 * (1_148_190_720 + 61_440 * (10**9 + 1))]
    unsigned = 10**9 * (1_148_190_720 + 61_440 * 176_001)  # numpy alone would take this for an unsigned number
    assert 2**63 < unsigned < 2**64
    for past_len in (176_000, [176_000], [1, 176_000]):
        found = form.evaluate(batch=10**9, past_len=past_len)["matmul_flops"]
        assert np.ravel(found)[-1] == unsigned
        assert np.ravel(found - 2 * unsigned)[-1] == -unsigned


@pytest.mark.parametrize(
    "bad", [{"batch": 0}, {"batch": 1.5}, {"past_len": -1}, {"batch": [1, 2], "past_len": [1, 2, 3]}]
)
def test_what_cannot_be_is_refused(bad):
    with pytest.raises(FxmeterError):
        form_of("deepseek-ocr", "decode", "flash").evaluate(**{"past_len": 5, **bad})


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({}, "decode needs past_len"),
        ({"past_len": -1}, "past_len must be at least 0, not -1"),
        ({"past_len": [1, 2]}, "past_len must be a whole number"),
        ({"past_len": 10**10}, "the largest accepted"),
        ({"past_len": 3, "batch": 0}, "batch must be at least 1"),
        ({"past_len": 3, "crops": (1, 2)}, "crops belong to the vision stage"),
    ],
)
def test_a_point_that_cannot_be_is_refused_in_a_line(bad, words):
    with pytest.raises(FxmeterError, match=words) as refused:
        form_of("deepseek-ocr", "decode", "flash").at(**bad)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("crops", [3, (1,), (1, 2, 3), (0, 2), (1.5, 2)])
def test_a_grid_that_cannot_be_is_refused(crops):
    with pytest.raises(FxmeterError, match="crop"):
        closed_form(torch.nn.Linear(1, 1), stage="vision").at(crops=crops)


def test_a_field_that_does_not_exist_is_named():
    with pytest.raises(FxmeterError, match="no field 'flop'"):
        form_of("deepseek-ocr", "decode", "flash").evaluate(past_len=5, fields=["flop"])


@pytest.mark.parametrize("attention", ["eager", "flash"])
@pytest.mark.parametrize(("name", "past_len"), [("deepseek_v3", 0), ("gpt_oss", 3)])
def test_generation_is_the_sum_of_its_steps(name, past_len, attention):
    model, scenario = small_model(name), generation(past_len, steps=12, batch=2)
    whole, steps = (f(model, scenario, attention=attention) for f in (annotate, annotate_steps))
    assert whole.cost == steps.cost
    assert whole.ops == steps.ops
    assert whole.kv_cache == steps.kv_cache
    assert whole.floor_io_bytes == steps.floor_io_bytes
    assert dict(whole.modules) == dict(steps.modules)


@pytest.mark.slow
def test_a_hundred_tokens_of_deepseek_ocr_are_a_hundred_steps(preset_model):
    model, scenario = preset_model("deepseek-ocr"), generation(493, steps=100)
    whole, steps = annotate(model, scenario), annotate_steps(model, scenario)
    assert whole.cost == steps.cost
    assert dict(whole.modules) == dict(steps.modules)
    assert whole.ops == steps.ops


@pytest.mark.parametrize("attention", ["flash", pytest.param("eager", marks=pytest.mark.slow)])
def test_a_vision_tower_is_exact_for_any_page(attention):
    tower = build_vision()
    form = closed_form(tower, stage="vision", attention=attention)
    for crops in ((0, 0), (1, 2), (3, 3), (5, 1), (17, 23)):
        assert form.at(crops=crops) == annotate(tower, vision(crops=crops), attention=attention).cost
    assert form.reason is None


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["flash", "eager"])
def test_a_vision_tower_is_exact_for_random_pages_and_batches(attention):
    tower, chance = build_vision(), np.random.default_rng(3)
    form = closed_form(tower, stage="vision", attention=attention)
    for batch, rows, columns in zip(*(chance.integers(1, most, 30) for most in (9, 40, 40)), strict=True):
        page = vision(crops=(int(rows), int(columns)), batch=int(batch))
        stage = annotate(tower, page, attention=attention)
        assert form.at(batch=page.batch, crops=page.crops) == stage.cost
        for path, module in stage.modules.items():
            assert form.modules[path].at(batch=page.batch, crops=page.crops) == module.cost
    assert form.reason is None
