"""What is given where a model, a scenario or arguments belong: names work, anything else is one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fxmeter import annotate, annotate_module, closed_form, decode, generation, load_model, prefill, vision
from fxmeter.models.errors import FxmeterError, ModelError, ScenarioError, TraceError
from fxmeter.models.stage_cost import StageCost
from tests.tracer.tiny import LLAMA, config

NAME = "llama-3.1-8b"


def test_a_name_does_where_a_model_does(tmp_path: Path):
    expected = annotate(load_model(NAME), decode(16)).cost
    assert annotate(NAME, decode(16)).cost == expected
    assert closed_form(NAME).at(past_len=16) == expected
    assert annotate(NAME, generation(16, steps=2)).cost.matmul_flops > expected.matmul_flops
    made = config(LLAMA)
    made.save_pretrained(tmp_path)
    costs = {annotate(given, prefill(4)).cost for given in (made, tmp_path, str(tmp_path))}
    assert len(costs) == 1
    assert isinstance(annotate("deepseek-ocr", vision()).cost, StageCost)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: annotate(NAME, 4096), ScenarioError, r"not 4096 \(int\); prefill\(4096\) or decode\(4096\)\?"),
        (lambda: annotate(nn.Linear(3, 3), None), ScenarioError, r"a scenario is prefill\(S\), .*not None"),
        (lambda: annotate(nn.Linear(3, 3), "decode"), ScenarioError, r"not 'decode' \(str\)"),
        (lambda: annotate(4096, decode(3)), ModelError, r"a model is an nn.Module, .*not 4096 \(int\)"),
        (lambda: annotate(nn.Linear, decode(3)), ModelError, r"not <class .*Linear'> \(type\)"),
        (lambda: annotate("no-such-preset", decode(3)), ModelError, "no-such-preset"),
        (lambda: annotate("llama-2-7", decode(64)), ModelError, "did you mean llama-2-7b"),
        (lambda: closed_form(None), ModelError, r"not None \(NoneType\)"),
        (lambda: annotate(load_model(config(LLAMA)), vision()), ScenarioError, "LlamaForCausalLM reads tokens"),
        (lambda: annotate("deepseek-ocr", vision(batch=0)), ScenarioError, "batch"),
        (lambda: annotate(nn.Linear(3, 3), decode(3)), ScenarioError, "Linear takes no input_ids"),
        (lambda: annotate_module(NAME, torch.empty(3)), TraceError, "annotate_module prices an nn.Module, not"),
        (lambda: annotate_module(nn.Linear(3, 3), torch.empty(2, 3), args=()), ScenarioError, "not both"),
        (lambda: annotate_module(nn.Linear(3, 3), args=torch.empty(2, 3)), ScenarioError, "args are a tuple or list"),
        (lambda: annotate_module(nn.Linear(3, 3), kwargs=[1]), ScenarioError, "kwargs a dictionary"),
        (lambda: annotate_module(nn.ReLU(), input=1, kwargs={"input": 2}), ScenarioError, "got input both"),
    ],
)
def test_anything_else_is_one_line(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert isinstance(caught.value, FxmeterError)
    assert "\n" not in str(caught.value)


class Clashes(nn.Module):
    """A forward whose arguments are called as options of annotate_module are."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(4, 4, bias=False)

    def forward(self, module, attention=None, *, fold=1, causal=False, routing=None, args=(), kwargs=None):
        x = self.mix(module) if fold else module
        x = x if attention is None else attention @ x
        return x @ x.T if causal and args and kwargs else x


def test_arguments_of_any_name():
    x, weights = torch.empty(3, 4), torch.empty(5, 3)
    once = 2 * 3 * 4 * 4
    mixed = once + 2 * 5 * 3 * 4
    assert annotate_module(Clashes(), x).cost.matmul_flops == once
    assert annotate_module(Clashes(), args=(x, weights)).cost.matmul_flops == mixed
    assert annotate_module(Clashes(), kwargs={"module": x, "attention": weights}).cost.matmul_flops == mixed
    assert annotate_module(Clashes(), x, kwargs={"attention": weights, "fold": 0}).cost.matmul_flops == 2 * 5 * 3 * 4
    every = {"causal": True, "args": (1,), "kwargs": {"a": 1}, "routing": "x"}
    assert annotate_module(Clashes(), args=[x], kwargs=every).cost.matmul_flops == once + 2 * 3 * 3 * 4
    assert annotate_module(Clashes(), module=x).cost.matmul_flops == once
