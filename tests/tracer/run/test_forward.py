"""A language model is called by what its innermost forward takes, however it is wrapped."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from fxmeter import annotate, annotate_module, closed_form, decode, prefill
from fxmeter.models.errors import ScenarioError
from fxmeter.tracer.run.forward import forward_of
from tests.tracer.tiny import GEMMA3, LLAMA, config
from validation.small_configs import small_config


class Passes(nn.Module):
    """A wrapper that takes and passes on anything, as adapter libraries have them."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


class Adapted(nn.Module):
    """A wrapper with arguments of its own, and the model two levels down."""

    def __init__(self, inner):
        super().__init__()
        self.base = Passes(inner)
        self.prompts = nn.Embedding(3, 4)

    def forward(self, input_ids=None, attention_mask=None, task_ids=None, **kwargs):
        return self.base(input_ids=input_ids, attention_mask=attention_mask, **kwargs)


def subclass(model):
    """The same model as an instance of a class whose forward names the tokens alone."""

    class Subclass(type(model)):
        def forward(self, input_ids=None, **kwargs):
            return super().forward(input_ids=input_ids, **kwargs)

    model.__class__ = Subclass
    return model


def decorated(model):
    inner = type(model).forward

    class Decorated(type(model)):
        @functools.wraps(inner)
        def forward(self, *args, **kwargs):
            return inner(self, *args, **kwargs)

    model.__class__ = Decorated
    return model


WRAPPERS = {"subclass": subclass, "decorated": decorated, "anything": Passes, "arguments of its own": Adapted}
CONFIGS = {
    "llama": lambda: config(LLAMA),
    "windows": lambda: config(GEMMA3),
    "state space": lambda: small_config("mamba"),
    "its own cache class": lambda: small_config("minimax"),
}


def made(name):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(CONFIGS[name](), attn_implementation="eager")


@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_wrapped_model_costs_what_the_model_does(name, wrap):
    plain, wrapped = made(name), WRAPPERS[wrap](made(name))
    for scenario in (decode(16, batch=2), prefill(5)):
        expected, cost = annotate(plain, scenario).cost, annotate(wrapped, scenario).cost
        assert cost.kv_bytes == expected.kv_bytes > 0
        assert cost.matmul_flops == expected.matmul_flops
        assert (cost.kv_read_bytes, cost.kv_write_bytes) == (expected.kv_read_bytes, expected.kv_write_bytes)


def test_the_last_logits_alone_and_a_closed_form():
    plain, wrapped = made("llama"), Adapted(made("llama"))
    expected = annotate(plain, prefill(8), logits="last").cost
    assert annotate(wrapped, prefill(8), logits="last").cost.matmul_flops == expected.matmul_flops
    assert closed_form(wrapped).at(past_len=77) == annotate(wrapped, decode(77)).cost


def test_what_a_wrapper_lets_through():
    model = Adapted(made("llama"))
    forward = forward_of(model)
    assert forward.cache == "past_key_values"
    assert {"input_ids", "task_ids", "logits_to_keep"} <= forward.names
    assert forward.code.__name__.endswith("modeling_llama")


def test_a_part_that_keeps_a_cache_behind_a_forward_that_takes_none():
    class Scores(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = made("llama")

        def forward(self, input_ids, use_cache=None):
            return self.model(input_ids=input_ids).logits.softmax(-1)

    assert forward_of(Scores()).cache is None
    assert annotate(Scores(), decode(16)).cost.kv_bytes == 0


def test_what_takes_no_tokens_is_refused():
    with pytest.raises(ScenarioError, match=r"Linear takes no input_ids.*annotate_module"):
        annotate(nn.Linear(3, 3), decode(16))


def test_a_module_without_weights():
    class Nothing(nn.Module):
        def forward(self, input_ids, use_cache=None):
            return input_ids * 2

    assert annotate(Nothing(), prefill(3)).cost.weight_bytes == 0
    assert annotate_module(Nothing(), torch.ones(2, 3, dtype=torch.long)).cost.activation_bytes == 2 * 3 * 8
