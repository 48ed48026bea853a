"""What devices reach and serve: passes of chunked prefill, the batch that meets a target, rates, prices."""

from __future__ import annotations

import json
import math

import pytest
from transformers import AutoConfig

from fxmeter import deploy
from fxmeter.annotators import annotate
from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.studies.axes import Axes, SweepPoint
from fxmeter.annotators.studies.chunks import packed
from fxmeter.annotators.studies.planning.capacity import capacity
from fxmeter.annotators.studies.planning.memory import stage_columns
from fxmeter.annotators.studies.planning.rates import Measured
from fxmeter.annotators.studies.planning.serving import Demand, reached
from fxmeter.annotators.studies.sweep import StageForms, run_sweep
from fxmeter.models import decode, generation, prefill
from fxmeter.models.devices import device
from fxmeter.models.errors import ScenarioError
from fxmeter.tracer import load_model
from tests.tracer.tiny import DEEPSEEK, GEMMA3, LLAMA

H100, L4 = device("h100"), device("l4")


@pytest.fixture(scope="module")
def small():
    return StageForms.of_model(load_model(AutoConfig.for_model(**LLAMA)))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "config.json"
    path.write_text(json.dumps(LLAMA))
    return path


@pytest.mark.parametrize(
    ("batch", "prompt", "most", "rows"),
    [
        (3, 1000, None, [(1, 3, 1000, 0)]),
        (3, 1000, 3000, [(1, 3, 1000, 0)]),
        (3, 1000, 2999, [(1, 2, 1000, 0), (1, 1, 1000, 0)]),
        (16, 1024, 8192, [(2, 8, 1024, 0)]),
        (5, 3000, 8192, [(2, 2, 3000, 0), (1, 1, 3000, 0)]),
        (2, 20000, 8192, [(2, 1, 8192, 0), (2, 1, 8192, 8192), (2, 1, 3616, 16384)]),
        (1, 16384, 8192, [(1, 1, 8192, 0), (1, 1, 8192, 8192)]),
    ],
)
def test_prompts_go_in_passes(batch, prompt, most, rows):
    parts = [(times, part) for times, one in packed(prefill(prompt, batch=batch), most) for part in one.passes]
    assert [(times, part.batch, part.query_len, part.past_len) for times, part in parts] == rows


def in_passes(model):
    """2 prompts of 20 tokens in passes of at most 8, recorded afresh: each 8, 8 and 4 tokens."""
    return [annotate(model, prefill(tokens, past_len=past)) for tokens, past in [(8, 0), (8, 8), (4, 16)]]


@pytest.mark.parametrize(
    ("config", "deployment"),
    [(LLAMA, deploy()), (DEEPSEEK, deploy(kernels="serving")), (GEMMA3, deploy())],
    ids=["plain", "latent", "windows"],
)
def test_chunks_of_forms_are_those_of_a_recorded_prompt(config, deployment):
    """One description: every figure, and the time, of 20 tokens by 8 after 5 cached ones; logits in the last alone."""
    model = load_model(AutoConfig.for_model(**config))
    forms = StageForms.of_model(model, conventions=Conventions(logits="last"), deployment=deployment)
    others = [prefill(16, chunk=8), prefill(3, chunk=8)] if config is LLAMA else []
    for prompts in (prefill(20, batch=2, past_len=5, chunk=8), *others):
        recorded = annotate(model, prompts, logits="last", deployment=deployment)
        form = forms.prompts("flash")
        sizes = {"batch": prompts.batch, "query_len": prompts.query_len, "past_len": prompts.past_len}
        assert form.cost(prompts, form.last.at(**sizes)) == recorded.cost
        assert form.time(H100, prompts).estimate_s == pytest.approx(recorded.time(H100).estimate_s, rel=1e-12)


def test_a_swept_prompt_in_chunks_is_the_report_s(small):
    (figures,) = run_sweep(small, Axes(prefill=(20,), batch=(2,), chunk=8), attentions=("flash",)).figures
    assert figures[0].cost == annotate(small.model, prefill(20, batch=2, chunk=8)).cost


def test_the_chunks_of_a_batch_of_prompts_have_the_flops_of_the_prompts():
    """Masks let the same pairs through, and of each prompt one position has logits, not one in each of 3 chunks."""
    forms = StageForms.of_model(load_model(AutoConfig.for_model(**LLAMA)), deployment=deploy(kernels="serving"))
    axes, demand = Axes(prefill=(20,), batch=(2,)), Demand(max_batched_tokens=8)
    (row,), (chunked,) = (stage_columns(forms, "flash", axes.points(), most) for most in (None, 8))
    assert chunked["prefill"].cost.matmul_flops == row["prefill"].cost.matmul_flops
    (need,) = capacity(forms, axes, demand=demand).needs
    assert need.ttft.tflops == chunked["prefill"].cost.flops / 10**12


def test_a_chunked_prefill_costs_what_its_passes_do(small):
    demand = Demand(max_batched_tokens=8)
    (need,) = capacity(small, Axes(prefill=(20,), batch=(2,)), demand=demand).needs
    stages = in_passes(small.model)
    assert need.ttft.tflops == 2 * sum(stage.cost.flops for stage in stages) / 10**12
    assert need.ttft.tbps == 2 * sum(stage.cost.io_bytes for stage in stages) / 10**12
    peaks = [stage.cost.peak_activation_bytes for stage in stages]
    step = annotate(small.model, decode(20, batch=2)).cost
    assert need.memory.peak_activation_bytes == max(*peaks, step.peak_activation_bytes)
    assert need.memory.kv_after_prefill_bytes == annotate(small.model, prefill(20, batch=2)).cost.kv_bytes


def test_the_latencies_of_a_device_are_those_of_its_passes(small):
    demand = Demand(devices=(H100,), max_batched_tokens=8)
    (need,) = capacity(small, Axes(prefill=(20,), batch=(2,), steps=(3,)), demand=demand).needs
    (on,) = need.on
    first = 2 * sum(stage.time(H100).estimate_s for stage in in_passes(small.model))
    steps = annotate(small.model, generation(20, steps=3, batch=2)).time(H100).estimate_s
    assert on.reached.ttft.estimate_s == pytest.approx(first, rel=1e-12)
    assert on.reached.tpot.estimate_s == pytest.approx(steps / 3, rel=1e-12)
    assert on.fit == capacity(small, Axes(prefill=(20,), batch=(2,), steps=(3,)), memory_bytes=H100.memory_bytes,
                              demand=Demand(max_batched_tokens=8)).needs[0].fit  # fmt: skip


def test_what_is_served_is_the_largest_batch_that_meets_the_target(small):
    model, target = small.model, 0.002
    demand = Demand(devices=(L4,), rate=1e6, price_per_h=(0.72,))
    (need,) = capacity(small, Axes(prefill=(64,), steps=(2,)), tpot_s=target, demand=demand).needs
    served = need.on[0].reached.served
    batch = served.batch

    def step_s(size):
        return annotate(model, generation(64, steps=2, batch=size)).time(L4).estimate_s / 2

    assert step_s(batch) <= target < step_s(batch + 1)
    assert served.tpot_s == pytest.approx(step_s(batch), rel=1e-12)
    assert served.decode_tokens_per_s == pytest.approx(batch / step_s(batch), rel=1e-12)
    prompts = annotate(model, prefill(64, batch=batch)).time(L4).estimate_s
    requests = batch / (prompts + 2 * step_s(batch))
    assert served.requests_per_s == pytest.approx(requests, rel=1e-12)
    assert served.tokens_per_s == pytest.approx(2 * requests, rel=1e-12)
    assert served.devices == math.ceil(1e6 / requests) > 1
    assert served.price_per_million_tokens == pytest.approx(0.72 * 10**6 / (3600 * 2 * requests), rel=1e-12)
    assert served.joules_per_token == pytest.approx(72 / (2 * requests), rel=1e-12)


def test_a_batch_that_does_not_fit_is_not_served(small):
    axes, demand = Axes(prefill=(64,)), Demand(devices=(L4,))
    found = capacity(small, axes, memory_bytes=2**20, demand=demand).needs[0].on[0]
    assert found.reached.served.batch == found.fit.largest_batch < 100
    assert capacity(small, axes, memory_bytes=10, demand=demand).needs[0].on[0].reached.served is None
    assert capacity(small, axes, tpot_s=1e-9, demand=demand).needs[0].on[0].reached.served is None


def test_a_measured_time_is_held_to_the_device(small):
    axes, demand = Axes(decode=(64,)), Demand(devices=(H100,))
    stage = annotate(small.model, decode(64))
    bound = stage.time(H100).bound_s
    (used,) = capacity(small, axes, demand=demand, measured=Measured(decode_s=2 * bound)).utilisation
    assert used.bandwidth == pytest.approx(stage.cost.io_bytes / (2 * bound * 3.35e12), rel=1e-12)
    assert used.mfu == pytest.approx(stage.cost.matmul_flops / (2 * bound * 989.4e12), rel=1e-12)
    with pytest.raises(ScenarioError, match="is faster than h100-sxm5-80g can be: it takes at least"):
        capacity(small, axes, demand=demand, measured=Measured(decode_s=0.99 * bound))


def test_the_command_says_what_devices_reach_and_serve(run, config):
    shape = ["capacity", config, "--prefill", 64, "--steps", 8]
    asked = ["--device", "h100,l4", "--rate", 1000, "--price", "2.5,0.5"]
    data = json.loads(run(*shape, *asked, "--json").stdout)
    assert (data["max_batched_tokens"], data["conventions"]["logits"]) == (8192, "last")
    assert data["price_per_h"] == {"h100-sxm5-80g": 2.5, "l4-24g": 0.5}
    first, second = data["shapes"][0]["devices"]
    assert first["ttft"]["bound_s"] < first["ttft"]["estimate_s"] < second["ttft"]["estimate_s"]
    assert first["served"]["devices"] <= second["served"]["devices"]
    text = run(*shape, *asked).stdout
    for title in ("Reached", "What fits", "Served with at most 50 ms a token", "Memory"):
        assert title in text
    assert "Needed" not in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "5"], "give --device too"),
        (["--price", "5"], "give --device too"),
        (["--device", "h100,l4", "--price", "1,2,3"], "3 prices for 2 devices"),
        (["--device", "h100", "--price", "free"], "is not a number"),
        (["--device", "h100", "--rate", "5"], "give --prefill and --steps"),
        (["--device", "h100,l4", "--prefill", "5", "--measured-decode-ms", "5"], "a measured time is of one device"),
        (["--max-batched-tokens", "0"], "is too small"),
    ],
)
def test_a_mistake_is_one_line(run, config, arguments, message):
    done = run("capacity", config, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_devices_that_share_a_model_serve_together_and_are_paid_together(small):
    """Two groups of two ranks: twice the sequences of one group, and four devices to pay."""
    point = SweepPoint(prefill=16, decode=16, crops=None, batch=1, steps=8)
    demand = Demand(devices=(H100,), rate=1e9, price_per_h=(2.0,))
    groups = [StageForms.of_model(small.model, deployment=deploy(tp=2, dp=dp)) for dp in (1, 2)]
    group, both = (reached(forms, "flash", point, H100, 4, demand, 0.05).served for forms in groups)
    assert both.requests_per_s == pytest.approx(2 * group.requests_per_s)
    assert both.price_per_million_tokens == pytest.approx(group.price_per_million_tokens)
    assert group.devices == 2 * math.ceil(1e9 / group.requests_per_s)
    assert both.devices == 4 * math.ceil(1e9 / both.requests_per_s)
