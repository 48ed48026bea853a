"""Capacity: rates are FLOPs over targets, what fits is exact to the unit, utilisation is of a measured time."""

from __future__ import annotations

import json
import re

import pytest
from transformers import AutoConfig

from fxmeter import deploy
from fxmeter.annotators import annotate
from fxmeter.annotators.documents.capacity import to_json
from fxmeter.annotators.studies.axes import Axes
from fxmeter.annotators.studies.planning.capacity import capacity, largest_that_fits
from fxmeter.annotators.studies.planning.rates import Measured
from fxmeter.annotators.studies.sweep import StageForms
from fxmeter.annotators.units import four_digits, quantity
from fxmeter.annotators.views.reports.capacity import capacity_markdown
from fxmeter.models import decode, generation, prefill
from fxmeter.models.errors import ScenarioError
from fxmeter.models.sizes import LARGEST_SIZE
from fxmeter.tracer import load_model
from tests.tracer.tiny import GEMMA3, LLAMA

GIB = 2**30


@pytest.fixture(scope="module")
def llama(preset_model):
    return StageForms.of_model(preset_model("llama-3.1-8b"))


@pytest.fixture(scope="module")
def small():
    return StageForms.of_model(load_model(AutoConfig.for_model(**LLAMA)))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "config.json"
    path.write_text(json.dumps(LLAMA))
    return path


def held(model, prompt, cached, *, batch, steps=1, attention="flash"):
    """Bytes at the worst moment, from fresh recordings: weights, the cache at the end, the larger peak."""
    stages = [] if prompt is None else [annotate(model, prefill(prompt, batch=batch), attention=attention)]
    stages.append(annotate(model, generation(cached, steps=steps, batch=batch), attention=attention))
    last = stages[-1].cost
    return last.weight_bytes + last.kv_bytes + max(stage.cost.peak_activation_bytes for stage in stages)


def test_needed_rates_are_counts_over_targets(llama):
    (need,) = capacity(llama, Axes(prefill=(2048,), batch=(4,)), ttft_s=0.5, tpot_s=0.02).needs
    first = annotate(llama.model, prefill(2048, batch=4)).cost
    step = annotate(llama.model, generation(2048, steps=1, batch=4)).cost
    assert need.ttft.tflops == first.flops / 0.5 / 10**12
    assert need.ttft.tbps == first.io_bytes / 0.5 / 10**12
    assert need.ttft.fused_tbps == first.fused_io_bytes / 0.5 / 10**12
    assert need.tpot.tflops == step.flops / 0.02 / 10**12
    assert need.tpot.tbps == step.io_bytes / 0.02 / 10**12


def test_a_token_of_several_steps_is_their_mean(llama):
    (need,) = capacity(llama, Axes(decode=(100,), steps=(4,))).needs
    whole = annotate(llama.model, generation(100, steps=4)).cost
    assert need.ttft is None
    assert need.tpot.tflops == whole.flops / 4 / 0.05 / 10**12
    per_token = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336) * 2 + 2 * 4096 * 128256
    contexts = 101 + 102 + 103 + 104
    assert whole.matmul_flops == 4 * per_token + 32 * 2 * 2 * 4096 * contexts


def test_memory_is_weights_cache_at_the_end_and_the_larger_peak(llama):
    (need,) = capacity(llama, Axes(prefill=(1000,), batch=(2,), steps=(10,))).needs
    layer_and_token = 2 * 8 * 128 * 2
    assert need.memory.weight_bytes == 8_030_261_248 * 2
    assert need.memory.kv_after_prefill_bytes == 32 * layer_and_token * 2 * 1000
    assert need.memory.kv_bytes == 32 * layer_and_token * 2 * 1010
    assert need.memory.kv_bytes_per_sequence == 32 * layer_and_token * 1010
    assert need.memory.peak_stage == "prefill"
    assert need.memory.total_bytes == held(llama.model, 1000, 1000, batch=2, steps=10)


@pytest.mark.parametrize("attention", ["flash", "eager"])
def test_what_fits_is_exact(llama, attention):
    steps, memory = 7, 24 * GIB
    axes = Axes(prefill=(1500,), batch=(3,), steps=(steps,))
    fit = capacity(llama, axes, attention=attention, memory_bytes=memory).needs[0].fit

    def fits(context, batch):
        return held(llama.model, context, context, batch=batch, steps=steps, attention=attention) <= memory

    assert fit.largest_batch >= 1
    assert fits(1500, fit.largest_batch)
    assert not fits(1500, fit.largest_batch + 1)
    assert fits(fit.longest_context, 3)
    assert not fits(fit.longest_context + 1, 3)


def test_a_prompt_that_is_fixed_leaves_the_cached_tokens_to_grow(small):
    axes, memory = Axes(prefill=(8,), decode=(20,)), 2**20
    fit = capacity(small, axes, memory_bytes=memory).needs[0].fit
    assert held(small.model, 8, fit.longest_context, batch=1) <= memory
    assert held(small.model, 8, fit.longest_context + 1, batch=1) > memory


def test_memory_that_holds_the_largest_fit_and_not_a_byte_less(small):
    memory = held(small.model, 100, 100, batch=1)
    axes = Axes(prefill=(100,))
    assert capacity(small, axes, memory_bytes=memory).needs[0].fit.largest_batch == 1
    assert capacity(small, axes, memory_bytes=memory - 1).needs[0].fit.largest_batch == 0
    assert capacity(small, axes, memory_bytes=memory - 1).needs[0].fit.longest_context == 99
    assert capacity(small, axes, memory_bytes=10).needs[0].fit.longest_context == 0


def test_where_nothing_fits_the_smallest_case_says_how_much_is_missing(llama):
    fit = capacity(llama, Axes(prefill=(8192,), batch=(4,), steps=(3,)), memory_bytes=15 * GIB).needs[0].fit
    (sequence,) = fit.shortfalls
    assert fit.largest_batch == 0 < fit.longest_context < 8192
    assert (sequence.point.batch, sequence.point.prefill, sequence.point.decode) == (1, 8192, 8192)
    assert sequence.memory.weight_bytes == 8_030_261_248 * 2
    assert sequence.memory.kv_bytes == 32 * 2 * 8 * 128 * 2 * (8192 + 3)
    assert sequence.missing_bytes == held(llama.model, 8192, 8192, batch=1, steps=3) - 15 * GIB
    sequence, token = capacity(llama, Axes(decode=(64,), batch=(4,)), memory_bytes=GIB).needs[0].fit.shortfalls
    assert (sequence.point.batch, sequence.point.decode) == (1, 64)
    assert (token.point.batch, token.point.decode) == (4, 1)
    assert token.missing_bytes == held(llama.model, None, 1, batch=4) - GIB


def test_what_is_missing_is_on_the_screen_and_in_the_json(run, config):
    arguments = ["capacity", config, "--prefill", 64, "--memory", "1KiB"]
    data = json.loads(run(*arguments, "--json").stdout)
    sequence, token = data["shapes"][0]["fit"]["shortfalls"]
    assert (sequence["prefill"], token["prefill"]) == (64, 1)
    for short in (sequence, token):
        parts = [short["memory"][part] for part in ("weight_bytes", "kv_bytes", "peak_activation_bytes")]
        assert sum(parts) - 1024 == short["missing_bytes"]
    text = " ".join(run(*arguments).stdout.split())
    for label, short in (("S=64, B=1", sequence), ("S=1, B=1", token)):
        total, missing = quantity(short["memory"]["total_bytes"], "memory"), quantity(short["missing_bytes"], "memory")
        assert f"None fits: {label} takes {total}, {missing} too much" in text


@pytest.mark.parametrize("stage", ["prefill", "decode"])
def test_a_time_that_the_peak_does_not_leave_is_refused(llama, stage):
    """A microsecond more than the least time passes, a microsecond less does not."""
    axes = Axes(prefill=(4096,))
    cost = annotate(llama.model, prefill(4096) if stage == "prefill" else generation(4096, steps=1)).cost
    products = cost.matmul_flops / (989 * 10**12)
    reads = (cost.weight_read_bytes + cost.kv_read_bytes + cost.kv_write_bytes) / (3.35 * 10**12)
    for peak, least in (({"peak_tflops": 989}, products), ({"peak_tbps": 3.35}, reads)):
        capacity(llama, axes, measured=Measured(**{f"{stage}_s": least + 1e-6}, **peak))
        with pytest.raises(ScenarioError, match=f"a {stage} of .*s is faster than the peak: its"):
            capacity(llama, axes, measured=Measured(**{f"{stage}_s": least - 1e-6}, **peak))


@pytest.mark.parametrize("limit", [0, 1, 2, 5, 6, 63, 64, 65, 10**9])
@pytest.mark.parametrize("start", [1, 6, 1000])
def test_the_search_finds_every_limit(limit, start):
    assert largest_that_fits(lambda size: size <= limit, start=start) == limit


def test_the_search_ends_at_the_largest_size():
    assert largest_that_fits(lambda _: True, start=3) == LARGEST_SIZE
    assert largest_that_fits(lambda _: True, start=3, most=99) == 99


def test_a_page_holds_the_tower_too_and_looks_at_it_first(preset_model):
    from fxmeter.models import vision
    from fxmeter.tracer.load.vision import load_vision

    model, tower = preset_model("deepseek-ocr"), load_vision("deepseek-ocr")
    (need,) = capacity(StageForms.of_model(model, tower=tower), Axes(crops=((0, 0),))).needs
    see, read = annotate(tower, vision()).cost, annotate(model, prefill(283)).cost
    assert need.ttft.tflops == (see.flops + read.flops) / 10**12
    assert need.memory.weight_bytes == 2 * (2_934_734_080 + 401_372_160)
    assert need.memory.peak_activation_bytes == see.peak_activation_bytes > read.peak_activation_bytes
    assert need.memory.peak_stage == "vision"


def test_utilisation_is_what_was_done_over_what_could_be(llama):
    measured = Measured(prefill_s=0.083, decode_s=0.006, peak_tflops=989, peak_tbps=3.35)
    found = capacity(llama, Axes(prefill=(4096,), steps=(2,)), measured=measured)
    read, write = found.utilisation
    first = annotate(llama.model, prefill(4096)).cost
    two = annotate(llama.model, generation(4096, steps=2)).cost
    assert read.tflops == first.flops / 0.083 / 10**12
    assert read.mfu == pytest.approx(first.matmul_flops / (0.083 * 989 * 10**12), rel=1e-12)
    assert write.bandwidth == pytest.approx(two.io_bytes / 2 / (0.006 * 3.35 * 10**12), rel=1e-12)
    assert write.fused_bandwidth == pytest.approx(two.fused_io_bytes / 2 / (0.006 * 3.35 * 10**12), rel=1e-12)
    (only,) = capacity(llama, Axes(prefill=(4096,)), measured=Measured(prefill_s=1.0)).utilisation
    assert (only.mfu, only.bandwidth, only.stage) == (None, None, "prefill")


def test_json_and_markdown_have_every_shape(small):
    found = capacity(small, Axes(prefill=(8, 16), batch=(1, 2)), memory_bytes=GIB, measured=Measured(decode_s=1.0))
    data = to_json(found)
    assert json.loads(json.dumps(data)) == data
    assert len(data["shapes"]) == 4
    assert data["shapes"][3]["memory"]["total_bytes"] == found.needs[3].memory.total_bytes
    assert data["shapes"][0]["fit"]["largest_batch"] == found.needs[0].fit.largest_batch
    assert data["utilisation"][0]["stage"] == "decode"
    text = capacity_markdown(found)
    assert text.count("### ") == 5
    assert text.count("| S=16, B=2 |") == 4
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows if "S=8, B=1" in row or "input shape" in row}) > 0


@pytest.mark.parametrize(
    ("value", "text"), [(3261.7, "3,262"), (388.44, "388.4"), (70.4, "70.40"), (1.6862, "1.686"), (0.04113, "0.04113")]
)
def test_rates_have_four_digits(value, text):
    assert four_digits(value) == text


# Command


def test_the_command_prints_tables_of_100_columns(run, config):
    done = run("capacity", config, "--prefill", "1k,64k", "--batch", "1,64", "--steps", 100, "--memory", "80GiB")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 100
    for title in ("Needed to meet the targets", "KV cache", "Memory", "What fits in 80.00 GiB"):
        assert title in done.stdout
    assert "The model's own limit is 256 positions." in done.stdout
    assert "warning: 65,636 tokens are more than this model's max_position_embeddings, 256" in done.stdout
    data = json.loads(run("capacity", config, "--decode", 64, "--ttft", "2s", "--tpot", "20ms", "--json").stdout)
    assert (data["ttft_s"], data["tpot_s"], data["warnings"]) == (2.0, 0.02, [])
    assert run("capacity", config, "--decode", 64, "--markdown").stdout.startswith("**")


def test_the_command_takes_what_an_engine_runs_unless_told(run, config, small):
    def peak(*arguments):
        data = json.loads(run("capacity", config, "--prefill", 100, "--json", *arguments).stdout)
        conventions = (data["conventions"]["kernels"], data["conventions"]["causal"], data["conventions"]["logits"])
        return conventions, data["shapes"][0]["memory"]

    served, transformers = peak(), peak("--kernels", "transformers")  # logits of the last position are its own default
    assert served[0] == ("serving", "exact", "last")
    assert transformers[0] == ("transformers", "full", "last")
    for (_, memory), name in ((served, "serving"), (transformers, "transformers")):
        stage = annotate(small.model, prefill(100), logits="last", deployment=deploy(kernels=name))
        assert memory["peak_activation_bytes"] == stage.cost.peak_activation_bytes
    halved = peak("--kv", "fp8")[1]
    assert halved["kv_bytes"] * 2 == served[1]["kv_bytes"]


BAD = [
    (["--causal", "full"], "--causal full is not what serving kernels compute"),
    (["--logits", "all"], "--logits all is not what serving kernels compute"),
    (["--attention", "eager"], "--attention eager is not what serving kernels compute"),
    (["--weights", "zzz"], "zzz"),
    (["--memory", "0GiB"], "is no memory at all"),
    (["--memory", "90GiB", "--device", "h100-sxm5-80g"], "is more than the 74.51 GiB of h100-sxm5-80g"),
    (["--memory", "0"], "needs a number and a unit"),
    (["--memory", "80"], "needs a number and a unit"),
    (["--memory", "80G1B"], "needs a number and a unit"),
    (["--memory", "-3GiB"], "needs a number and a unit"),
    (["--peak-tflops", "989"], "a peak is for a measured time"),
    (["--peak-tbps", "3.35"], "a peak is for a measured time"),
    (["--measured-prefill-ms", "83"], "these are 4; give one of each"),
    (["--measured-prefill-ms", "0", "--prefill", "5"], "must be above 0"),
    (["--measured-prefill-ms", "83", "--decode", "5"], "needs a prompt"),
    (["--ttft", "0"], "must be above 0"),
    (["--ttft", "500"], "'500' has no unit; give 500ms or 500s"),
    (["--tpot", "20"], "'20' has no unit; give 20ms or 20s"),
    (["--tpot", "fast"], "is not a time such as 500ms"),
    (["--peak-tflops", "989ms", "--measured-decode-ms", "2", "--decode", "5"], "is not a number"),
    (["--prefill", "9:3"], "runs backwards"),
    (["--markdown", "--json"], "give one"),
]


def test_a_time_that_no_machine_reaches_is_one_line(run, config):
    times = ["--measured-prefill-ms", "0.000001", "--peak-tflops", "0.01"]
    done = run("capacity", config, "--prefill", 64, *times)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"fxmeter: a prefill of 1 ns is faster than the peak: its matrix products alone .*\n", done.stderr
    )


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_a_mistake_is_one_line(run, config, arguments, message):
    done = run("capacity", config, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_every_option_has_help_and_an_example():
    from fxmeter.annotators.cli.commands.capacity import capacity as command

    for option in command.params:
        if option.param_type_name == "option":
            assert "e.g. " in option.help, option.name


@pytest.mark.parametrize(("fields", "windowed"), [(GEMMA3, True), (LLAMA, False)], ids=["windows", "no windows"])
def test_memory_is_what_an_engine_keeps_and_what_transformers_holds_is_a_note(fields, windowed):
    model = load_model(AutoConfig.for_model(**fields))
    report = capacity(StageForms.of_model(model), Axes(prefill=(60,), decode=(60,), batch=(2,)))
    memory = report.needs[0].memory
    kept, prompt = annotate(model, decode(60, batch=2)).cost, annotate(model, prefill(60, batch=2)).cost
    assert memory.total_bytes == memory.weight_bytes + kept.kv_bytes + memory.peak_activation_bytes
    assert to_json(report)["shapes"][0]["memory"]["kv_storage_bytes"] == memory.kv_storage_bytes
    assert memory.kv_storage_bytes == max(kept.kv_storage_bytes, prompt.kv_storage_bytes)
    assert ("transformers holds up to" in capacity_markdown(report)) == windowed
