"""A closed form is what a recording at the same point gives, in every field and for every module."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import sympy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from transformers import CONFIG_MAPPING

from annotators import annotate, closed_form
from annotators.annotation import annotate_steps
from models import generation
from models.errors import FxmeterError
from models.presets import preset_names
from models.scenario import Scenario
from models.stage_cost import FIELDS
from tracer import load_model

OPTIONS = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "database": None,
    "derandomize": True,
}
POINTS = st.tuples(
    st.one_of(st.sampled_from([1, 2]), st.integers(1, 512)),
    st.one_of(st.just(1), st.integers(1, 4096)),
    st.one_of(st.just(0), st.integers(0, 200_000), st.sampled_from([126, 127, 128, 1022, 1023, 1024, 4095, 4096])),
)
QUICK = ["deepseek-ocr", "gpt-oss-20b"]


@functools.cache
def form_of(name, stage, attention, **options):
    return closed_form(load_model(name), stage=stage, attention=attention, **options)


def same_everywhere(form, model, scenario, **options):
    """Every field of every module, against a fresh recording."""
    stage = annotate(model, scenario, attention=form.attention, **options)
    at = {"batch": scenario.batch, "query_len": scenario.query_len, "past_len": scenario.past_len}
    assert form.at(**at) == stage.cost
    for path, module in stage.modules.items():
        assert form.modules[path].at(**at) == module.cost, path


@pytest.mark.parametrize("attention", ["eager", "flash"])
@pytest.mark.parametrize("name", QUICK)
@settings(max_examples=3, **OPTIONS)
@given(POINTS)
@example((1, 1, 0))
@example((3, 1, 500))
def test_at_equals_annotate(preset_model, name, attention, point):
    batch, query_len, past_len = point
    for stage in ("decode", "prefill"):
        scenario = Scenario(stage=stage, batch=batch, query_len=query_len, past_len=past_len)
        same_everywhere(form_of(name, stage, attention), preset_model(name), scenario)


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["eager", "flash"])
@pytest.mark.parametrize("name", preset_names())
@settings(max_examples=50, **OPTIONS)
@given(point=POINTS)
def test_at_equals_annotate_for_every_preset(preset_model, name, attention, point):
    batch, query_len, past_len = point
    stage = "decode" if query_len == 1 else "prefill"
    scenario = Scenario(stage=stage, batch=batch, query_len=query_len, past_len=past_len)
    model = preset_model(name)
    try:
        expected = annotate(model, scenario, attention=attention)
    except FxmeterError:
        return  # a size that torch itself cannot hold
    form = form_of(name, stage, attention)
    at = {"batch": batch, "query_len": query_len, "past_len": past_len}
    assert form.at(**at) == expected.cost
    assert {path: form.modules[path].at(**at) for path in expected.modules} == {
        path: module.cost for path, module in expected.modules.items()
    }


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


@pytest.fixture(scope="module")
def windowed():
    fields = dict(WINDOWED)
    return load_model(CONFIG_MAPPING[fields.pop("model_type")](**fields))


@pytest.mark.parametrize(("attention", "causal"), [("eager", "full"), ("flash", "exact")])
def test_a_window_is_crossed_exactly(windowed, attention, causal):
    form = closed_form(windowed, attention=attention, causal=causal, stage="prefill")
    for batch in (1, 3):
        for query_len in (1, 2, 5, 6, 7, 12):
            for past_len in (0, 1, 4, 5, 6, 7, 20):
                scenario = Scenario(stage="prefill", batch=batch, query_len=query_len, past_len=past_len)
                expected = annotate(windowed, scenario, attention=attention, causal=causal).cost
                assert form.at(batch=batch, query_len=query_len, past_len=past_len) == expected, scenario
    assert form.reason is None


def test_deepseek_ocr_in_symbols():
    B, S_q, C = sympy.symbols("B S_q C")
    decode = form_of("deepseek-ocr", "decode", "flash").expressions["matmul_flops"]
    prefill = form_of("deepseek-ocr", "prefill", "flash").expressions["matmul_flops"]
    assert not (decode.free_symbols | prefill.free_symbols) - set(decode.free_symbols | prefill.free_symbols)
    named = {symbol.name: symbol for symbol in decode.free_symbols | prefill.free_symbols}
    swap = {named["B"]: B, named["S_q"]: S_q, named["C"]: C}
    assert sympy.expand(decode.subs(swap) - B * (61_440 * (C + 1) + 1_148_190_720)) == 0
    assert sympy.expand(prefill.subs(swap) - B * (1_148_190_720 * S_q + 61_440 * S_q**2)) == 0


def test_expressions_evaluate_to_the_cost(preset_model):
    for stage, at in (("decode", (3, 1, 700)), ("decode", (1, 1, 1)), ("prefill", (1, 1, 0)), ("prefill", (5, 130, 0))):
        form = form_of("gpt-oss-20b", stage, "eager")
        cost = form.at(**dict(zip(("batch", "query_len", "past_len"), at, strict=True)))
        for name in FIELDS:
            expression = form.expressions[name]
            values = {symbol: at[["B", "S_q", "C"].index(symbol.name)] for symbol in expression.free_symbols}
            assert int(expression.subs(values)) == getattr(cost, name), (name, at)


def test_arrays_broadcast_and_equal_single_points():
    form = form_of("deepseek-ocr", "decode", "eager")
    batches, pasts = np.array([[1], [2], [70]]), np.array([0, 1, 5, 493, 100_000])
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


@pytest.mark.parametrize(
    "bad", [{"batch": 0}, {"batch": 1.5}, {"past_len": -1}, {"batch": [1, 2], "past_len": [1, 2, 3]}]
)
def test_what_cannot_be_is_refused(bad):
    with pytest.raises(FxmeterError):
        form_of("deepseek-ocr", "decode", "flash").evaluate(**{"past_len": 5, **bad})


def test_a_field_that_does_not_exist_is_named():
    with pytest.raises(FxmeterError, match="no field 'flop'"):
        form_of("deepseek-ocr", "decode", "flash").evaluate(past_len=5, fields=["flop"])


@pytest.mark.parametrize("attention", ["eager", "flash"])
@pytest.mark.parametrize(("name", "past_len"), [("deepseek-ocr", 0), ("gpt-oss-20b", 121)])
def test_generation_is_the_sum_of_its_steps(preset_model, name, past_len, attention):
    model, scenario = preset_model(name), generation(past_len, steps=12, batch=2)
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


def test_the_ends_of_a_vision_tower_are_exact():
    from models import vision
    from tracer.vision import build_vision

    tower = build_vision()
    form = closed_form(tower, stage="vision", attention="flash")
    for crops, batch in (((0, 0), 1), ((1, 2), 1), ((3, 3), 2), ((5, 1), 1)):
        assert form.at(batch=batch, crops=crops) == annotate(tower, vision(crops=crops, batch=batch)).cost
