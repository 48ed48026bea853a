"""Peaks from lifetimes: toy modules whose tensors can be counted by hand, and what folding must not change."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

from fxmeter.annotators import annotate, annotate_module
from fxmeter.annotators.stages.peak import find_peak
from fxmeter.models import decode, prefill
from fxmeter.tracer import load_model
from fxmeter.tracer.run.passes import record
from tests.tracer.tiny import DEEPSEEK, GEMMA3, GPT_OSS, LLAMA, QWEN_MOE, config

TINY = {"deepseek": DEEPSEEK, "llama": LLAMA, "qwen-moe": QWEN_MOE, "gemma3": GEMMA3, "gpt-oss": GPT_OSS}
SCENARIOS = [prefill(20, batch=2), decode(20, batch=3), prefill(4, past_len=20)]
X = torch.zeros(10)
ONE = 10 * 4


class Chain(nn.Module):
    """Each result lives until its name is used again."""

    def forward(self, x):
        x = x + 1
        x = x * 2
        return x - 3


class Hoarder(nn.Module):
    """The first result is alive to the end, and used no more."""

    def forward(self, x):
        first = x + 1
        second = first * 2
        third = second * 2
        return third * 2


class Views(nn.Module):
    """A view keeps its storage alive, and makes none; an in-place op makes none either."""

    def forward(self, x):
        y = (x + 1).view(2, 5)
        y += 1
        return y[0] * 1


class Weighted(nn.Module):
    """A weight and an input are no activations."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(10))

    def forward(self, x):
        return x * self.weight


@pytest.mark.parametrize(
    ("module", "peak", "ideal", "total"),
    [
        (Chain(), 2 * ONE, 2 * ONE, 3 * ONE),
        (Hoarder(), 4 * ONE, 2 * ONE, 4 * ONE),
        (Views(), ONE + ONE // 2, ONE + ONE // 2, ONE + ONE // 2),
        (Weighted(), ONE, ONE, ONE),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_a_tensor_lives_until_python_lets_go_of_it(module, peak, ideal, total):
    cost = annotate_module(module, X).cost
    assert (cost.peak_activation_bytes, cost.ideal_peak_activation_bytes, cost.activation_bytes) == (peak, ideal, total)


def test_the_peak_names_its_op_its_module_and_what_is_alive():
    peak = annotate_module(nn.Sequential(Chain(), Hoarder(), Chain()), X).peak
    assert (peak.op, peak.module) == ("aten.mul.Tensor", "1")
    assert peak.bytes == 5 * ONE  # the input of the second module is held by its caller
    assert [(item.op, item.module, item.shape, item.bytes) for item in peak.alive] == [
        ("aten.sub.Tensor", "0", (10,), ONE),
        ("aten.add.Tensor", "1", (10,), ONE),
        *[("aten.mul.Tensor", "1", (10,), ONE)] * 3,
    ]


@pytest.fixture(params=TINY)
def model(request):
    return load_model(config(TINY[request.param]))


@pytest.mark.parametrize("attention", ["eager", "flash"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=["prefill", "decode", "chunk"])
def test_folding_changes_neither_the_moment_of_the_peak_nor_what_is_alive(model, attention, scenario):
    folded = annotate(model, scenario, attention=attention)
    full = annotate(model, scenario, attention=attention, fold=False)
    for stage in (folded, full):
        assert sum(item.bytes for item in stage.peak.alive) == stage.peak.bytes == stage.cost.peak_activation_bytes
    assert (folded.peak.module, folded.peak.op) == (full.peak.module, full.peak.op)
    alive = [sorted((a.op, a.shape, a.dtype, a.bytes) for a in stage.peak.alive) for stage in (folded, full)]
    assert alive[0] == alive[1]
    assert full.cost.ideal_peak_activation_bytes <= full.cost.peak_activation_bytes < full.cost.activation_bytes


@pytest.mark.parametrize("attention", ["eager", "flash"])
def test_the_recorder_holds_no_tensor(model, attention):
    """Whatever only the garbage collector would free stays alive in the recording."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        recording = record(model, prefill(4), attention=attention)
    finally:
        gc.enable() if enabled else None
    kept = [s for s in recording.storages if s.role == "activation" and not s.counts and s.died is None and s.nbytes]
    assert [s.nbytes for s in kept] == [4 * 40 * 2]  # the logits


def test_flash_prefill_needs_far_less_than_eager_whose_scores_fill_it(preset_model):
    flash, eager = (annotate(preset_model("llama-2-7b"), prefill(4096), attention=name) for name in ("flash", "eager"))
    assert eager.cost.peak_activation_bytes > 5 * flash.cost.peak_activation_bytes
    scores = [item for item in eager.peak.alive if item.shape == (1, 32, 4096, 4096)]
    assert sum(item.bytes for item in scores) > 0.9 * eager.peak.bytes
    assert eager.peak.module.endswith("self_attn")
    assert all(item.shape != (1, 32, 4096, 4096) for item in flash.peak.alive)


def test_decode_peaks_of_flash_do_not_depend_on_the_context(preset_model):
    model = preset_model("llama-3.1-8b")
    peaks = {annotate(model, decode(context)).cost.peak_activation_bytes for context in (1, 500, 100_000)}
    assert len(peaks) == 1


@pytest.mark.parametrize(
    ("name", "may_grow"),
    [
        ("llama-2-7b", {(32, 1)}),  # heads x one query
        ("llama-3.1-8b", {(32, 1), (8, 4, 128)}),  # and copies of keys and values for the queries that share them
    ],
)
def test_what_grows_with_the_context_at_eagers_decode_peak_are_scores_and_copies_of_keys_and_values(
    name, may_grow, preset_model
):
    kv_lens = (1000 + 1, 3000 + 1)
    peaks = [annotate(preset_model(name), decode(kv_len - 1), attention="eager").peak for kv_len in kv_lens]
    grows = []
    for peak, kv_len in zip(peaks, kv_lens, strict=True):
        with_context = [item for item in peak.alive if kv_len in item.shape]
        for item in with_context:
            batch, *rest = (size for size in item.shape if size != kv_len)
            assert batch == 1
            assert tuple(rest) in {*may_grow, (1, 1)}  # (1, 1): the mask
        grows.append(sum(item.bytes for item in with_context))
    assert peaks[1].bytes - peaks[0].bytes == grows[1] - grows[0]
    assert grows[1] * kv_lens[0] == grows[0] * kv_lens[1]


def test_a_pass_that_makes_nothing_has_no_peak():
    assert find_peak(record_nothing()) is None


def record_nothing():
    return annotate_module(nn.Identity(), X).recording
