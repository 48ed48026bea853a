"""Peak activations equal those of real runs on the CPU, by the profiler's events and by a tracker of storages."""

from __future__ import annotations

import pytest
import torch

from validation.allocations import most_alive, profiled, taken_apart, tracked, without
from validation.peak import BAND, BEYOND, SCANS, SDPA, check, loops, only
from validation.real_runs import EQUAL_HEADS, FAMILIES, STAGES

QUICK = ("llama", "gemma3_text", "gpt2", "phi", "qwen3_moe", "deepseek_v3", "gpt_oss", "mamba", "bamba", "qwen3_next")
QUICK_SDPA = ("llama", "gemma3_text", "gpt2", "deepseek_v3", EQUAL_HEADS, "bamba")


def cases(names, quick=QUICK):
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", cases(FAMILIES))
def test_an_eager_peak_equals_the_allocation_events_of_a_real_run(name, stage):
    case = check(name, stage)
    assert (case.peak.bytes, case.tracker) == (case.most.nbytes, case.most.nbytes)
    assert case.row.error == 0


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "gemma3n_text"])
def test_an_eager_peak_equals_at_a_length_that_no_window_or_chunk_divides(name, stage):
    assert check(name, stage, prompt=101).equal


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", cases(SDPA, QUICK_SDPA))
def test_a_flash_peak_is_that_of_sdpa_where_pytorch_has_a_fused_kernel(name, stage):
    case = check(name, stage, "flash")
    assert case.tracker == case.most.nbytes
    if name not in BEYOND:
        assert abs(case.row.error) <= BAND
    assert ("only" in case.row.explanation) == (case.row.error != 0)


@pytest.mark.parametrize("name", cases(SCANS))
def test_a_loop_over_time_in_python_holds_more_than_the_operator(name):
    row = loops(name, "prefill")
    assert row.predicted < row.measured


def test_what_explains_a_difference_adds_up_to_it():
    case = check("mistral", "prefill", "flash")
    mask = 24 * 24
    assert case.most.nbytes - case.peak.bytes == mask
    assert "only measured" in case.row.explanation
    assert f"{mask:,}" in case.row.explanation


def test_a_tensor_is_told_from_others_by_size_and_op_then_by_size():
    here = [(8, "mm"), (8, "clone"), (4, "add")]
    there = [(8, "mm"), (8, "cat"), (2, "add")]
    assert only(here, there) == [(4, "add")]
    assert only(there, here) == [(2, "add")]


def test_latent_attention_with_equal_head_sizes_costs_one_copy_of_the_cores_output():
    case = check(EQUAL_HEADS, "prefill", "flash")
    copy, projected = 2 * 24 * 4 * 24 * 4, 2 * 24 * 64 * 4  # the next thing that is made is smaller
    assert case.most.nbytes - case.peak.bytes == copy - projected
    assert case.row.explanation == f"only measured: `clone` {copy:,}; only predicted: `mm` {projected:,}"


def test_the_number_in_an_expression_takes_twelve_bytes_while_it_runs():
    x = torch.zeros(100)
    y, found = profiled(lambda: x * 0.5)
    assert y.numel() == 100
    assert sorted((a.kind, a.nbytes) for a in found) == [("operand", 8), ("result", 400), ("workspace", 4)]
    assert most_alive(found).nbytes == 400 + 8 + 4


def test_both_instruments_see_tensors_die_and_leave_the_cache_out():
    def call():
        first = torch.ones(100)
        second = first + first
        del first
        return second.view(10, 10), second.repeat(3)

    (kept, _), found = profiled(call)
    results = [a for a in found if a.kind == "result"]
    assert most_alive(results).nbytes == 400 + 1200
    assert most_alive(without(results, [kept])).nbytes == 1200
    (kept, _), tracker = tracked(call)
    assert (tracker.most([]), tracker.most([kept])) == (400 + 1200, 1200)


@pytest.mark.parametrize(
    ("op", "apart"),
    [
        ("aten::linear", True),
        ("aten::matmul", True),
        ("aten::softmax", True),
        ("aten::where", False),
        ("aten::mm", False),
        ("fxmeter::selective_scan", False),
    ],
)
def test_which_ops_pytorch_takes_apart(op, apart):
    assert taken_apart(op) is apart
