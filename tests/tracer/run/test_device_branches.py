"""Code that asks where a tensor is takes the branch that it takes on the user's own device."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fxmeter import annotate, annotate_module, prefill
from fxmeter.models.errors import TraceError
from fxmeter.tracer.private import TorchDispatchMode
from fxmeter.tracer.run.patches.devices import Home, devices_answered
from tests.tracer.run.test_devices import module as training_module
from tests.tracer.tiny import LLAMA, real_model

N = 6
CPU = torch.device("cpu")


def module(forward, **parts):
    return training_module(forward, **parts).eval()


def double(x):
    """Twice the products: what a case runs where it takes the CPU's branch."""
    return x @ x @ x


def only_beside(self, x):
    return double(x) if x.device == self.weight.device else x @ x


def table_beside(self, x):
    table = torch.ones(N, N, device=x.device)
    return double(table + x) if table.device == x.device and table.is_cpu else x


def values_beside(self, x):
    rows = torch.tensor([3, 1], device=x.device)
    return sum(x[:n] @ x for n in rows.tolist())


def drawn(self, x):
    noise = torch.randn(N, N, device=x.device, generator=torch.Generator(device=x.device))
    return double(x + noise) if noise.device.type == "cpu" else x


def moved(self, x):
    y = x.to(x.device).to("cpu").cpu().to(x).type_as(x)
    return double(y) if y is x else x @ x


def after_a_move(self, x):
    mask = torch.ones(N, N).to(x.device)
    return double(x * mask) if not mask.is_meta and mask.device == x.device else x


def in_a_context(self, x):
    with x.device:
        table = torch.ones(N, N)
    return double(table) if table.device == x.device else x


def given_on(self, x, device):
    return double(x) if x.device == device else x @ x


def of_parameters(self, x):
    return double(x) if next(self.parameters()).device.type == "cpu" else x @ x


CASES = {
    "the type of a device": lambda self, x: double(x) if x.device.type == "cpu" else x @ x,
    "not another": lambda self, x: x @ x if x.device.type in ("cuda", "meta") else double(x),
    "the name of a device": lambda self, x: double(x) if str(x.device) == "cpu" else x @ x,
    "is_cuda": lambda self, x: x @ x if x.is_cuda else double(x),
    "is_cpu": lambda self, x: double(x) if x.is_cpu else x @ x,
    "is_meta": lambda self, x: x @ x if x.is_meta else double(x),
    "get_device": lambda self, x: double(x) if x.get_device() < 0 else x @ x,
    "the legacy type": lambda self, x: double(x) if x.type() == "torch.FloatTensor" else x @ x,
    "what was computed": lambda self, x: double(x) if (x + 1).device == torch.device("cpu") else x @ x,
    "the index of a device": lambda self, x: double(x) if x.device.index is None else x @ x,
    "beside a parameter": only_beside,
    "parameters'": of_parameters,
    "a table made beside": table_beside,
    "values made beside": values_beside,
    "numbers drawn beside": drawn,
    "moves to where it is": moved,
    "a mask that is moved": after_a_move,
    "a device as a context": in_a_context,
}


class Ops(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", CASES)
def test_it_takes_the_branch_of_a_real_run(name):
    made, x = module(CASES[name], weight=nn.Parameter(torch.randn(N, N))), torch.randn(N, N)
    stage = annotate_module(made, x)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        made(x)
    assert stage.cost.matmul_flops == counter.get_total_flops() >= 2 * 4 * N * N
    assert not stage.assumptions


def test_a_move_to_where_a_tensor_is_runs_no_op():
    made, x = module(moved, weight=nn.Parameter(torch.randn(N, N))), torch.randn(N, N)
    with Ops() as real, torch.no_grad():
        made(x)
    recorded = annotate_module(made, x).fx_graph.nodes
    assert [str(node.target) for node in recorded if node.op == "call_function"] == real.seen


@pytest.mark.parametrize("name", ["the type of a device", "is_cuda", "get_device", "the name of a device"])
def test_where_nothing_says_where_it_is_said_what_was_answered(name):
    made = module(CASES[name], weight=nn.Parameter(torch.empty(N, N, device="meta")))
    stage = annotate_module(made, torch.empty(N, N, device="meta"))
    assert stage.cost.matmul_flops == 2 * 2 * N**3
    assert stage.assumptions == ("its tensors are on meta: code that asks where they are is told cpu",)
    assert not annotate_module(made, torch.empty(N, N)).assumptions  # the input says it


def test_a_device_that_is_only_passed_on_is_nothing_to_say():
    made = module(lambda self, x: x @ torch.ones(N, N, device=x.device))
    assert annotate_module(made, torch.empty(N, N, device="meta")).assumptions == ()


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (lambda self, x: "gpu" if x.is_cuda else "other", "gpu"),
        (lambda self, x: str(x.device), "cuda:1"),
        (lambda self, x: x.get_device(), 1),
        (lambda self, x: x.type(), "torch.cuda.FloatTensor"),
        (lambda self, x: x.cuda() is x and x.to("cuda") is x and x.to("cuda:1") is x, True),
        (lambda self, x: torch.ones(2, device="cuda").is_cuda and torch.ones(2, device="cuda:1").is_cuda, True),
        (lambda self, x: torch.arange(8).device, CPU),
        (lambda self, x: torch.arange(8).to(x.device).is_cuda, True),
        (lambda self, x: torch.arange(8).to(x).dtype, torch.float32),
        (lambda self, x: [torch.ones(2, device=d).device.type for d in (x.device, "cpu")], ["cuda", "cpu"]),
    ],
)
def test_tensors_of_a_gpu_are_on_it(forward, expected):
    made = module(forward)
    with devices_answered(made, Home(torch.device("cuda:1"))) as said:
        assert made(torch.empty(N, N, device="meta")) == expected
    assert not said


def address(self, x):
    return x @ x if x.data_ptr() % 16 else x


def storage_address(self, x):
    return x @ x if x.untyped_storage().data_ptr() else x


@pytest.mark.parametrize("forward", [address, storage_address])
def test_an_address_is_refused_by_module_and_line(forward):
    line = forward.__code__.co_firstlineno + 1
    expected = rf"asks for the address of a tensor \(data_ptr\).* \(1, test_device_branches.py, line {line}\)"
    with pytest.raises(TraceError, match=expected):
        annotate_module(nn.Sequential(nn.Linear(N, N), module(forward)), torch.randn(N, N))
    assert "data_ptr" not in vars(torch.UntypedStorage)


def test_a_decoder_with_a_part_of_the_user_s_takes_the_branch_of_where_it_is():
    model = real_model(LLAMA)
    for layer in model.model.layers:
        layer.mlp.act_fn = module(lambda self, x: x @ x.mT @ x if x.is_cpu and not x.is_meta else x)
    stage = annotate(model, prefill(N), attention="eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, N, dtype=torch.long), use_cache=False)
    assert stage.cost.matmul_flops == counter.get_total_flops()
