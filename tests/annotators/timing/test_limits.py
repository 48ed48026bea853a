"""What is marked as extrapolated, and what a prompt costs beside the device."""

from __future__ import annotations

import pytest
from transformers import AutoConfig

from fxmeter import annotate, closed_form, decode, deploy, load_model, prefill
from tests.tracer.tiny import LLAMA


@pytest.fixture(scope="module")
def model():
    return load_model(AutoConfig.for_model(**LLAMA))


@pytest.mark.parametrize(
    ("scenario", "device", "weights", "reasons"),
    [
        (decode(64), "h100", None, []),
        (decode(64, batch=16), "h100", None, []),
        (decode(64, batch=17), "h100", None, ["batches above 16, a saturated server"]),
        (prefill(512), "h100", None, []),
        (prefill(128, batch=4), "h100", None, []),
        (prefill(511), "h100", None, ["prompts below 512 tokens"]),
        (decode(64), "h100", "fp8", []),
        (decode(64), "h100", "bfloat16", []),
        (decode(64), "h100", "int4-g8", ["weights that are widened inside of the product"]),
        (decode(64), "h100", "int8", ["no product in int8 was measured on h100-sxm5-80g"]),
        (decode(64), "t4", None, ["no kernel was measured on t4-16g"]),
    ],
)
def test_what_was_not_held_to_measurements_is_marked(model, scenario, device, weights, reasons):
    deployment = deploy(weights=weights)
    assert list(annotate(model, scenario, deployment=deployment).time(device).extrapolated) == reasons
    form = closed_form(model, stage=scenario.stage, deployment=deployment)
    sizes = {"batch": scenario.batch, "query_len": scenario.query_len, "past_len": scenario.past_len}
    assert list(form.extrapolated(device, **sizes)) == reasons


def test_a_prefill_has_an_engines_work_for_a_prompt_and_a_decode_step_none(model):
    for scenario, host in ((prefill(512), 2e-3), (decode(512), 0)):
        timed = annotate(model, scenario).time("a100")
        kernels = sum(item.all.estimate_s for item in timed.kernels)
        assert timed.estimate_s == pytest.approx(kernels + host, rel=1e-12)
        assert timed.launch_s == pytest.approx(sum(item.all.launch_s for item in timed.kernels) + host, rel=1e-12)
        assert timed.bound_s == pytest.approx(sum(item.all.bound_s for item in timed.kernels), rel=1e-12)
        assert timed.modules[""] == timed.total
