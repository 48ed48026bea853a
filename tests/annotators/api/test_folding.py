"""Identical layers once, and the same numbers as in full; where one cannot stand for the others, in full."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from fxmeter.annotators import annotate, annotate_module
from fxmeter.models import decode, prefill
from fxmeter.tracer import load_model
from validation.coverage_type import compare_folding
from validation.small_configs import small_config

FAMILIES = ["deepseek_v4", "jamba", "qwen3_next", "glm4_moe", "rwkv", "xlm"]


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


class Parallel(nn.Module):
    """Members of a list that all get the same input, whose outputs are used side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        x = x * 2
        return torch.stack([layer(x) for layer in self.layers])


class Viewed(nn.Module):
    """A chain whose states are used once more through a view, when nobody has them any longer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        x = x * 2
        for layer in self.layers:
            flat = x.view(-1)
            x = layer(x)
            flat.sum()
        return x * 2


class Held(nn.Module):
    """A chain whose every state somebody holds on to without using it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        x, states = x * 2, []
        for layer in self.layers:
            states.append(x)
            x = layer(x)
        return x * 2


class Remembering(nn.Module):
    """Layers that write into one tensor, given to them all."""

    class Layer(nn.Linear):
        def forward(self, x, memory):
            memory[:, 0] = x[:, 0]
            return super().forward(x)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(self.Layer(8, 8) for _ in range(4))

    def forward(self, x):
        x, memory = x * 2, torch.zeros_like(x)
        for layer in self.layers:
            x = layer(x, memory)
        return {"hidden": x, "state": memory}


@pytest.mark.parametrize("kind", [Residual, Parallel, Viewed, Held, Remembering])
def test_where_one_call_cannot_stand_for_another_the_pass_is_recorded_in_full(kind):
    folded, full = (annotate_module(kind(), torch.empty(3, 8), fold=fold) for fold in (True, False))
    assert compare_folding(folded, full) == "equal"
    assert not folded.recording.folds()


class Leaving(nn.Module):
    """Layers that each leave a tensor alive: an empty slice of what they made."""

    class Layer(nn.Linear):
        def forward(self, x):
            made = super().forward(x)
            self.tail = made[:0]
            return made + 1

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(self.Layer(8, 8) for _ in range(5))

    def forward(self, x):
        x = x * 2
        for layer in self.layers:
            x = layer(x)
        return x * 2


def test_what_a_layer_leaves_alive_each_identical_one_leaves_too():
    folded, full = (annotate_module(Leaving(), torch.empty(3, 8), fold=fold) for fold in (True, False))
    assert compare_folding(folded, full) == "equal"
    assert folded.modules["layers.0"].times == 5
    left, state = 5 * 3 * 8 * 4, 3 * 8 * 4
    assert folded.cost.peak_activation_bytes == left + 2 * state


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


ACTIVATION = nn.Sigmoid()


class SharedActivation(nn.Module):
    """Layers that call one and the same activation module, as those of GPT do."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 8, bias=False), ACTIVATION) for _ in range(3))

    def forward(self, x):
        x = x + 1
        for layer in self.layers:
            x = layer(x)
        return x


def test_what_a_shared_module_does_is_put_down_to_the_layer_that_calls_it():
    folded, full = (annotate_module(SharedActivation(), torch.empty(5, 8), fold=fold) for fold in (True, False))
    assert compare_folding(folded, full) == "equal"
    assert folded.modules["layers.0"].times == 3
    costs = [full.modules[f"layers.{index}"].cost for index in range(3)]
    assert costs[0] == costs[1] == costs[2]
    assert costs[0].matmul_flops == 2 * 5 * 8 * 8


class SharedWeights(nn.Module):
    """Layers with one weight between them: it is read by each, and there once."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(3))
        for layer in self.layers[1:]:
            layer.weight = self.layers[0].weight

    forward = SharedActivation.forward


def test_layers_that_share_a_weight_have_it_once():
    folded, full = (annotate_module(SharedWeights(), torch.empty(5, 8), fold=fold) for fold in (True, False))
    assert folded.cost == full.cost
    assert folded.cost.weight_bytes == 8 * 8 * 4
    assert folded.cost.weight_read_bytes == 3 * 8 * 8 * 4


def test_layers_whose_weights_lie_over_one_storage_have_it_once():
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4
    )
    model = LlamaForCausalLM(config)
    first, _, third, _ = model.model.layers
    third.mlp.up_proj.weight = nn.Parameter(first.mlp.up_proj.weight.data)
    tokens = torch.ones(2, 5, dtype=torch.long)
    folded, full = (annotate_module(model, tokens, fold=fold) for fold in (None, False))
    assert folded.cost == full.cost
    own = {weight.untyped_storage().data_ptr(): weight.nbytes for weight in model.parameters()}
    assert folded.cost.weight_bytes == sum(own.values())
