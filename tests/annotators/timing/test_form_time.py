"""The time of closed forms: that of annotate, at any sizes, quickly."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from fxmeter import annotate, closed_form, decode, generation, prefill

NAMES = ("bound_s", "estimate_s", "launch_s")


@pytest.mark.parametrize("name", ["llama-3.1-8b", "deepseek-v2-lite", "gemma-2-9b"])
def test_a_form_has_the_time_of_annotate_at_any_point(preset_model, name):
    model = preset_model(name)
    dice = random.Random(name)
    steps, prompts = closed_form(model, stage="decode"), closed_form(model, stage="prefill", logits="last")
    for _ in range(3):
        batch, length = dice.randint(1, 64), dice.randint(2, 20_000)
        for form, scenario, sizes, logits in (
            (steps, decode(length, batch=batch), {"past_len": length}, "all"),
            (prompts, prefill(length, batch=batch), {"query_len": length}, "last"),
        ):
            whole = annotate(model, scenario, logits=logits).time("h100")
            found = form.time("h100", batch=batch, **sizes)
            for figure in NAMES:
                assert getattr(found, figure) == pytest.approx(getattr(whole, figure), rel=1e-12)
            assert found.bound_by == whole.bound_by
            layer = "model.layers.0"
            one = form.modules[layer].time("h100", batch=batch, **sizes)
            assert one.estimate_s == pytest.approx(whole.modules[layer].estimate_s, rel=1e-12)


def test_a_hundred_thousand_points_take_about_a_second(preset_model):
    form = closed_form(preset_model("llama-3.1-8b"), stage="decode")
    form.time("a100", batch=[1, 64], past_len=[10, 100])
    started = time.process_time()
    found = form.time("a100", batch=np.arange(1, 101)[:, None], past_len=np.arange(1, 100_001, 100))
    assert time.process_time() - started < 3
    assert found.estimate_s.shape == found.bound_by.shape == (100, 1000)
    assert (np.diff(found.estimate_s, axis=0) > 0).all()
    assert (found.bound_s <= found.estimate_s).all()


@pytest.mark.parametrize("steps", [3, 40])
def test_a_generation_takes_the_time_of_its_steps(preset_model, steps):
    model = preset_model("gemma-2-9b")  # the window of 4,096 is crossed on the way
    timed = annotate(model, generation(4080, steps=steps)).time("h100")
    each = closed_form(model, stage="decode").time("h100", past_len=4080 + np.arange(steps))
    assert timed.steps == steps
    assert timed.estimate_s == pytest.approx(sum(each.estimate_s.tolist()), rel=1e-12)
    assert timed.modules[""].bound_s == pytest.approx(sum(each.bound_s.tolist()), rel=1e-12)
    assert sum(item.all.estimate_s for item in timed.kernels) == pytest.approx(timed.estimate_s, rel=1e-9)


def test_a_form_of_one_device_needs_no_links(preset_model):
    form = closed_form(preset_model("llama-3.1-8b"), stage="decode")
    found = form.time("apple-m2-ultra-76c", batch=[1, 2], past_len=64)
    assert (found.roofs_s[3] == 0).all()
