"""What is remembered of a model is looked at again before it is used: whatever has changed discards it."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn
from transformers import LlamaConfig

from fxmeter.annotators import annotate
from fxmeter.models import decode
from fxmeter.tracer import load_model
from fxmeter.tracer.state.tree import aliases, derived, unchanging, walk


class Net(nn.Module):
    """Attributes of every kind that can change in place."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 6, bias=False)
        self.table = torch.zeros(4, 3)
        self._private = [1]
        self.nested = {"windows": [4, [8]]}
        self.register_buffer("scale", torch.ones(2))


def _swap_storage(net: Net) -> None:
    net.inner.weight.data = torch.zeros(6, 8)


CHANGES = {
    "a dtype": lambda net: net.double(),
    "another storage of the same shape": _swap_storage,
    "a shape in the same storage": lambda net: setattr(net.inner.weight, "data", net.inner.weight.data[:3]),
    "strides": lambda net: net.table.t_(),
    "a buffer": lambda net: net.scale.resize_(1),
    "a private list": lambda net: net._private.append(2),
    "a number that equals a truth": lambda net: net._private.__setitem__(0, True),
    "a list in a list in a dict": lambda net: net.nested["windows"][1].append(5),
    "an attribute": lambda net: setattr(net.inner, "bias_scale", 2),
    "a module": lambda net: net.add_module("more", nn.Identity()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_discards_what_was_derived(change):
    net, made = Net(), []

    def derive(root: nn.Module) -> object:
        made.append(object())
        return made[-1]

    first = derived(net, derive)
    assert derived(net, derive) is first
    CHANGES[change](net)
    assert derived(net, derive) is not first
    assert derived(net, derive) is made[1]


def test_a_container_that_holds_itself_is_no_trap():
    net = Net()
    net.nested["self"] = net.nested
    assert [path for path, _ in walk(net)] == ["", "inner"]


def test_weights_of_a_model_that_was_cast_after_a_first_look():
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    model = load_model(config, dtype="bfloat16")
    count = 2 * 64 * 32 + 32 + 4 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48 + 2 * 32)
    assert annotate(model, decode(16)).cost.weight_bytes == 2 * count
    assert annotate(model.float(), decode(16)).cost.weight_bytes == 4 * count


def test_what_is_remembered_keeps_no_tensor_alive():
    module = nn.Linear(4, 4)
    module.state = torch.zeros(3)
    module.states = [torch.zeros(3)]
    walk(module)
    held = [weakref.ref(module.state), weakref.ref(module.states[0])]
    module.state = module.states[0] = torch.ones(3)
    assert [reference() for reference in held] == [None, None]
    assert walk(module) == [("", module)]


def test_further_names_are_those_of_before_a_swap():
    module = nn.Module()
    module.one = nn.Linear(4, 4)
    module.two = module.one
    with unchanging(module):
        module.two = nn.Linear(4, 4)
        assert aliases(module) == {"two": "one"}
    assert aliases(module) == {}
