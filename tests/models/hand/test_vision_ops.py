"""Each operation of a vision transformer against arithmetic done by hand, with sizes that do not repeat."""

import pytest

from fxmeter.models.hand.vision_ops import (
    convolution,
    layer_norm,
    leaf,
    linear,
    parameter,
    pointwise,
    product,
    softmax,
    tree,
)
from fxmeter.models.stage_cost import StageCost

CASES = {
    "linear: 3 rows from 5 to 7, float16": (
        linear(3, 5, 7, 2),
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
        convolution(2, 11, 6, 5, 7, 3, 4),
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
        layer_norm(3, 5, 2),
        StageCost(
            vector_flops=8 * 3 * 5,
            weight_read_bytes=(5 + 5) * 2,
            activation_read_bytes=3 * 5 * 2,
            activation_write_bytes=3 * 5 * 2,
            activation_bytes=3 * 5 * 2,
            weight_bytes=(5 + 5) * 2,
        ),
    ),
    "pointwise: one operand": (
        pointwise(5, 7, 2),
        StageCost(
            vector_flops=5 * 7, activation_read_bytes=7 * 2, activation_write_bytes=7 * 2, activation_bytes=7 * 2
        ),
    ),
    "pointwise: two operands": (
        pointwise(1, 7, 2, operands=2),
        StageCost(
            vector_flops=7,
            activation_read_bytes=7 * 2 + 7 * 2,
            activation_write_bytes=7 * 2,
            activation_bytes=7 * 2,
        ),
    ),
    "product: 3 times [5, 7] @ [7, 11]": (
        product(3, 5, 7, 11, 2),
        StageCost(
            matmul_flops=3 * 2 * 5 * 7 * 11,
            activation_read_bytes=3 * (5 * 7 + 7 * 11) * 2,
            activation_write_bytes=3 * 5 * 11 * 2,
            activation_bytes=3 * 5 * 11 * 2,
        ),
    ),
    "softmax of float16: cast up, softmax, cast down": (
        softmax(7, 2),
        StageCost(
            vector_flops=5 * 7,
            activation_read_bytes=7 * 2 + 7 * 4 + 7 * 4,
            activation_write_bytes=7 * 4 + 7 * 4 + 7 * 2,
            activation_bytes=7 * 4 + 7 * 4 + 7 * 2,
        ),
    ),
    "softmax of float32: no cast": (
        softmax(7, 4),
        StageCost(
            vector_flops=5 * 7, activation_read_bytes=7 * 4, activation_write_bytes=7 * 4, activation_bytes=7 * 4
        ),
    ),
    "parameter: 7 elements": (parameter(7, 2), StageCost(weight_read_bytes=7 * 2, weight_bytes=7 * 2)),
}


@pytest.mark.parametrize("case", CASES)
def test_an_operation_costs_what_its_equation_says(case: str) -> None:
    priced, by_hand = CASES[case]
    assert priced == by_hand


def test_a_tree_has_the_cost_of_every_module_with_everything_below_it() -> None:
    ones = leaf(StageCost(matmul_flops=1))
    inner = tree(StageCost(matmul_flops=10), first=ones, second=ones)
    assert tree(StageCost(matmul_flops=100), inner=inner, **{"list.0": ones}) == {
        "": StageCost(matmul_flops=100 + (10 + 1 + 1) + 1),
        "inner": StageCost(matmul_flops=10 + 1 + 1),
        "inner.first": StageCost(matmul_flops=1),
        "inner.second": StageCost(matmul_flops=1),
        "list.0": StageCost(matmul_flops=1),
    }
