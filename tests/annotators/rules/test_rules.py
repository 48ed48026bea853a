"""Rules on their own: torch's published unit cases, relations between ops, traffic op by op."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fxmeter.annotators import annotate_module
from fxmeter.annotators.rules.cost import Flops
from fxmeter.annotators.rules.matrix.attention import attended_pairs
from fxmeter.annotators.rules.registry import free, rule, rule_for, rules
from fxmeter.models import RuleError
from fxmeter.tracer.graph.spec import Spec

aten = torch.ops.aten
BF16, FP8, INT8, INT32 = torch.bfloat16, torch.float8_e4m3fn, torch.int8, torch.int32


def priced(function, *tensors, **options):
    """The cost of a function of tensors, and its stage."""

    class Call(nn.Module):
        def forward(self, *args):
            return function(*args)

    return annotate_module(Call(), *tensors, **options)


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


@pytest.mark.parametrize(("s_kv", "flops"), [(128, 134_217_728), (256, 268_435_456)])
@pytest.mark.parametrize("attention", ["eager", "flash"])
def test_torchs_unit_cases_for_an_attention_core(s_kv, flops, attention):
    q, k = meta(4, 8, 128, 64), meta(4, 8, s_kv, 64)
    cost = priced(F.scaled_dot_product_attention, q, k, k, attention=attention).cost
    assert cost.matmul_flops == flops == 2 * 2 * 4 * 8 * 128 * s_kv * 64


def test_flash_reads_q_k_v_and_writes_the_output_alone():
    q, k, v = meta(2, 8, 16, 64), meta(2, 2, 48, 64), meta(2, 2, 48, 32)
    from fxmeter.tracer.operators.ops import flash_attention

    stage = priced(lambda q, k, v: flash_attention(q, k, v, None, None, 1.0, True, None, None), q, k, v)
    assert stage.cost.matmul_flops == 2 * 2 * 8 * 16 * 48 * (64 + 32)
    assert stage.cost.vector_flops == 6 * 2 * 8 * 16 * 48
    assert stage.cost.activation_read_bytes == 4 * (2 * 8 * 16 * 64 + 2 * 2 * 48 * 64 + 2 * 2 * 48 * 32)
    assert stage.cost.activation_write_bytes == 4 * 2 * 16 * 8 * 32 == stage.cost.activation_bytes


Q_BHSD = meta(2, 4, 6, 8, dtype=BF16), meta(2, 4, 10, 8, dtype=BF16), meta(2, 4, 10, 8, dtype=BF16)
Q_BSHD = meta(2, 6, 4, 8, dtype=BF16), meta(2, 10, 4, 8, dtype=BF16), meta(2, 10, 4, 8, dtype=BF16)


@pytest.mark.parametrize(
    ("call", "exact"),
    [
        (lambda *qkv: aten._scaled_dot_product_efficient_attention(*qkv, None, True, 0.0, True), 6 * 7 // 2),
        (lambda *qkv: aten._scaled_dot_product_flash_attention(*(x[:, :, :6] for x in qkv), 0.0, True), 6 * 7 // 2),
        (lambda q, k, v: aten._scaled_dot_product_efficient_attention(k, q, q, None, True, 0.0, True), 21 + 4 * 6),
    ],
)
def test_torchs_kernels_see_the_keys_up_to_their_own_position(call, exact):
    cost = priced(call, *Q_BHSD, causal="exact").cost
    assert cost.matmul_flops == 2 * 2 * 4 * exact * (8 + 8)
    assert cost.vector_flops == 6 * 2 * 4 * exact


def test_the_flash_kernel_itself_takes_heads_behind_positions_and_windows():
    def call(q, k, v):
        return aten._flash_attention_forward(q, k, v, None, None, 6, 10, 0.0, True, False, window_size_left=2)

    full, exact = (priced(call, *Q_BSHD, causal=causal).cost.matmul_flops for causal in ("full", "exact"))
    assert (full, exact) == (2 * 2 * 4 * 6 * 10 * (8 + 8), 2 * 2 * 4 * 6 * 3 * (8 + 8))


def test_a_flash_core_with_its_gradient_costs_seven_halves_of_it():
    def both(q, k, v):
        out, lse, *_ = aten._scaled_dot_product_flash_attention(q, k, v)
        seed = torch.empty((), dtype=torch.int64, device="meta")
        aten._scaled_dot_product_flash_attention_backward(
            out, q, k, v, out, lse, None, None, 6, 10, 0.0, False, seed, seed
        )

    assert priced(both, *Q_BHSD).cost.matmul_flops == 7 * (2 * 2 * 4 * 6 * 10 * (8 + 8)) // 2


@pytest.mark.parametrize("s_q", [1, 2, 5, 9])
@pytest.mark.parametrize("s_kv", [9, 12])
@pytest.mark.parametrize("window", [None, 1, 3, 9, 20])
@pytest.mark.parametrize("causal", [True, False])
def test_attended_pairs_equal_a_mask_counted_by_hand(s_q, s_kv, window, causal):
    pairs = sum(
        1
        for i in range(s_q)
        for j in range(s_kv)
        if (not causal or j <= s_kv - s_q + i) and (window is None or not causal or s_kv - s_q + i - j < window)
    )
    if causal or window is None:
        assert attended_pairs(s_q, s_kv, causal=causal, window=window) == pairs


def scaled(a, b, scale_a, scale_b):
    return aten._scaled_mm(a, b.t(), scale_a, scale_b, out_dtype=BF16)


def grouped(a, b, ends):
    return aten._grouped_mm(a, b, ends)


def conv_backward(grad, x, w, groups):
    return aten.convolution_backward(grad, x, w, [8], [1], [0], [1], False, [0], groups, [True] * 3)


PRODUCTS = [
    (torch.mm, (meta(3, 4), meta(4, 5)), 2 * 3 * 4 * 5, 0),
    (torch.addmm, (meta(5), meta(3, 4), meta(4, 5)), 2 * 3 * 4 * 5, 3 * 5),
    (torch.bmm, (meta(2, 3, 4), meta(2, 4, 5)), 2 * 2 * 3 * 4 * 5, 0),
    (torch.baddbmm, (meta(2, 3, 5), meta(2, 3, 4), meta(2, 4, 5)), 2 * 2 * 3 * 4 * 5, 2 * 2 * 3 * 5),
    (torch.mv, (meta(3, 4), meta(4)), 2 * 3 * 4, 0),
    (torch.dot, (meta(4), meta(4)), 2 * 4, 0),
    (F.linear, (meta(2, 3, 4), meta(5, 4), meta(5)), 2 * 6 * 4 * 5, 6 * 5),
    (F.conv2d, (meta(2, 3, 8, 8), meta(5, 3, 3, 3), meta(5)), 2 * 2 * 5 * 6 * 6 * 3 * 9, 2 * 5 * 6 * 6),
    (torch.addbmm, (meta(3, 5), meta(2, 3, 4), meta(2, 4, 5)), 2 * 2 * 3 * 4 * 5, 3 * 5),
    (torch.addmv, (meta(3), meta(3, 4), meta(4)), 2 * 3 * 4, 3),
    (torch._int_mm, (meta(32, 16, dtype=INT8), meta(16, 24, dtype=INT8)), 2 * 32 * 16 * 24, 0),
    (scaled, (meta(16, 32, dtype=FP8), meta(48, 32, dtype=FP8), meta(1), meta(1)), 2 * 16 * 32 * 48, 16 * 48),
    (scaled, (meta(16, 32, dtype=FP8), meta(48, 32, dtype=FP8), meta(16, 1), meta(1, 48)), 2 * 16 * 32 * 48, 2 * 768),
    (grouped, (meta(6, 8, dtype=BF16), meta(3, 8, 16, dtype=BF16), meta(3, dtype=INT32)), 2 * 6 * 8 * 16, 0),
    (grouped, (meta(3, 16, 8, dtype=BF16), meta(8, 24, dtype=BF16), meta(3, dtype=INT32)), 2 * 16 * 8 * 24, 0),
    (grouped, (meta(16, 8, dtype=BF16), meta(8, 24, dtype=BF16), meta(3, dtype=INT32)), 2 * 16 * 8 * 24, 0),
    (lambda x, w: F.conv1d(x, w, groups=4, padding=3), (meta(2, 4, 8), meta(4, 1, 4)), 2 * 2 * 4 * 11 * 4, 0),
    (lambda g, x, w: conv_backward(g, x, w, 4), (meta(2, 8, 5), meta(2, 4, 8), meta(8, 1, 4)), 2 * 2 * 80 * 4, 80),
    (F.conv_transpose2d, (meta(1, 3, 4, 4), meta(3, 5, 2, 2)), 2 * 16 * 3 * 5 * 4, 0),
]


@pytest.mark.parametrize(("function", "tensors", "matmul", "vector"), PRODUCTS)
def test_products(function, tensors, matmul, vector):
    cost = priced(function, *tensors).cost
    assert (cost.matmul_flops, cost.vector_flops) == (matmul, vector)


def test_a_kernel_that_does_not_run_on_shapes_alone_is_priced_from_them():
    out, x, w = (Spec(shape, BF16, (0, 0, 0), 0, None) for shape in [(2, 6, 5), (2, 4, 8), (6, 2, 4)])
    assert rule_for(aten.cudnn_convolution.default).flops(
        {"self": x, "weight": w, "out": out}
    ) == Flops(matmul=2 * 2 * 6 * 5 * 2 * 4)  # fmt: skip


VECTOR = [
    (torch.add, (meta(3, 4), meta(4)), 12),
    (torch.mul, (meta(3, 4), meta(3, 4)), 12),
    (torch.add, (meta(3, 4, dtype=torch.int64), meta(4, dtype=torch.int64)), 0),
    (torch.le, (meta(3), meta(3)), 3),
    (torch.le, (meta(3, dtype=torch.int64), meta(3, dtype=torch.int64)), 0),
    (torch.rsqrt, (meta(7),), 7),
    (F.silu, (meta(7),), 5 * 7),
    (torch.sigmoid, (meta(7),), 4 * 7),
    (F.gelu, (meta(7),), 5 * 7),
    (lambda x: F.gelu(x, approximate="tanh"), (meta(7),), 9 * 7),
    (lambda x: x.softmax(-1), (meta(3, 4),), 5 * 12),
    (lambda x: x.mean(-1), (meta(3, 4),), 12 + 3),
    (lambda x: x.sum(-1), (meta(3, 4),), 12),
    (lambda x: F.layer_norm(x, (4,), torch.empty(4, device="meta"), torch.empty(4, device="meta")), (meta(3, 4),), 96),
    (lambda x: x.topk(2), (meta(3, 4),), 12),
    (lambda a, b: a * b, (meta(3, dtype=torch.complex64), meta(3, dtype=torch.complex64)), 6 * 3),
    (lambda a: a * 0.5, (meta(3, dtype=torch.complex64),), 2 * 3),
    (lambda a, b: a + b, (meta(3, dtype=torch.complex64), meta(3, dtype=torch.complex64)), 2 * 3),
    (lambda x: x.to(torch.bfloat16), (meta(7),), 0),
    (lambda x: F.interpolate(x, size=6, mode="linear"), (meta(1, 2, 4),), 3 * 2 * 6),
    (lambda x: F.interpolate(x, size=(6, 6), mode="bilinear"), (meta(1, 2, 4, 4),), 7 * 2 * 36),
    (lambda x: F.interpolate(x, size=(6, 6), mode="bicubic"), (meta(1, 2, 4, 4),), 31 * 2 * 36),
    (lambda x: F.interpolate(x, size=(4, 4), mode="bicubic", antialias=True), (meta(1, 2, 8, 8),), 15 * 2 * (32 + 16)),
]


@pytest.mark.parametrize(("function", "tensors", "flops"), VECTOR)
def test_vector_flops(function, tensors, flops):
    cost = priced(function, *tensors).cost
    assert (cost.matmul_flops, cost.vector_flops) == (0, flops)


TRAFFIC = [
    # function, tensors, bytes read, bytes written, bytes made
    (lambda x: x.view(-1).t(), (meta(3, 4),), 0, 0, 0),
    (lambda x: x[1:, :2].transpose(0, 1), (meta(3, 4),), 0, 0, 0),
    (lambda x: x + 1, (meta(3, 4),), 48, 48, 48),
    (lambda x: x * x, (meta(3, 4),), 48, 48, 48),
    (lambda x: x.add_(1), (meta(3, 4),), 48, 48, 0),
    (lambda x, y: x.add_(y), (meta(3, 4), meta(4)), 48 + 16, 48, 0),
    (lambda x, y: x.copy_(y), (meta(3, 4), meta(3, 4)), 48, 48, 0),
    (lambda x: x.zero_(), (meta(3, 4),), 0, 48, 0),
    (lambda x: x.expand(5, 3, 4) + 1, (meta(3, 4),), 48, 5 * 48, 5 * 48),
    (lambda x: x.expand(5, 3, 4).clone(), (meta(3, 4),), 48, 5 * 48, 5 * 48),
    (lambda x: torch.cat([x, x]), (meta(3, 4),), 48, 96, 96),
    (torch.empty_like, (meta(3, 4),), 0, 0, 48),
    (torch.zeros_like, (meta(3, 4),), 0, 48, 48),
    (lambda x, i: x[i], (meta(1000, 4), meta(5, dtype=torch.int64)), 5 * 16 + 40, 5 * 16, 5 * 16),
    (lambda x, i: x.gather(0, i), (meta(1000, 4), meta(5, 4, dtype=torch.int64)), 80 + 160, 80, 80),
    (lambda x, i: x.index_select(0, i), (meta(1000, 4), meta(5, dtype=torch.int64)), 80 + 40, 80, 80),
    (lambda w, i: F.embedding(i, w), (meta(1000, 4), meta(2, 5, dtype=torch.int64)), 160 + 80, 160, 160),
    (lambda x, i: x.scatter_(0, i, 1.0), (meta(1000, 4), meta(5, 4, dtype=torch.int64)), 160, 80, 0),
    (lambda x, i, v: x.index_put_((i,), v), (meta(1000, 4), meta(5, dtype=torch.int64), meta(5, 4)), 40 + 80, 80, 0),
    (lambda x: x.topk(2), (meta(3, 4),), 48, 3 * 2 * (4 + 8), 3 * 2 * (4 + 8)),
    (lambda x: x.to(torch.bfloat16), (meta(3, 4),), 48, 24, 24),
    (lambda x, y: torch.add(x, 1, out=y), (meta(3, 4), meta(3, 4)), 48, 48, 0),
    (lambda x, v, i: torch.topk(x, 2, out=(v, i)), (meta(3, 4), meta(3, 2), meta(3, 2, dtype=torch.int64)), 48, 72, 0),
    (
        lambda x, i, y: torch.index_select(x, 0, i, out=y),
        (meta(1000, 4), meta(5, dtype=torch.int64), meta(5, 4)),
        80 + 40,
        80,
        0,
    ),
]


@pytest.mark.parametrize(("function", "tensors", "read", "written", "made"), TRAFFIC)
def test_traffic(function, tensors, read, written, made):
    cost = priced(function, *tensors).cost
    got = (cost.activation_read_bytes, cost.activation_write_bytes, cost.activation_bytes)
    assert got == (read, written, made)
    assert cost.io_bytes == read + written


@pytest.mark.parametrize(
    ("gather", "picked"),
    [
        (lambda table, i: F.embedding(i, table), (3,)),
        (lambda table, i: F.embedding(i, table), (50, 4)),
        (lambda table, i: table[i], (3,)),
        (lambda table, i: table[i], (50,)),
        (lambda table, i: table.index_select(0, i), (50,)),
        (lambda table, i: table.gather(0, i[:, None].expand(-1, 6)), (50,)),
    ],
)
def test_a_gather_reads_at_most_the_weights_that_there_are(gather, picked):
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.empty(10, 6, device="meta"))

        def forward(self, i):
            return gather(self.table, i)

    cost = annotate_module(Table(), meta(*picked, dtype=torch.int64)).cost
    assert cost.weight_read_bytes == min(math.prod(picked), 10) * 6 * 4
    assert cost.activation_write_bytes == math.prod(picked) * 6 * 4


def test_a_second_rule_for_an_op_is_refused():
    with pytest.raises(RuleError, match=r"aten.mm.default has a rule already: out\[M, N\]"):
        free({aten.mm.default: "no"})


def test_a_rule_whose_parameters_are_not_the_ops_is_refused():
    with pytest.raises(RuleError, match="takes matrix"):

        @rule(aten._linalg_det.default)
        def det(matrix, *, out):
            """det"""


def test_a_rule_without_an_equation_is_refused():
    with pytest.raises(RuleError, match="no equation"):

        @rule(aten._linalg_det.default)
        def det(*, out):
            pass


def test_every_rule_says_what_it_counts():
    assert len(rules()) > 200
    assert all(item.equation for item in rules())


def test_a_rule_can_say_nothing_that_would_be_dropped():
    with pytest.raises(TypeError, match="weight_read_bytes"):
        Flops(matmul=1, weight_read_bytes=2)


FUSES = {
    "pointwise": [aten.add.Tensor, aten.silu.default, aten.where.self, aten.cat.default, aten.zeros.default],
    "reduction": [aten.sum.dim_IntList, aten._softmax.default, aten.native_layer_norm.default, aten.any.default],
    "gather": [aten.embedding.default, aten.index.Tensor],
    "scatter": [aten.index_put_.default, aten.slice_scatter.default],
    "alone": [aten.mm.default, aten.convolution.default, aten.topk.default, aten.cumsum.default, aten.nonzero.default],
}


@pytest.mark.parametrize("fuses", FUSES)
def test_how_an_op_fuses_stands_beside_its_price(fuses):
    assert {rule_for(op).fuses for op in FUSES[fuses]} == {fuses}


def test_every_op_that_torch_calls_a_reduction_is_one():
    tagged = [item for item in rules() if torch.Tag.reduction in item.op.tags]
    assert len(tagged) > 20
    assert {item.fuses for item in tagged} == {"reduction"}


def test_an_op_that_says_nothing_is_a_kernel_of_its_own(monkeypatch):
    monkeypatch.setattr("fxmeter.annotators.rules.registry._RULES", {})
    free({aten._linalg_det.default: "a test"})
    assert rule_for(aten._linalg_det.default).fuses == "alone"
