"""Modules of torch's own and in the style of well-known repositories: products and peaks of real runs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fxmeter import annotate_module
from validation.foreign import decoders, routed, torch_modules
from validation.foreign.check import check

MODELS = {**torch_modules.MODELS, **decoders.MODELS, **routed.MODELS}
QUICK = (
    "nn.TransformerEncoder, causal",
    "nn.MultiheadAttention",
    "nn.LSTM, bidirectional",
    "convolutional classifier",
    "grouped queries",
    "long convolution (Hyena)",
    "DLRM",
    "training step of a convolutional classifier",
    "nanoGPT",
    "Meta's llama, next token",
    "latent attention (DeepSeek-V3), prompt",
    *routed.MODELS,
)
DIFFERENT = ("nn.RNN", "nn.LSTM, bidirectional", "nn.LSTM with projection", "nn.GRU", "nn.EmbeddingBag")
"""Peaks: the CPU takes all time steps at once, and keeps more of a bag's bookkeeping than meta says."""
UNSEEN = {"nn.Bilinear": 2 * 3 * 8 * 6 * 5 + 2 * 3 * 6 * 5}


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in MODELS])
def test_products_and_peak_are_those_of_a_real_run(name):
    found = check(name, MODELS[name])
    assert found.uncosted == ()
    assert found.flops - found.counted == UNSEEN.get(name, 0)
    assert found.flops_hold and found.peak_holds
    assert found.peak.equal is (name not in DIFFERENT)
    assert ("only" in found.explanation) is (name in DIFFERENT)


@pytest.mark.parametrize("name", list(routed.MODELS)[:-1])
def test_what_each_expert_gets_is_said_to_be_assumed(name):
    call = MODELS[name]()
    assumed = annotate_module(call.module, *call.args).recording.assumptions
    assert any("picks every position equally often" in text for text in assumed)


def rows_of_experts(kind, tokens):
    stage = annotate_module(kind(), torch.randn(2, tokens, routed.DIM))
    each = 2 * routed.DIM * routed.HIDDEN
    modules = (stage.modules.get(f"experts.{i}.w1") for i in range(routed.EXPERTS))
    return [0 if module is None else module.cost.matmul_flops // each for module in modules]


def test_every_expert_gets_its_share_or_one_token_more():
    even = [2 * 12 * routed.TOP_K // routed.EXPERTS] * routed.EXPERTS
    assert rows_of_experts(routed.CountedByBincount, 12) == even
    uneven = rows_of_experts(routed.CountedByBincount, 13)
    assert sum(uneven) == 2 * 13 * routed.TOP_K
    assert set(uneven) == {2 * 13 * routed.TOP_K // routed.EXPERTS, 2 * 13 * routed.TOP_K // routed.EXPERTS + 1}
    assert sorted(rows_of_experts(routed.CountedByBincount, 1)) == [0] * 4 + [1] * 4


def test_a_value_that_a_choice_returns_stays_unknown():
    class Asks(nn.Module):
        def forward(self, x):
            return x if x.max(-1).values.sum() > 0 else -x

    with pytest.raises(Exception, match="asks for the value of a tensor"):
        annotate_module(Asks(), torch.empty(3, 4, device="meta"))
