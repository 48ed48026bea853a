"""Ops that models seldom run: what each costs, by hand, and ops that are others in one call."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fxmeter.annotators.rules.cost import Flops
from tests.annotators.rules.test_rules import meta, priced

aten = torch.ops.aten
X = 4, 5, 6


def gradient(function):
    """Of the sum of what ``function`` returns, for its first argument."""

    def call(x, *rest):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(function(x, *rest).sum(), x)

    return call


def table(x):
    return torch.zeros(9, 6).index_put_((torch.tensor([1, 2]),), torch.ones(2, 6), accumulate=True) @ x[0].T


CASES = {
    "matrix_exp": (torch.matrix_exp, [(3, 4, 4)], Flops(5 * 2 * 3 * 4**3, 53 * 3 * 4 * 4)),
    "fake_quantize": (lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -8, 7), [X], Flops(0, 7 * 120)),
    "fake_quantize by channel": (
        lambda x: torch.fake_quantize_per_channel_affine(x, torch.ones(6), torch.zeros(6, dtype=torch.int32), 2, -8, 7),
        [X],
        Flops(0, 7 * 120),
    ),
    "fake_quantize, its gradient": (
        gradient(lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -8, 7)),
        [X],
        Flops(0, (7 + 1 + 1) * 120),  # forward, the sum, the product with the mask
    ),
    "put_": (lambda x: x.put_(torch.tensor([1, 2]), torch.ones(2), accumulate=True), [X], Flops(0, 2)),
    "index_put_": (table, [X], Flops(2 * 9 * 6 * 5, 2 * 6)),
    "_index_put_impl_": (
        lambda x: aten._index_put_impl_(x, [torch.tensor([1, 2])], torch.ones(2, 5, 6), True),
        [X],
        Flops(0, 2 * 5 * 6),
    ),
    "embedding with max_norm": (
        lambda x, i: F.embedding(i, x, max_norm=1.0),
        [(9, 6), [3, 4]],
        Flops(0, 3 * 2 * 6),
    ),
    "mvlgamma": (lambda x: torch.mvlgamma(x + 9, 3), [X], Flops(0, (1 + 10) * 120)),
    "frexp": (torch.frexp, [X], Flops(0, 120)),
    "histogram": (lambda x: torch.histogram(x, 7)[0] * 2, [X], Flops(0, 120 + 7)),
    "histogramdd": (lambda x: torch.histogramdd(x, [3, 2])[0], [(8, 2)], Flops(0, (2 + 1) * 16)),
    "conv_tbc": (lambda x: torch.conv_tbc(x, torch.ones(2, 6, 3), torch.ones(3)), [X], Flops(2 * 45 * 2 * 6, 45)),
    "multilabel_margin_loss": (
        lambda x, y: F.multilabel_margin_loss(x, y.expand(5, 6)),
        [(5, 6), [0, 1, 2, 3, 4, 5]],
        Flops(0, 4 * 5 * 6 * 6 + 5),
    ),
    "multi_margin_loss of one": (
        lambda x, y: F.multi_margin_loss(x, y[0]),
        [(6,), [2]],
        Flops(0, 4 * 6 + 2 + 1),
    ),
    "tensor_split": (lambda x, at: x.tensor_split(at)[1] @ x[0].T, [X, [1, 3]], Flops(2 * 2 * 5 * 6 * 5, 0)),
    "allclose": (lambda x, y: x * 2 if torch.allclose(y, y) else x, [X, [1, 3]], Flops(0, 120)),
}


@pytest.mark.parametrize("name", CASES)
def test_it_costs_what_is_counted_by_hand(name):
    function, shapes, expected = CASES[name]
    tensors = [torch.tensor(s) if isinstance(s, list) else torch.zeros(s) for s in shapes]
    function(*(tensor.clone() for tensor in tensors))  # it runs
    stage = priced(function, *tensors)
    assert Flops(stage.cost.matmul_flops, stage.cost.vector_flops) == expected
    assert not stage.uncosted


def test_a_matrix_exponential_says_what_it_takes_for_granted():
    assert any("squared" in text for text in priced(torch.matrix_exp, meta(4, 4)).assumptions)


T, B, C = 12, 3, 7
LENGTHS = [12, 11, 10], [5, 4, 3]
STATES = 12 * (2 * 5 + 1) + 11 * (2 * 4 + 1) + 10 * (2 * 3 + 1)


@pytest.mark.parametrize("lengths", [LENGTHS, list(map(torch.tensor, LENGTHS))], ids=["lists", "tensors"])
def test_ctc_loss_costs_its_recursion(lengths):
    def loss(x, labels, *given):
        return F.ctc_loss(x, labels, *(given or lengths), reduction="sum")

    x, labels = torch.zeros(T, B, C), torch.ones(B, 5, dtype=torch.long)
    given = lengths if isinstance(lengths[0], torch.Tensor) else ()
    forward, backward = (priced(f, x, labels, *given) for f in (loss, gradient(loss)))
    assert forward.cost.vector_flops == 13 * STATES + B  # and the sum of three losses
    assert backward.cost.vector_flops - forward.cost.vector_flops == 21 * STATES + 6 * T * B * C + 1  # its own sum
    assert not backward.uncosted


PAIRS = [
    (lambda x: torch._foreach_add([x, x], [x, x]), lambda x: [x + x, x + x]),
    (lambda x: torch._foreach_mul([x, x], 2.0), lambda x: [x * 2.0, x * 2.0]),
    (lambda x: torch._foreach_div([x, x], [2.0, 3.0]), lambda x: [x / 2.0, x / 3.0]),
    (lambda x: torch._foreach_sqrt([x]), lambda x: [x.sqrt()]),
    (lambda x: torch._foreach_pow(2.0, [x, x]), lambda x: [2.0**x, 2.0**x]),
    (lambda x: torch._foreach_maximum([x], 2.0), lambda x: [x.clamp_min(2.0)]),
    (lambda x: torch._foreach_norm([x, x]), lambda x: [torch.linalg.vector_norm(x) for _ in range(2)]),
    (lambda x: torch._foreach_lerp([x], [x], 0.5), lambda x: [x.lerp(x, 0.5)]),
    (lambda x: torch._foreach_addcdiv([x], [x], [x], [2.0]), lambda x: [x.addcdiv(x, x, value=2.0)]),
    (lambda x: torch._foreach_addcmul([x], [x], [x], torch.ones(1)), lambda x: [torch.ones(1), x.addcmul(x, x)][1:]),
    (lambda x: torch._foreach_zero_([x]), lambda x: [x.zero_()][1:]),
    (lambda x: torch._foreach_add_([x, x], x.new_ones(())), lambda x: [x.add_(one) for one in [x.new_ones(())] * 2]),
    (lambda x: torch.ops.prims.mul(x, x), lambda x: x * x),
    (lambda x: torch.ops.prims.sum(x, [0]), lambda x: x.sum([0])),
    (lambda x: torch.ops.prims.convert_element_type(x, torch.float64), lambda x: x.to(torch.float64)),
]


@pytest.mark.parametrize("pair", PAIRS)
def test_an_op_that_is_others_costs_what_they_cost(pair):
    together, alone = (priced(function, torch.ones(X)) for function in pair)
    assert together.cost.vector_flops == alone.cost.vector_flops
    assert together.cost.activation_write_bytes == alone.cost.activation_write_bytes
    assert not together.uncosted


@torch.library.custom_op("fxmeter_tests::twice", mutates_args=())
def twice(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a @ b) @ b


@twice.register_fake
def _(a, b):
    return a @ b


@torch.library.custom_op("fxmeter_tests::hidden", mutates_args=())
def hidden(a: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(a.numpy() * 2)


@hidden.register_fake
def _(a):
    return torch.empty_like(a)


def test_a_custom_op_that_is_written_in_torch_is_recorded_by_its_body():
    stage = priced(lambda x: twice(x, x), torch.ones(4, 4))
    assert stage.cost.matmul_flops == 2 * 2 * 4**3
    assert not stage.uncosted


def test_one_that_is_not_is_listed_as_unknown():
    assert [one.op for one in priced(lambda x: hidden(x), torch.ones(4, 4)).uncosted] == [
        "fxmeter_tests.hidden.default"
    ]
