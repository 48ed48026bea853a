"""What the verbs take in place of a model, a scenario and arguments."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fxmeter import annotate, annotate_module, closed_form, decode, vision
from fxmeter.models.errors import ModelError, ScenarioError


def test_a_name_does_where_a_model_does(preset_model):
    own = annotate(preset_model("llama-2-7b"), decode(64)).cost
    assert annotate("llama-2-7b", decode(64)).cost == own
    assert closed_form("llama-2-7b").at(past_len=64) == own
    assert annotate("deepseek-ocr", vision(crops=(0, 0))).cost.matmul_flops > 0
    with pytest.raises(ModelError, match="did you mean llama-2-7b"):
        annotate("llama-2-7", decode(64))


@pytest.mark.parametrize("scenario", [4096, "decode", None, (1, 2)], ids=repr)
def test_what_is_no_scenario_is_refused(scenario):
    with pytest.raises(ScenarioError, match="a scenario is prefill"):
        annotate(nn.Linear(8, 8), scenario)


class Clashing(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(8, 6, bias=False)

    def forward(self, attention, fold, *, causal=None, args=None):
        return self.lin(attention) + fold


def test_argument_names_that_clash_with_ours_are_given_apart():
    attention, fold = torch.ones(4, 8), torch.ones(4, 6)
    one = annotate_module(Clashing(), args=(attention,), kwargs={"fold": fold, "causal": True, "args": 3})
    other = annotate_module(Clashing(), attention, fold)
    assert one.cost == other.cost
    assert one.cost.matmul_flops == 2 * 4 * 8 * 6
    with pytest.raises(ScenarioError, match="not both ways"):
        annotate_module(Clashing(), attention, args=(attention, fold))
