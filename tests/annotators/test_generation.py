"""K steps: sums over steps, memory of the last; a page from pixels to its last token."""

from __future__ import annotations

import json
import sys

import pytest

from annotators import annotate
from annotators.cli import main
from annotators.steps import OF_THE_LAST_STEP
from models import ScenarioError, decode, generation, prefill, vision
from models.page import page_context
from models.stage_cost import FIELDS, StageCost
from tracer.vision import load_vision

PER_TOKEN, PER_PAIR = 1_148_190_720, 61_440
VISION_PARAMETERS, DECODER_PARAMETERS = 401_372_160, 2_934_734_080


@pytest.mark.parametrize("attention", ["eager", "flash"])
def test_a_generation_is_the_sum_of_its_steps(preset_model, attention):
    model = preset_model("deepseek-ocr")
    whole = annotate(model, generation(100, steps=5, batch=2), attention=attention)
    steps = [annotate(model, decode(100 + j, batch=2), attention=attention) for j in range(5)]
    for field in FIELDS:
        values = [getattr(step.cost, field) for step in steps]
        assert getattr(whole.cost, field) == (values[-1] if field in OF_THE_LAST_STEP else sum(values)), field
        assert values[-1] == max(values)
    assert whole.cost.matmul_flops == 2 * sum(PER_TOKEN + PER_PAIR * (100 + j + 1) for j in range(5))
    assert whole.kv_cache == steps[-1].kv_cache
    for path, module in whole.modules.items():
        assert module.cost.flops == sum(step.modules[path].cost.flops for step in steps)
    counts = {op.op: op.count for op in whole.ops}
    assert counts == {op.op: 5 * op.count for op in steps[0].ops}


def test_one_step_is_a_decode(preset_model):
    model = preset_model("llama-2-7b")
    assert annotate(model, generation(64, steps=1)).cost == annotate(model, decode(64)).cost


@pytest.mark.parametrize("steps", [0, -1, 1.5])
def test_impossible_steps_are_refused(steps):
    with pytest.raises(ScenarioError, match="steps"):
        generation(1, steps=steps)


@pytest.mark.parametrize("crops", [(0, 2), (2, 0), (-1, 1), (1.5, 2)])
def test_impossible_crops_are_refused(crops):
    with pytest.raises(ScenarioError, match="crop"):
        vision(crops=crops)


@pytest.fixture
def report(monkeypatch, capsys):
    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["fxmeter", "report", "deepseek-ocr", *arguments, "--json"])
        with pytest.raises(SystemExit) as exit:
            main()
        assert exit.value.code == 0
        return json.loads(capsys.readouterr().out)

    return command


@pytest.mark.parametrize(("crops", "context"), [("1x2", 493), ("3x3", 1213)])
def test_a_page_end_to_end(report, crops, context):
    data = report("--crops", crops, "--steps", "100", "--attention", "flash")
    stages = {stage["stage"]: stage for stage in data["stages"]}
    assert list(stages) == ["vision", "prefill", "decode"]
    assert stages["prefill"]["query_len"] == stages["decode"]["past_len"] == context
    assert stages["decode"]["steps"] == 100
    costs = {name: stage["cost"] for name, stage in stages.items()}
    (total,) = (item["cost"] for item in data["end_to_end"])
    for field in ("matmul_flops", "vector_flops", "flops", "io_bytes", "weight_read_bytes", "kv_read_bytes"):
        assert total[field] == sum(cost[field] for cost in costs.values())
    assert total["kv_bytes"] == costs["decode"]["kv_bytes"] == 61_440 * (context + 100)
    assert costs["prefill"]["kv_bytes"] == 61_440 * context
    assert total["activation_bytes"] == max(cost["activation_bytes"] for cost in costs.values())
    assert costs["vision"]["weight_bytes"] == 2 * VISION_PARAMETERS
    assert costs["prefill"]["weight_bytes"] == costs["decode"]["weight_bytes"] == 2 * DECODER_PARAMETERS
    assert total["weight_bytes"] == 2 * 3_336_106_240
    assert costs["prefill"]["matmul_flops"] == PER_TOKEN * context + PER_PAIR * context**2
    pairs = sum(context + j + 1 for j in range(100))
    assert costs["decode"]["matmul_flops"] == 100 * PER_TOKEN + PER_PAIR * pairs
    mean = stages["decode"]["per_step"]
    assert mean["flops"] == costs["decode"]["flops"] / 100
    assert mean["kv_bytes"] == costs["decode"]["kv_bytes"]


def test_a_page_in_pixels_is_cropped_as_the_vendor_does(report):
    stages = report("--page", "1280x640", "--attention", "flash")["stages"]
    assert stages[0]["crops"] == [1, 2]
    assert stages[1]["query_len"] == page_context((1, 2)) == 493
    small = report("--page", "600x600", "--attention", "flash")["stages"]
    assert small[0]["crops"] == [0, 0]
    assert small[1]["query_len"] == 273 + 10


def test_vision_from_python():
    tower = load_vision("deepseek-ocr")
    assert sum(p.numel() for p in tower.parameters()) == VISION_PARAMETERS
    stage = annotate(tower, vision(crops=(1, 2)), attention="flash")
    assert not stage.uncosted
    assert stage.cost == StageCost.total(m.own * m.times for m in stage.modules.values())
    assert stage.cost.kv_bytes == 0


def test_prefill_then_decode_counts_the_prompt_once(preset_model):
    model = preset_model("deepseek-ocr")
    assert annotate(model, prefill(493)).cost.kv_bytes == 61_440 * 493
    assert annotate(model, generation(493, steps=10)).cost.kv_bytes == 61_440 * 503
