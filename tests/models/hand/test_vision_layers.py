"""Each operation of a vision transformer against arithmetic done by hand, with sizes that do not repeat."""

import pytest

from fxmeter.models.hand.layer import AttentionCore, Layer, Linear, SiLU, binary, weights
from fxmeter.models.hand.vision_layers import Container, Convolution, LayerNorm
from fxmeter.models.hand.vision_tower import QuickGELU
from fxmeter.models.stage_cost import StageCost


def core(element_bytes: int) -> StageCost:
    sizes = {"num_attention_heads": 3, "qk_head_dim": 7, "v_head_dim": 13, "element_bytes": element_bytes}
    return AttentionCore(**sizes, attention="eager", masked=False).cost(2, 5, 11)


CASES = {
    "linear: 3 rows from 5 to 7, float16": (
        Linear(in_features=5, out_features=7, bias=True).cost(1, 3, 3),
        StageCost(
            matmul_flops=2 * 3 * 5 * 7,
            vector_flops=3 * 7,
            weight_read_bytes=(5 * 7 + 7) * 2,
            activation_read_bytes=3 * 5 * 2,
            activation_write_bytes=3 * 7 * 2,
            activation_bytes=3 * 7 * 2,
            weight_bytes=(5 * 7 + 7) * 2,
        ),
    ),
    "convolution: 2 images, 11 x 11 of 5 channels to 6 x 6 of 7, kernel 3 x 3": (
        Convolution(in_channels=5, out_channels=7, kernel=3, stride=2, element_bytes=4).cost(2, 11 * 11, 11 * 11),
        StageCost(
            matmul_flops=2 * (2 * 6 * 6 * 7) * (3 * 3 * 5),
            weight_read_bytes=7 * 5 * 3 * 3 * 4,
            activation_read_bytes=2 * 11 * 11 * 5 * 4,
            activation_write_bytes=2 * 6 * 6 * 7 * 4,
            activation_bytes=2 * 6 * 6 * 7 * 4,
            weight_bytes=7 * 5 * 3 * 3 * 4,
        ),
    ),
    "layer norm: 3 rows of 5": (
        LayerNorm(hidden_size=5).cost(1, 3, 3),
        StageCost(
            vector_flops=8 * 3 * 5,
            weight_read_bytes=(5 + 5) * 2,
            activation_read_bytes=3 * 5 * 2,
            activation_write_bytes=3 * 5 * 2,
            activation_bytes=3 * 5 * 2,
            weight_bytes=(5 + 5) * 2,
        ),
    ),
    "activation: 7 elements, 5 FLOPs each": (
        SiLU(features=7).cost(1, 1, 1),
        StageCost(
            vector_flops=5 * 7, activation_read_bytes=7 * 2, activation_write_bytes=7 * 2, activation_bytes=7 * 2
        ),
    ),
    "sum or product of two operands": (
        binary(7, 2),
        StageCost(
            vector_flops=7,
            activation_read_bytes=7 * 2 + 7 * 2,
            activation_write_bytes=7 * 2,
            activation_bytes=7 * 2,
        ),
    ),
    "quick GELU: three operations": (
        QuickGELU(features=7).cost(1, 1, 1),
        StageCost(
            vector_flops=7 + 4 * 7 + 7,
            activation_read_bytes=7 * 2 + 7 * 2 + (7 + 7) * 2,
            activation_write_bytes=7 * 2 + 7 * 2 + 7 * 2,
            activation_bytes=7 * 2 + 7 * 2 + 7 * 2,
        ),
    ),
    "core without a mask, float16: 2 x 3 heads, 5 queries of 7, 11 values of 13; softmax casts up and down": (
        core(element_bytes=2),
        StageCost(
            matmul_flops=2 * (2 * 3 * 5 * 11) * 7 + 2 * (2 * 3 * 5 * 11) * 13,
            vector_flops=2 * 3 * 5 * 11 + 5 * (2 * 3 * 5 * 11),
            activation_read_bytes=2 * 3 * 5 * 7 * 2 + 2 * 3 * 5 * 11 * (2 + 2 + 4 + 4 + 2),
            activation_write_bytes=2 * 3 * 5 * 11 * (2 + 2 + 4 + 4 + 2) + 2 * 3 * 5 * 13 * 2,
            activation_bytes=2 * 3 * 5 * 11 * (2 + 2 + 4 + 4 + 2) + 2 * 3 * 5 * 13 * 2,
        ),
    ),
    "core without a mask, float32: no cast": (
        core(element_bytes=4),
        StageCost(
            matmul_flops=2 * (2 * 3 * 5 * 11) * 7 + 2 * (2 * 3 * 5 * 11) * 13,
            vector_flops=2 * 3 * 5 * 11 + 5 * (2 * 3 * 5 * 11),
            activation_read_bytes=2 * 3 * 5 * 7 * 4 + 2 * 3 * 5 * 11 * (4 + 4 + 4),
            activation_write_bytes=2 * 3 * 5 * 11 * (4 + 4 + 4) + 2 * 3 * 5 * 13 * 4,
            activation_bytes=2 * 3 * 5 * 11 * (4 + 4 + 4) + 2 * 3 * 5 * 13 * 4,
        ),
    ),
    "parameter: 7 elements": (weights(7 * 2), StageCost(weight_read_bytes=7 * 2, weight_bytes=7 * 2)),
}


@pytest.mark.parametrize("case", CASES)
def test_an_operation_costs_what_its_equation_says(case: str) -> None:
    priced, by_hand = CASES[case]
    assert priced == by_hand


class Ones(Layer):
    """A layer that costs one FLOP for each token of its own."""

    def own(self, batch: int, query_len: int, kv_len: int) -> StageCost:
        return StageCost(matmul_flops=query_len)


class Halving(Container):
    """A container whose part ``second`` sees half of its tokens."""

    def inside(self, name: str, batch: int, query_len: int, kv_len: int) -> tuple[int, int, int]:
        return (batch, query_len // 2, kv_len) if name == "second" else (batch, query_len, kv_len)


def test_a_layer_has_the_cost_of_every_module_with_everything_below_it() -> None:
    inner = Halving({"first": Ones(), "second": Ones()})
    layer = Container({"inner": inner, "list.0": Ones()})
    assert layer.modules(1, 8, 8) == {
        "": StageCost(matmul_flops=(8 + 4) + 8),
        "inner": StageCost(matmul_flops=8 + 4),
        "inner.first": StageCost(matmul_flops=8),
        "inner.second": StageCost(matmul_flops=4),
        "list.0": StageCost(matmul_flops=8),
    }
    assert layer.cost(1, 8, 8) == StageCost(matmul_flops=(8 + 4) + 8)
