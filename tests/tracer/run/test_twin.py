"""The copy on meta: ties kept, values at hand, and a clear word where a module or an input cannot be copied."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.ao.nn import quantized

from fxmeter import annotate_module
from fxmeter.models.errors import FxmeterError, TraceError
from fxmeter.tracer.run.twin import on_meta


class Wrapped(torch.Tensor):
    """A subclass with ops of its own, as quantisation libraries have them."""

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return args[0]

    @staticmethod
    def make():
        return torch.Tensor._make_wrapper_subclass(Wrapped, (8, 8))


def lin(width=8):
    return nn.Linear(width, width)


def with_parameter(parameter):
    module = lin()
    module.weight = nn.Parameter(parameter, requires_grad=False)
    return module


X = torch.randn(4, 8)
FILE = (Path(__file__).parent / "__init__.py").open()


def dense():
    return X


def ragged():
    return torch.nested.nested_tensor([torch.randn(3, 8), torch.randn(5, 8)])


def in_eight_bits():
    return torch.quantize_per_tensor(X, 0.1, 0, torch.qint8)


REFUSED = {
    "a script": (lambda: torch.jit.script(nn.Sequential(lin())), dense, "TorchScript"),
    "a script inside": (lambda: nn.Sequential(lin(), torch.jit.script(nn.ReLU())), dense, "^1 is TorchScript"),
    "a sparse input": (lin, lambda: torch.eye(8).to_sparse(), "an input is a sparse_coo tensor"),
    "a compressed input": (lin, lambda: torch.eye(8).to_sparse_csr(), "an input is a sparse_csr tensor"),
    "a nested input": (lin, ragged, "an input is a nested"),
    "a quantised input": (lin, in_eight_bits, "an input is a quantised tensor"),
    "a quantised weight": (lambda: with_parameter(Wrapped.make()), dense, "^weight is a Wrapped"),
    "a sparse weight": (lambda: with_parameter(torch.eye(8).to_sparse_csr()), dense, "^weight is a sparse_csr"),
    "a quantised module": (lambda: nn.Sequential(quantized.Linear(8, 8)), dense, "^0 is a quantised Linear, .*deploy"),
    "a lazy module": (lambda: nn.LazyLinear(8), dense, "lazy module"),
    "no module": (lambda: "llama-3.1-8b", dense, "annotate_module prices an nn.Module, not 'llama-3.1-8b'"),
    "a class of modules": (lambda: nn.Linear, dense, "annotate_module prices an nn.Module"),
}


@pytest.mark.filterwarnings("ignore")  # torch's own, about nested, sparse and scripted things
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_shape_on_meta_is_refused_in_one_line(name):
    make, x, message = REFUSED[name]
    with pytest.raises(TraceError, match=message) as caught:
        annotate_module(make(), x())
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_module_of_torch_s_is_one_line_too():
    with pytest.raises(FxmeterError) as caught:
        annotate_module(quantized.Linear(8, 8), torch.quantize_per_tensor(X, 0.1, 0, torch.quint8))
    assert "\n" not in str(caught.value)


class Asks(nn.Module):
    """Does with a product of weights what is handed over."""

    def __init__(self, what):
        super().__init__()
        self.part, self.what = lin(), what

    def forward(self, x):
        return self.what(self.part(x).sum())


@pytest.mark.parametrize(
    ("what", "advice"),
    [
        (lambda total: total.item(), "depends on weights"),
        (lambda total: total.numpy(), "depends on weights"),
        (lambda total: total.backward(), "inside `with torch.enable_grad.*`"),
    ],
)
def test_what_to_do_is_part_of_the_line(what, advice):
    with pytest.raises(TraceError, match=advice + "[^;]*$"):
        annotate_module(Asks(what), X)


def with_attributes(**attributes):
    module = lin()
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


@pytest.mark.parametrize(
    "attributes",
    [
        {"lock": threading.Lock()},
        {"locks": {"a": [threading.RLock()]}},
        {"rows": (n for n in range(3))},
        {"thread": threading.Thread()},
        {"h": torch.nn.Parameter(torch.ones(3)) * 2},
        {"h": {"loss": [torch.nn.Parameter(torch.ones(3)).sum()]}},
        {"file": FILE},
        {"code": threading, "kind": nn.Linear, "call": lambda x: x},
    ],
    ids=lambda attributes: ", ".join(attributes),
)
def test_attributes_that_cannot_be_copied_do_no_harm(attributes):
    module = with_attributes(**attributes)
    assert annotate_module(module, X).cost.matmul_flops == 2 * 4 * 8 * 8
    assert all(vars(module)[name] is value for name, value in attributes.items())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # in what torch.compile imports
def test_a_compiled_module_is_the_one_it_was_made_from():
    module = torch.compile(lin())
    assert annotate_module(module, X).cost == annotate_module(lin(), X).cost


def storages(module):
    return [tensor.untyped_storage()._cdata for tensor in (*module.parameters(), *module.buffers())]


def alike(keys):
    """Which of ``keys`` are equal, as numbers from 0."""
    return [keys.index(key) for key in keys]


def test_ties_and_shared_storages_stay():
    flat = torch.randn(40)
    module = nn.Module()
    module.a = nn.Parameter(flat[:16].view(4, 4))
    module.b = nn.Parameter(flat[16:].view(6, 4))
    module.c = nn.Parameter(torch.randn(4))
    module.d = module.c
    module.register_buffer("e", module.c.data[1:3])
    twin = on_meta(module).module
    assert alike(storages(twin)) == alike(storages(module)) == [0, 0, 2, 2]
    assert twin.d is twin.c
    assert [(p.shape, p.stride(), p.storage_offset()) for p in twin.parameters()] == [
        (p.shape, p.stride(), p.storage_offset()) for p in module.parameters()
    ]
    assert all(p.is_meta for p in twin.parameters())


class Head(nn.Module):
    def __init__(self, tie):
        super().__init__()
        self.embed, self.head = nn.Embedding(10, 8), nn.Linear(8, 10, bias=False)
        tie(self)

    def forward(self, tokens):
        return self.head(self.embed(tokens))


def by_parameter(module):
    module.head.weight = module.embed.weight


def by_storage(module):
    module.head.weight = nn.Parameter(module.embed.weight.data)


def by_a_slice(module):
    module.head = nn.Linear(8, 4, bias=False)
    module.head.weight = nn.Parameter(module.embed.weight.data[3:7])


@pytest.mark.parametrize("tie", [by_parameter, by_storage, by_a_slice])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_weights_over_one_storage_are_resident_once(tie, device):
    with torch.device(device):
        module = Head(tie)
    stage = annotate_module(module, torch.zeros(3, dtype=torch.long))
    assert stage.cost.weight_bytes == 10 * 8 * 4
    assert sum(weight.numel for weight in stage.recording.weights) == 10 * 8
    assert sum(op.cost.weight_bytes for op in stage.ops) == 10 * 8 * 4
    assert sum(m.own.weight_bytes * m.times for m in stage.modules.values()) == 10 * 8 * 4


def test_a_module_with_two_names_is_found_under_both():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
            self.second = self.first

        def forward(self, x):
            return self.second(x)

    stage = annotate_module(Named(), X)
    assert stage.modules["second"].cost is stage.modules["first"].cost
    assert stage.modules["second"].path == "second"
    assert stage.modules["second.0"].cost.matmul_flops == 2 * 4 * 8 * 8
    assert set(stage.modules) == {"", "first", "first.0", "first.1"}
    assert stage.cost.weight_bytes == 4 * (8 * 8 + 8)
    with pytest.raises(KeyError):
        stage.modules["third"]


class Given(nn.Module):
    """Calls what it is given with its input."""

    def forward(self, call, *given):
        return call(*given)


class Context:
    """What a caller hands along, for code to write on."""

    scores = None


def writes(x, context):
    context.scores = x @ x.T
    return context.scores


def test_an_argument_that_code_writes_on_is_a_copy():
    context = Context()
    assert annotate_module(Given(), writes, X, context).cost.matmul_flops == 2 * 4 * 4 * 8
    assert context.scores is None


def unfinished():
    class Unfinished(nn.Module):
        def __init__(self):
            pass

    return Unfinished()


def ends(x):
    return next(iter(()))


def jagged(x):
    return torch.nested.nested_tensor([x[:1], x[1:]], layout=torch.jagged)


NOT_PRICED = {
    "a generator": (Given, (sum, (x for x in [X])), "an input is a generator, which one call uses up: give a list"),
    "an iterator": (Given, (sum, iter([X])), "an input is a list_iterator"),
    "no parts": (unfinished, (X,), r"calls super\(\).__init__\(\) first"),
    "an end of nothing": (Given, (ends, X), r"StopIteration \(test_twin.py, line \d+\)"),
    "a nested tensor on the way": (Given, (jagged, X), "it makes a nested tensor"),
}


@pytest.mark.parametrize("what", NOT_PRICED)
def test_what_cannot_be_priced_is_one_line(what):
    make, given, expected = NOT_PRICED[what]
    with pytest.raises(TraceError, match=expected):
        annotate_module(make(), *given)


def test_fold_is_a_truth_value_or_none():
    with pytest.raises(FxmeterError, match="fold is True, False or None, not 'no'"):
        annotate_module(nn.Linear(8, 8), X, fold="no")
