"""Code that is not clean about devices works on meta as it does on the CPU; where it cannot, the message says where."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fxmeter import annotate_module
from fxmeter.models.errors import TraceError
from fxmeter.tracer.operators.devices import LARGEST_BYTES

N = 6


def module(forward, **parts):
    made = type("Made", (nn.Module,), {"forward": forward})()
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def mask():
    return torch.ones(N, N, dtype=torch.bool).tril()


def written(self, x):
    table = torch.zeros(N, N)
    table[0] = x[0]
    table[:, 1] = 2.0
    return x @ table


def chosen(self, x):
    return x[torch.tensor([0, 2, 5])] @ x.T


def counted(self, x):
    keep = torch.arange(N) < 4
    return x[keep] @ x.T


def nested(self, x):
    for layer in self.parts["layers"]:
        x = layer(x)
    return x + self.holder.table[0]


class Holder:
    """A plain object with a tensor and a module in it."""

    def __init__(self):
        self.table, self.layer = torch.randn(N, N), nn.Linear(N, N)


CASES = {
    "positions without a device": lambda: module(lambda self, x: x @ x + torch.arange(N)),
    "a mask in a plain attribute": lambda: module(lambda self, x: (x @ x).masked_fill(~self.mask, -1.0), mask=mask()),
    "a mask in a dictionary": lambda: module(lambda self, x: torch.where(self.m["a"], x @ x, x), m={"a": mask()}),
    "a product with an unregistered matrix": lambda: module(lambda self, x: self.w @ x, w=torch.randn(3, N)),
    "a table that is made and written": lambda: module(written),
    "a table looked up": lambda: module(lambda self, x: torch.randn(9, N)[x.argmax(-1)] @ x),
    "a concatenation": lambda: module(lambda self, x: torch.cat([x, torch.zeros(2, N)]) @ x),
    "modules in a plain list": lambda: module(
        lambda self, x: self.layers[1](self.layers[0](x)), layers=[nn.Linear(N, 4), nn.Linear(4, N)]
    ),
    "modules and tensors in other objects": lambda: module(
        nested, parts={"layers": (nn.Linear(N, N), nn.Linear(N, N))}, holder=Holder()
    ),
    "positions that are listed": lambda: module(chosen),
    "rows that a mask of the code's own keeps": lambda: module(counted),
    "a copy to the CPU": lambda: module(lambda self, x: x.cpu() @ x),
    "an explicit CPU": lambda: module(lambda self, x: x @ torch.ones(N, N, device="cpu")),
    "a scalar tensor": lambda: module(lambda self, x: x @ x * torch.tensor(0.5)),
    "a list of sizes": lambda: module(
        lambda self, x: sum((part @ part.T).sum() for part in x.split(self.sizes.tolist())), sizes=torch.tensor([2, 4])
    ),
    "a registered list of sizes": lambda: with_buffer(
        lambda self, x: sum((part @ part.T).sum() for part in x.split(self.sizes.tolist())), torch.tensor([1, 5])
    ),
}


def with_buffer(forward, sizes):
    made = module(forward)
    made.register_buffer("sizes", sizes)
    return made


@pytest.mark.parametrize("name", CASES)
def test_it_costs_what_a_real_run_counts(name):
    made, x = CASES[name](), torch.randn(N, N)
    stage = annotate_module(made, x)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        made(x)
    assert stage.cost.matmul_flops == counter.get_total_flops() > 0
    assert all(not tensor.is_meta for tensor in vars(made).values() if isinstance(tensor, torch.Tensor))


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: x.cuda() @ torch.ones(N, N, device="cuda"),
        lambda self, x: x.to("cuda:0") @ torch.arange(N * N, device=torch.device("cuda")).reshape(N, N).float(),
        lambda self, x: x.cpu().to("mps") @ x,
    ],
    ids=["cuda", "to cuda", "mps"],
)
def test_a_device_that_is_not_there_is_taken_to_be(forward):
    assert annotate_module(module(forward), torch.randn(N, N)).cost.matmul_flops == 2 * N * N * N


def test_what_code_makes_large_is_never_filled():
    length = 1 << 20

    def forward(self, x):
        positions = torch.arange(length)
        visible = positions[None, :] <= positions[:, None]
        return x.masked_fill(visible[0], 0.0)

    assert length * length > LARGEST_BYTES
    stage = annotate_module(module(forward), torch.empty(2, length, device="meta"))
    assert stage.cost.activation_bytes > length * length


def test_a_user_s_tensors_are_as_they_were():
    table, listed = torch.zeros(N, N), torch.arange(N)

    def forward(self, x, rows):
        self.table[0] = 1.0
        rows.add_(1)
        return self.table[: int(rows[2])] @ x

    stage = annotate_module(module(forward, table=table), torch.randn(N, N), listed)
    assert stage.cost.matmul_flops == 2 * 3 * N * N
    assert not table.any()
    assert torch.equal(listed, torch.arange(N))


class Deep(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.layers = nn.ModuleList([nn.Identity(), module(forward)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def asks_about_weights(self, x):
    return x[: int(x.sum())]


def makes_numpy(self, x):
    return torch.from_numpy((x * 2).numpy())


def does_not_fit(self, x):
    return x @ torch.ones(N + 1, 2)


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (asks_about_weights, r"aten._local_scalar_dense.default in layers.1"),
        (makes_numpy, r"numpy.* \(layers.1"),
        (does_not_fit, r"aten.mm.default in layers.1"),
    ],
)
def test_a_failure_names_the_op_the_module_and_the_line(forward, expected):
    line = forward.__code__.co_firstlineno + 1
    first = nn.Sequential(nn.Linear(N, N), Deep(forward))
    with pytest.raises(TraceError, match=expected.replace("layers", "1.layers") + rf".*test_devices.py, line {line}\)"):
        annotate_module(first, torch.randn(N, N))
