"""What serving kernels would change, in one line of a report."""

from __future__ import annotations

import json

from fxmeter import annotate, decode, deploy, prefill
from fxmeter.annotators.studies.comparing import served
from fxmeter.annotators.studies.comparing.served import where_serving_differs


def test_absorbed_decode_and_the_chosen_experts_are_named(preset_model):
    for name, figures in (("deepseek-v3", ["matmul_flops"]), ("llama-4-scout", ["matmul_flops", "weight_read_bytes"])):
        model = preset_model(name)
        found = where_serving_differs(model, [annotate(model, decode(4096))], deploy())
        assert [item.figure for item in found] == figures
        cost = annotate(model, decode(4096), deployment=deploy(kernels="serving")).cost
        for item in found:
            assert item.serving == getattr(cost, item.figure) < item.transformers


def test_nothing_is_recorded_where_nothing_can_differ(preset_model, monkeypatch):
    model = preset_model("llama-3.1-8b")
    steps = [annotate(model, decode(4096)), annotate(model, decode(4096), attention="eager")]
    prompt = annotate(model, prefill(64), attention="eager")
    monkeypatch.setattr(served, "annotate", None)
    assert where_serving_differs(model, [*steps, prompt], deploy()) == ()
    assert where_serving_differs(model, steps, deploy(kernels="serving")) == ()


def test_a_tenth_is_not_much(preset_model):
    """Of Llama-3.1-8B's 64-token prefill the last logits save 7 %; of a 32k one the causal half is a third."""
    model = preset_model("llama-3.1-8b")
    stages = [annotate(model, prefill(64)), annotate(model, prefill(32768))]
    (found,) = where_serving_differs(model, stages, deploy())
    assert (found.scenario, found.figure) == (stages[1].scenario, "matmul_flops")


def test_the_line_and_the_json(run):
    options = ("report", "deepseek-v2-lite", "--decode", 4096, "--attention", "flash")
    assert "(--kernels serving), decode C=4096: matmul FLOPs 8.754 GFLOP instead of 469.9 GFLOP" in " ".join(
        run(*options).stdout.split()
    )
    (found,) = json.loads(run(*options, "--json").stdout)["serving_kernels_differ"]
    assert (found["stage"], found["past_len"], found["figure"]) == ("decode", 4096, "matmul_flops")
    assert found["transformers"] > 50 * found["serving"]
