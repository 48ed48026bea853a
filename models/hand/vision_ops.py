"""The operations that a vision transformer is made of, and how their costs nest into those of modules.

FLOPs: 2 per multiply-accumulate; 1 per element for an addition, a multiplication and a bias; 4 for a sigmoid,
5 for a softmax and for the erf form of GELU, 8 for a layer norm with weight and bias; copies, casts and
concatenations are free.

Bytes: an operation reads its operands and its weights once and writes its output, which is new storage.
What only rearranges (windows, heads, padding, concatenation) is left out, and so is the resizing of learned
position tables, a constant per call; a trace sees both.

Sizes may be ints, numpy arrays or sympy expressions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fxmeter.models.hand.layer import FLOAT32_BYTES
from fxmeter.models.stage_cost import StageCost

ModuleCosts = dict[str, StageCost]
"""Cost by module path below a module; the module itself, children included, has the empty path."""


def tree(own: StageCost, **children: Mapping[str, StageCost]) -> ModuleCosts:
    """The costs of a module that does ``own`` itself, and calls ``children``, once each."""
    total = StageCost.total([own, *(child[""] for child in children.values())])
    below = {f"{name}.{path}".rstrip("."): cost for name, child in children.items() for path, cost in child.items()}
    return {"": total, **below}


def leaf(cost: StageCost) -> ModuleCosts:
    """The costs of a module without children."""
    return tree(cost)


def linear(rows: Any, inputs: int, outputs: int, element_bytes: int) -> StageCost:
    """out[rows, outputs] = x[rows, inputs] @ weight[outputs, inputs]^T + bias[outputs]"""
    weight_bytes = (inputs * outputs + outputs) * element_bytes
    return StageCost(
        matmul_flops=2 * rows * inputs * outputs,
        vector_flops=rows * outputs,
        weight_read_bytes=weight_bytes,
        activation_read_bytes=rows * inputs * element_bytes,
        activation_write_bytes=rows * outputs * element_bytes,
        activation_bytes=rows * outputs * element_bytes,
        weight_bytes=weight_bytes,
    )


def convolution(
    images: Any, in_side: int, out_side: int, inputs: int, outputs: int, kernel: int, element_bytes: int
) -> StageCost:
    """out[images, outputs, out_side, out_side] = x[images, inputs, in_side, in_side] * kernel, without bias

    Every output element is a sum over kernel * kernel * inputs products, those with the zero padding
    included.
    """
    written = images * out_side * out_side * outputs
    weight_bytes = kernel * kernel * inputs * outputs * element_bytes
    return StageCost(
        matmul_flops=2 * written * kernel * kernel * inputs,
        weight_read_bytes=weight_bytes,
        activation_read_bytes=images * in_side * in_side * inputs * element_bytes,
        activation_write_bytes=written * element_bytes,
        activation_bytes=written * element_bytes,
        weight_bytes=weight_bytes,
    )


def layer_norm(rows: Any, width: int, element_bytes: int) -> StageCost:
    """out = (x - mean) / sqrt(variance + eps) * weight + bias, over the last axis of x[rows, width]"""
    weight_bytes = 2 * width * element_bytes
    return pointwise(8, rows * width, element_bytes) + StageCost(
        weight_read_bytes=weight_bytes, weight_bytes=weight_bytes
    )


def pointwise(flops: int, elements: Any, element_bytes: int, *, operands: int = 1) -> StageCost:
    """``flops`` for each output element of a function of one or several ``operands`` of the same shape."""
    return StageCost(
        vector_flops=flops * elements,
        activation_read_bytes=operands * elements * element_bytes,
        activation_write_bytes=elements * element_bytes,
        activation_bytes=elements * element_bytes,
    )


def product(count: Any, rows: Any, inner: Any, columns: Any, element_bytes: int) -> StageCost:
    """out[count, rows, columns] = a[count, rows, inner] @ b[count, inner, columns]"""
    written = count * rows * columns
    return StageCost(
        matmul_flops=2 * written * inner,
        activation_read_bytes=count * inner * (rows + columns) * element_bytes,
        activation_write_bytes=written * element_bytes,
        activation_bytes=written * element_bytes,
    )


def softmax(elements: Any, element_bytes: int) -> StageCost:
    """Probabilities of as many scores: in another dtype than float32, cast up before and down after."""
    softmaxed = pointwise(5, elements, FLOAT32_BYTES)
    if element_bytes == FLOAT32_BYTES:
        return softmaxed
    return _cast(elements, element_bytes, FLOAT32_BYTES) + softmaxed + _cast(elements, FLOAT32_BYTES, element_bytes)


def _cast(elements: Any, from_bytes: int, to_bytes: int) -> StageCost:
    return StageCost(
        activation_read_bytes=elements * from_bytes,
        activation_write_bytes=elements * to_bytes,
        activation_bytes=elements * to_bytes,
    )


def parameter(count: int, element_bytes: int) -> StageCost:
    """``count`` elements of a parameter that an operation of another kind reads once."""
    return StageCost(weight_read_bytes=count * element_bytes, weight_bytes=count * element_bytes)
