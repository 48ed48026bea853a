"""Passes that serving engines run: prompts in chunks, drafted tokens, decode beside a prompt."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from transformers import AutoConfig

from fxmeter import annotate, decode, deploy, load_model, mixed, prefill
from fxmeter.annotators.stages.model_info import model_info
from fxmeter.annotators.stages.pipeline import pipeline
from fxmeter.annotators.studies.report import build_report
from fxmeter.models.devices import device
from fxmeter.models.stage_cost import StageCost
from tests.tracer.tiny import DEEPSEEK, LLAMA, QWEN_MOE

SERVING = deploy(kernels="serving")
SUMS = ("matmul_flops", "vector_flops", "weight_read_bytes", "kv_read_bytes", "kv_write_bytes", "activation_read_bytes")


@pytest.fixture(scope="module", params=[LLAMA, QWEN_MOE, DEEPSEEK], ids=lambda config: config["model_type"])
def model(request):
    return load_model(AutoConfig.for_model(**request.param))


def test_a_prompt_in_chunks_costs_the_sum_of_its_chunks(model):
    whole = annotate(model, prefill(50, past_len=7, chunk=16, batch=2), deployment=SERVING)
    chunks = [(16, 7), (16, 23), (16, 39), (2, 55)]
    parts = [
        annotate(model, prefill(s, past_len=c, batch=2), logits="last" if s == 2 else "none", deployment=SERVING).cost
        for s, c in chunks
    ]
    for name in SUMS:
        assert getattr(whole.cost, name) == sum(getattr(part, name) for part in parts), name
    assert whole.cost.peak_activation_bytes == max(part.peak_activation_bytes for part in parts)
    assert whole.cost.kv_bytes == parts[-1].kv_bytes
    assert whole.cost.weight_bytes == parts[0].weight_bytes


@pytest.mark.parametrize("logits", ["all", "last"])
def test_the_flops_of_all_chunks_are_those_of_the_prompt(model, logits):
    """Latent attention expands the cached latents again in every chunk; nothing else is done twice."""
    chunked, whole = (
        annotate(model, prefill(50, chunk=chunk), causal="exact", logits=logits).cost.matmul_flops
        for chunk in (16, None)
    )
    again = 0
    if model.config.model_type == "deepseek_v3":
        expansion = 2 * DEEPSEEK["kv_lora_rank"] * DEEPSEEK["num_attention_heads"] * (16 + 16)
        again = DEEPSEEK["num_hidden_layers"] * expansion * (16 + 32 + 48)
    assert chunked - whole == again


def test_with_every_pair_chunks_are_fewer_flops():
    """50 tokens by 16: a chunk is not paired with the keys of chunks after it."""
    model = load_model(AutoConfig.for_model(**LLAMA))
    chunked, whole = (annotate(model, prefill(50, chunk=chunk)).cost.matmul_flops for chunk in (16, None))
    pairs = 50 * 50 - (16 * 16 + 16 * 32 + 16 * 48 + 2 * 50)
    assert whole - chunked == 3 * 2 * 2 * 32 * pairs


def test_many_chunks_come_from_a_closed_form():
    model = load_model(AutoConfig.for_model(**LLAMA))
    many = annotate(model, prefill(50, chunk=4), deployment=SERVING).cost
    each = annotate(model, prefill(50, chunk=4), deployment=SERVING, fold=False).cost
    assert [f.name for f in fields(StageCost) if getattr(many, f.name) != getattr(each, f.name)] == []


def test_a_pass_without_logits_runs_no_head(model):
    none, last = (annotate(model, prefill(9), logits=logits) for logits in ("none", "last"))
    head = last.modules["lm_head"].cost
    assert none.modules["lm_head"].cost == StageCost(weight_bytes=head.weight_bytes)
    assert last.cost.matmul_flops - none.cost.matmul_flops == head.matmul_flops == 2 * 32 * 40


def test_drafted_tokens_are_checked_with_logits_of_their_own():
    model = load_model(AutoConfig.for_model(**LLAMA))
    step = annotate(model, decode(30, query_len=5), deployment=SERVING)
    assert step.modules["lm_head"].cost.matmul_flops == 5 * 2 * 32 * 40


def test_a_mixed_step_is_its_parts_but_for_the_weights(model):
    step = mixed([decode(20, batch=3), decode(5)], prefill(12, past_len=4))
    whole = annotate(model, step, deployment=SERVING)
    parts = [annotate(model, one, deployment=SERVING).cost for one in step.parts]
    for name in SUMS:
        if name != "weight_read_bytes":
            assert getattr(whole.cost, name) == sum(getattr(part, name) for part in parts), name
    together = annotate(model, prefill(3 + 1 + 12, past_len=4), deployment=SERVING).cost.weight_read_bytes
    assert max(part.weight_read_bytes for part in parts) < whole.cost.weight_read_bytes == together
    saved = sum(part.weight_read_bytes for part in parts) - together
    assert whole.cost.fused_io_bytes == sum(part.fused_io_bytes for part in parts) - saved
    assert whole.cost.weight_bytes == parts[0].weight_bytes
    assert whole.cost.kv_bytes == sum(part.kv_bytes for part in parts)
    for name in SUMS:
        assert sum(getattr(op.cost, name) for op in whole.ops) == getattr(whole.cost, name)
        in_graph = (data["priced"] for _, data in whole.graph.nodes(data=True))
        assert sum(node.executions * getattr(node.cost, name) for node in in_graph) == getattr(whole.cost, name), name


def test_a_mixed_step_takes_the_time_of_its_kernels(model):
    """Products of all tokens read their weights once: faster than the parts one after another."""
    step = mixed([decode(20, batch=3), decode(5)], prefill(12, past_len=4))
    whole = annotate(model, step, deployment=SERVING)
    parts = [annotate(model, one, deployment=SERVING).time("h100") for one in step.parts]
    took = whole.time("h100")
    assert max(part.bound_s for part in parts) <= took.bound_s <= sum(part.bound_s for part in parts)
    assert took.estimate_s < sum(part.estimate_s for part in parts)
    assert sum(item.kernel.matmul_flops * item.kernel.times for item in took.kernels) == sum(
        item.kernel.matmul_flops * item.kernel.times for part in parts for item in part.kernels
    )
    assert "decode beside a chunk of a prompt" in took.extrapolated


def test_products_beside_a_chunk_are_those_of_one_batch():
    """A chunk of one token beside a decode step at its length is a decode step of two sequences."""
    model = load_model(AutoConfig.for_model(**LLAMA))
    one = annotate(model, mixed([decode(20)], prefill(1, past_len=20))).time("h100")
    two = annotate(model, decode(20, batch=2)).time("h100")
    products = [
        [(k.matmul_flops, k.nbytes) for item in time.kernels if (k := item.kernel).kind == "product"]
        for time in (one, two)
    ]
    assert products[0] == products[1] != []


def test_pipeline_stages_of_a_prompt_in_chunks_add_up_to_the_request():
    model = load_model(AutoConfig.for_model(**LLAMA))
    whole = annotate(model, prefill(50, chunk=16))
    stages = pipeline(whole, 3)
    for name in ("matmul_flops", "vector_flops", "io_bytes", "weight_bytes", "kv_bytes"):
        assert sum(getattr(stage.cost, name) for stage in stages) == getattr(whole.cost, name), name
    assert [stage.sent_bytes for stage in stages] == [50 * 32 * 2, 50 * 32 * 2, 0]


def test_tokens_a_second_are_those_of_all_groups():
    model = load_model(AutoConfig.for_model(**LLAMA))
    rates = []
    for groups in (1, 3):
        deployment = deploy(dp=groups)
        stage = annotate(model, decode(30, batch=2), deployment=deployment)
        report = build_report(model_info(model, deployment=deployment), [stage], devices=[device("h100")])
        rates.append(report.timings[0].tokens_per_s)
    assert rates[1] == pytest.approx(3 * rates[0])


def test_routed_experts_of_a_mixed_step_are_those_of_all_its_tokens():
    """4 experts of 3·32·16 weights, 2 chosen, 3 layers: 4 (1 − (1/2)^T) of them for T tokens."""
    model = load_model(AutoConfig.for_model(**QWEN_MOE))
    path = "model.layers.0.mlp.experts"
    whole = annotate(model, mixed([decode(20, batch=2)], prefill(3)))
    assert whole.modules[path].cost.weight_read_bytes == round(4 * (1 - 0.5**5) * 3 * 32 * 16 * 2)


def test_the_command(run, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(LLAMA))
    options = ("report", config, "--attention", "flash", "--json")
    sizes = ("--prefill", 20, "--cached", 10, "--chunk", 8, "--decode", 30, "--draft", 2, "--acceptance", 0.5)
    chunked, drafted = json.loads(run(*options, *sizes).stdout)["stages"]
    assert (chunked["query_len"], chunked["past_len"], chunked["chunk"]) == (20, 10, 8)
    assert (drafted["query_len"], drafted["past_len"], drafted["tokens_per_step"]) == (3, 30, 1.75)
    none_accepted = ("--decode", 30, "--draft", 2, "--acceptance", 0)
    (drafted,) = json.loads(run(*options, *none_accepted).stdout)["stages"]
    assert drafted["tokens_per_step"] == 1
    cached = json.loads(run(*options, "--cached", 10).stdout)["stages"]
    assert [stage["past_len"] for stage in cached] == [10, LLAMA["max_position_embeddings"] - 1]  # 2,048 are too many
    (step,) = json.loads(run(*options, "--prefill", 20, "--beside", "3x50,7").stdout)["stages"]
    assert (step["stage"], step["batch"], step["tokens"]) == ("mixed", 5, 24)
    assert [(part["stage"], part["batch"], part["past_len"]) for part in step["parts"]] == [
        ("prefill", 1, 0),
        ("decode", 3, 50),
        ("decode", 1, 7),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--decode", "8", "--chunk", "3"], "--chunk is for a prefill"),
        (["--decode", "8", "--cached", "3"], "--cached is for a prefill"),
        (["--decode", "8", "--beside", "3"], "--beside is for a prefill"),
        (["--prefill", "8", "--draft", "3"], "--draft is for one decode step"),
        (["--decode", "8", "--steps", "2", "--draft", "3"], "--draft is for one decode step"),
        (["--decode", "8", "--acceptance", "0.5"], "--acceptance is of drafted tokens"),
        (["--decode", "8", "--draft", "3", "--acceptance", "1.5"], "not a probability"),
        (["--decode", "8", "--draft", "3", "--acceptance", "nan"], "not a probability"),
        (["--crops", "1x2", "--beside", "3"], "--beside is for a prompt of text"),
        (["--prefill", "8", "--beside", "x3"], "is not a whole number"),
        (["--prefill", "8", "--chunk", "3", "--beside", "3"], "single passes"),
    ],
)
def test_a_mistake_is_one_line(run, options, message):
    done = run("report", "llama-2-7b", *options)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert message in done.stderr
