"""K steps: sums over steps, memory of the largest or last; a page from pixels to its last token."""

from __future__ import annotations

import json
import sys

import pytest

from fxmeter.annotators import annotate
from fxmeter.annotators.cli.main import main
from fxmeter.annotators.symbolic import atom, variable
from fxmeter.annotators.symbolic.sums import PAST, largest_step
from fxmeter.models import ScenarioError, decode, generation, prefill, vision
from fxmeter.models.page import page_context
from fxmeter.models.stage_cost import FIELDS, StageCost
from fxmeter.tracer import load_model
from fxmeter.tracer.load.vision import load_vision
from tests.tracer.tiny import config

PAST_LEN = variable(PAST)
MEMORY = {
    "activation_bytes",
    "peak_activation_bytes",
    "ideal_peak_activation_bytes",
    "kv_bytes",
    "kv_storage_bytes",
    "weight_bytes",
}
PER_TOKEN, PER_PAIR = 1_148_190_720, 61_440
VISION_PARAMETERS, DECODER_PARAMETERS = 401_372_160, 2_934_734_080


@pytest.mark.parametrize("attention", ["eager", "flash"])
def test_a_generation_is_the_sum_of_its_steps(preset_model, attention):
    model = preset_model("deepseek-ocr")
    whole = annotate(model, generation(100, steps=5, batch=2), attention=attention)
    steps = [annotate(model, decode(100 + j, batch=2), attention=attention) for j in range(5)]
    for field in FIELDS:
        values = [getattr(step.cost, field) for step in steps]
        memory = field in MEMORY
        assert getattr(whole.cost, field) == (values[-1] if memory else sum(values)), field
        assert values[-1] == max(values)
    assert whole.cost.matmul_flops == 2 * sum(PER_TOKEN + PER_PAIR * (100 + j + 1) for j in range(5))
    assert whole.kv_cache == steps[-1].kv_cache
    for path, module in whole.modules.items():
        assert module.cost.flops == sum(step.modules[path].cost.flops for step in steps)
    counts = {op.op: op.count for op in whole.ops}
    assert counts == {op.op: 5 * op.count for op in steps[0].ops}


COMPRESSES = {
    "model_type": "deepseek_v4",
    "hidden_size": 32,
    "intermediate_size": 48,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 1,
    "layer_types": ["compressed_sparse_attention"],
    "mlp_layer_types": ["moe"],
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "q_lora_rank": 16,
    "o_lora_rank": 16,
    "o_groups": 2,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "index_n_heads": 2,
    "index_head_dim": 16,
    "index_topk": 4,
    "vocab_size": 40,
    "max_position_embeddings": 256,
}


@pytest.mark.parametrize("steps", [5, pytest.param(12, marks=pytest.mark.slow)], ids=["recorded", "closed form"])
def test_the_peak_of_a_generation_is_that_of_its_largest_step_which_need_not_be_the_last(steps):
    """A cache that is compressed in blocks of four makes every fourth token the expensive one."""
    model = load_model(config(COMPRESSES))
    passes = [annotate(model, decode(4 + j), attention="flash").cost for j in range(steps)]
    peaks = [cost.peak_activation_bytes for cost in passes]
    most = max(peaks)
    largest = len(peaks) - 1 - peaks[::-1].index(most)
    assert (4 + largest) % 4 == 3
    assert peaks[-1] < most or largest == steps - 1
    whole = annotate(model, generation(4, steps=steps), attention="flash")
    assert whole.cost.peak_activation_bytes == most == whole.peak.bytes == sum(item.bytes for item in whole.peak.alive)
    assert whole.cost.activation_bytes == max(cost.activation_bytes for cost in passes)
    assert whole.cost.kv_bytes == passes[-1].kv_bytes
    assert whole.fullest_step.scenario == decode(4 + largest)


def larger(*values):
    return atom("max", *values)


@pytest.mark.parametrize(
    ("polynomial", "most", "step"),
    [
        (7, 7, 9),
        (PAST_LEN + 1, 5 + 9 + 1, 9),
        (100 - PAST_LEN, 100 - 5, 0),
        (PAST_LEN % 4, 3, 6),  # 5 + 6 = 11
        (PAST_LEN * (20 - PAST_LEN), 10 * 10, 5),
        (PAST_LEN // 4, 14 // 4, 9),
        (larger(30 - PAST_LEN, 2 * PAST_LEN), 2 * 14, 9),
        (larger(40 - PAST_LEN, 2 * PAST_LEN), 40 - 5, 0),
    ],
    ids=str,
)
def test_the_largest_of_ten_steps(polynomial, most, step):
    assert largest_step(polynomial, batch=1, query_len=1, past_len=5, steps=10) == (most, step)


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
