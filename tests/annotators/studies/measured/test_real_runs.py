"""Traces of real runs on the CPU: matched, and added up as the trace itself does."""

import gzip
import json

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from fxmeter import annotate, annotate_module, decode, measured, prefill
from fxmeter.annotators.studies.measured.laid_over import lay_over
from fxmeter.annotators.studies.measured.traces.ranges import ranges_around
from fxmeter.models.errors import ScenarioError
from tests.annotators.studies.measured.real import (
    BATCH,
    CASES,
    PROMPT,
    arguments_of,
    events_in,
    model_of,
    op_time_by_range,
    real_run,
)

ATTEMPTS = 3
"""A busy machine may hold up an op that nobody recorded for longer than a whole pass takes."""


@pytest.mark.parametrize(("name", "attention", "stage"), CASES)
def test_nearly_all_time_of_ops_is_matched_and_adds_up_and_nothing_is_missing(name, attention, stage, tmp_path):
    runs = (real_run(name, attention, stage) for _ in range(ATTEMPTS))
    run = next((each for each in runs if each.compare().matched_share >= 0.98), None)
    assert run is not None
    found = run.compare()
    run.save(tmp_path / "trace.json")
    truth = op_time_by_range(events_in((tmp_path / "trace.json").read_text()))
    assert {path: part.ns for path, part in found.own.items() if part.ns} == truth
    assert found.whole.ns == found.total_ns == sum(truth.values())
    assert all(not op.part.matmul_flops for op in found.missing)


def test_without_ranges_the_same_time_goes_to_the_same_ops(tmp_path):
    run = real_run("qwen3_moe", "sdpa", "prefill")
    run.save(tmp_path / "with.json")
    text = json.loads((tmp_path / "with.json").read_text())
    text["traceEvents"] = [event for event in text["traceEvents"] if event.get("cat") != "user_annotation"]
    (tmp_path / "without.json").write_text(json.dumps(text))
    told = run.compare()
    found = lay_over(told.stage, tmp_path / "without.json")
    times = {op.name: op.part.ns for op in told.ops}
    same = sum(op.part.ns for op in found.ops if times.get(op.name) == op.part.ns)
    assert same >= 0.98 * told.matched_ns


def test_ranges_of_the_profilers_own_name_the_same_modules(tmp_path):
    model = model_of("deepseek_v3", "eager")
    arguments = arguments_of(model, "prefill")
    with torch.no_grad(), ranges_around(model), profile(activities=[ProfilerActivity.CPU], with_stack=True) as profiler:
        model(**arguments)
    profiler.export_chrome_trace(str(tmp_path / "both.json"))
    text = json.loads((tmp_path / "both.json").read_text())
    stage = annotate(model, prefill(PROMPT, batch=BATCH), attention="eager", fold=False)
    own = []
    for dropped in ("python_function", "user_annotation"):
        events = [event for event in text["traceEvents"] if event.get("cat") != dropped]
        (tmp_path / f"{dropped}.json").write_text(json.dumps({**text, "traceEvents": events}))
        own.append(lay_over(stage, tmp_path / f"{dropped}.json").own)
    paths, classes = own
    assert {path for path, part in paths.items() if part.ns} == {path for path, part in classes.items() if part.ns}
    shifted = sum(abs(part.ns - classes[path].ns) for path, part in paths.items())
    assert shifted <= 0.02 * sum(part.ns for part in paths.values())


def test_passes_are_averaged_and_others_left_outside(tmp_path):
    run = real_run("llama", "sdpa", "decode", passes=3)
    found = run.compare()
    assert found.passes == 3
    assert found.whole.seconds == pytest.approx(found.whole.ns / 3 / 1e9)
    model = model_of("llama", "sdpa")
    with torch.no_grad(), measured(model) as mixed:
        for stage in ("prefill", "decode"):
            model(**arguments_of(model, stage))
    with pytest.raises(ScenarioError, match=f"several kinds, name one: batch {BATCH}, {PROMPT} new tokens after 0"):
        mixed.compare()
    step = mixed.compare(decode(PROMPT, batch=BATCH))
    mixed.save(tmp_path / "mixed.json.gz")
    events = events_in(gzip.decompress((tmp_path / "mixed.json.gz").read_bytes()).decode())
    assert step.passes == 1
    assert step.outside_ns > step.whole.ns
    assert step.total_ns == sum(op_time_by_range(events).values())
    with pytest.raises(ScenarioError, match="not over"), measured(model) as unfinished:
        unfinished.compare()


def test_a_cpu_run_allocates_the_predicted_peak_and_the_cache():
    found = real_run("llama", "eager", "prefill").compare()
    cost = found.stage.cost
    wrapped_numbers = 64
    assert 0 <= found.peak_bytes - cost.peak_activation_bytes - cost.kv_bytes < wrapped_numbers


def test_any_module_can_be_laid_over_its_own_prediction(tmp_path):
    block = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.Linear(256, 64)).eval()
    inputs = torch.randn(32, 64)
    with torch.no_grad():
        block(inputs)
        with measured(block) as run:
            block(inputs)
    run.save(tmp_path / "block.json")
    found = lay_over(annotate_module(block, inputs, fold=False), tmp_path / "block.json")
    assert {op.module for op in found.ops} == {"0", "1", "2"}
    assert sum(op.part.matmul_flops for op in found.ops) == 2 * 2 * 32 * 64 * 256
