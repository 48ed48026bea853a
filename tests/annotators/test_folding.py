"""Identical layers once, and the same numbers as in full; where one cannot stand for the others, in full."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from annotators import annotate, annotate_module
from benchmarks.coverage_type import compare_folding
from benchmarks.small_configs import small_config
from models import decode, prefill
from tracer import load_model

FAMILIES = ["llama4_text", "jamba", "qwen3_next", "glm4_moe", "zamba2", "xlm", "xlnet"]


@pytest.mark.parametrize("scenario", [prefill(24, batch=2), decode(24, batch=2)], ids=["prefill", "decode"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_two_periods_of_layers_folded_equal_the_full_recording(model_type, scenario):
    model = load_model(small_config(model_type), dtype="float32")
    for attention in ("eager", "flash"):
        folded, full = (annotate(model, scenario, attention=attention, fold=fold) for fold in (True, False))
        assert compare_folding(folded, full) == "equal"


class Residual(nn.Module):
    """Layers whose output is added to their input outside of them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x


def test_a_sum_of_input_and_output_outside_the_layer_is_recorded_in_full():
    folded, full = (annotate_module(Residual(), torch.empty(3, 8), fold=fold) for fold in (True, False))
    assert folded.cost == full.cost
    assert full.cost.vector_flops == 4 * (3 * 8 + 3 * 8)
    assert folded.modules["layers.0"].times == 1


class Chain(nn.Module):
    """Layers one after another."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def test_layers_in_a_chain_are_recorded_once():
    folded, full = (annotate_module(Chain(), torch.empty(3, 8), fold=fold) for fold in (True, False))
    assert folded.cost == full.cost
    assert full.cost.matmul_flops == 4 * 2 * 3 * 8 * 8
    assert folded.modules["layers.1"].times == 3  # the first one reads the input of the pass


class Parallel(nn.Module):
    """Layers side by side, all on the same input: each result is a tensor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(4))

    def forward(self, x):
        x = x + 1
        return torch.cat([layer(x) for layer in self.layers])


def test_layers_side_by_side_all_keep_their_result():
    folded, full = (annotate_module(Parallel(), torch.empty(3, 8), fold=fold) for fold in (True, False))
    assert folded.cost == full.cost
    assert (
        full.cost.peak_activation_bytes == (1 + 4 + 4) * 3 * 8 * 4
    )  # the input, four results, all of them side by side
