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


class Twice(nn.Module):
    """The same layers run on two inputs of different lengths, as a vision tower does on a page and on its crops."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x, y):
        return tuple(self._chain(z) for z in (x, y))

    def _chain(self, z):
        z = self.first(z)
        for layer in self.layers:
            z = layer(z)
        return z


@pytest.mark.parametrize("lengths", [(3, 5), (3, 3)], ids=["other lengths", "equal lengths"])
def test_layers_that_run_twice_are_recorded_once_each_time(lengths):
    inputs = [torch.empty(length, 8) for length in lengths]
    folded, full = (annotate_module(Twice(), *inputs, fold=fold) for fold in (True, False))
    assert compare_folding(folded, full) == "equal"
    assert folded.cost.matmul_flops == sum(5 * 2 * length * 8 * 8 for length in lengths)
    assert folded.modules["layers.0"].times == 4
    assert len(folded.fx_graph.nodes) < len(full.fx_graph.nodes)


class Unlike(Twice):
    """The second time the first layer reads an input of the pass, and is not like the others."""

    def forward(self, x, y):
        x = self._chain(x)
        for layer in self.layers:
            y = layer(y)
        return x, y


def test_layers_that_are_alike_only_the_first_time_are_recorded_in_full():
    folded, full = (
        annotate_module(Unlike(), torch.empty(3, 8), torch.empty(5, 8), fold=fold) for fold in (True, False)
    )
    assert compare_folding(folded, full) == "equal"
    assert folded.modules["layers.0"].times == 1
