"""What is recorded is what a real pass without gradients runs: op by op, in every mode that code may be in."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from fxmeter import annotate, annotate_module, load_model, prefill
from fxmeter.tracer.graph.nodes import executed, specs_of
from tests.tracer.tiny import LLAMA, config


class Ops(TorchDispatchMode):
    """The ops that a real pass dispatches, with the shapes that they return."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        results = out if isinstance(out, (tuple, list)) else [out]
        self.seen.append((str(func), [tuple(r.shape) for r in results if isinstance(r, torch.Tensor)]))
        return out


def ops_of_a_real_pass(module, *args):
    with torch.no_grad(), Ops() as ops:
        module(*args)
    return ops.seen


def ops_recorded(stage):
    return [(str(n.target), [tuple(s.shape) for s in specs_of(n)]) for n in executed(stage.fx_graph)]


def with_forward(forward, **parts):
    module = type("Made", (nn.Module,), {"forward": forward})()
    for name, part in parts.items():
        setattr(module, name, part)
    return module


MODULES = {
    "transposed into a linear": (
        lambda: with_forward(lambda self, x: self.lin(x.transpose(1, 2)), lin=nn.Linear(8, 6, bias=False)),
        (2, 8, 4),
    ),
    "matmul with a parameter": (
        lambda: with_forward(lambda self, x: x.transpose(-1, -2) @ self.w, w=nn.Parameter(torch.randn(8, 5))),
        (3, 8, 4),
    ),
    "a frozen parameter": (
        lambda: with_forward(
            lambda self, x: x.transpose(-1, -2) @ self.w, w=nn.Parameter(torch.randn(8, 5), requires_grad=False)
        ),
        (3, 8, 4),
    ),
    "a buffer": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GELU(), nn.Flatten(), nn.Linear(12, 2)),
        (2, 3, 4),
    ),
    "einsum": (
        lambda: with_forward(lambda self, x: torch.einsum("bij,jk->bik", x, self.w), w=nn.Parameter(torch.randn(4, 5))),
        (2, 3, 4),
    ),
    "dropout": (lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), (5, 4)),
    "batch norm and convolution": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), (2, 3, 6, 6)),
}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", MODULES)
def test_the_ops_are_those_of_a_real_pass(name, training):
    make, shape = MODULES[name]
    module = make().train(training)
    stage = annotate_module(module, torch.randn(shape))
    assert ops_recorded(stage) == ops_of_a_real_pass(module, torch.randn(shape))
    assert stage.recording.training is training
    assert all(part.training is training for part in module.modules())


def test_dropout_costs_something_in_training_and_nothing_otherwise():
    module = nn.Dropout(0.5)
    assert annotate_module(module, torch.empty(4, 4)).cost.activation_bytes > 0
    assert annotate_module(module.eval(), torch.empty(4, 4)).cost.activation_bytes == 0


def test_parts_keep_their_own_mode():
    module = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    module[0].eval()
    names = [name for name, _ in ops_recorded(annotate_module(module, torch.empty(4, 4)))]
    assert names == [name for name, _ in ops_of_a_real_pass(module, torch.empty(4, 4))]


def test_a_language_model_is_priced_as_it_infers_whatever_its_mode():
    fields = {**LLAMA, "attention_dropout": 0.5}
    model = load_model(config(fields), dtype="float32")
    expected = annotate(model, prefill(4), attention="eager").cost
    stage = annotate(model.train(), prefill(4), attention="eager")
    assert stage.cost == expected
    assert not stage.recording.training
    assert model.training


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.norm, self.out = nn.Linear(8, 24), nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        weights = F.softmax(q @ k.transpose(-1, -2), dim=-1)
        return self.out(torch.matmul(weights, v)).reshape(len(x), -1)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_the_callers_mode_changes_nothing(mode):
    module, x = Attends(), torch.randn(2, 3, 8)
    expected = annotate_module(module, x)
    with mode():
        inside, given = annotate_module(module, x), annotate_module(module, torch.randn(2, 3, 8))
        made = annotate_module(Attends(), x)
    assert ops_recorded(inside) == ops_recorded(given) == ops_recorded(made) == ops_recorded(expected)
    assert inside.cost == expected.cost


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_a_forward_with_a_mode_of_its_own(mode):
    class Decorated(Attends):
        @mode()
        def forward(self, x):
            return super().forward(x)

    module, x = Decorated(), torch.randn(2, 3, 8)
    stage = annotate_module(module, x)
    with FlopCounterMode(display=False) as counter:
        Attends.forward(module, x)
    assert stage.cost.matmul_flops == counter.get_total_flops()
    assert stage.cost.activation_bytes == annotate_module(Attends(), x).cost.activation_bytes


def test_a_model_made_in_inference_mode():
    with torch.inference_mode():
        model = load_model(config(LLAMA), dtype="float32")
        inside = annotate(model, prefill(4)).cost
    assert (
        annotate(model, prefill(4)).cost
        == inside
        == annotate(load_model(config(LLAMA), dtype="float32"), prefill(4)).cost
    )


def test_what_requires_gradients_still_does():
    module = Attends()
    module.norm.weight.requires_grad_(False)
    x = torch.randn(2, 3, 8, requires_grad=True)
    before = [p.requires_grad for p in module.parameters()]
    annotate_module(module, x)
    assert [p.requires_grad for p in module.parameters()] == before
    assert x.requires_grad
    assert x.grad is None


def test_a_gradient_taken_inside_forward_is_recorded():
    class Force(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 8, bias=False), nn.Linear(8, 1, bias=False)

        def forward(self, x):
            with torch.enable_grad():
                x = x.detach().requires_grad_(True)
                energy = self.second(self.first(x).tanh()).sum()
                return torch.autograd.grad(energy, x)[0]

    forward = 2 * 3 * 4 * 8 + 2 * 3 * 8 * 1
    backward = 2 * 3 * 1 * 8 + 2 * 3 * 8 * 4
    assert annotate_module(Force(), torch.randn(3, 4)).cost.matmul_flops == forward + backward
