"""The plain layers of a vision transformer, beside those that it shares with a decoder.

The resizing of learned position tables, a constant per call, is left out; a trace sees it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import ClassVar

from fxmeter.models.hand.layer import Layer, SiLU, TypedLayer, pointwise, weights
from fxmeter.models.sizes import Size
from fxmeter.models.stage_cost import StageCost


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNorm(TypedLayer):
    """(x − mean) / sqrt(variance + eps)·w + b on B·S_q rows of h: 8 FLOPs an element."""

    hidden_size: int

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        e, elements = self.element_bytes, batch * query_len * self.hidden_size
        return weights(2 * self.hidden_size * e) + pointwise(8 * elements, read=elements * e, write=elements * e)


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution(TypedLayer):
    """A square kernel over B square grids of S_q positions, ``stride`` apart, padded so that none is left out.

    Every output element is a sum over kernel²·in products, those with the zero padding included; a bias adds 1. Where
    something before it has ``pooled`` the grid, its side is as many times shorter, rounding up.
    """

    in_channels: int
    out_channels: int
    kernel: int
    stride: int = 1
    pooled: int = 1
    bias: bool = False

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        e, inner = self.element_bytes, self.kernel * self.kernel * self.in_channels
        inputs = batch * positions(query_len, self.pooled) * self.in_channels
        outputs = batch * positions(query_len, self.pooled * self.stride) * self.out_channels
        return (
            StageCost(matmul_flops=2 * outputs * inner)
            + weights((inner + self.bias) * self.out_channels * e)
            + pointwise(int(self.bias) * outputs, read=inputs * e, write=outputs * e)
        )


def positions(query_len: int, pooled: int) -> int:
    """Those left of a square grid whose side is made ``pooled`` times shorter, rounding up."""
    return (-(-isqrt(query_len) // pooled)) ** 2


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionMLP(TypedLayer):
    """Two linear layers with biases and an activation between them, by the names that a tower gives them."""

    hidden_size: int
    intermediate_size: int
    names: ClassVar[tuple[str, str, str]] = ("lin1", "act", "lin2")
    activation: ClassVar[type[SiLU]] = SiLU

    def children(self) -> dict[str, Layer]:
        first = self.linear(self.hidden_size, self.intermediate_size, bias=True)
        second = self.linear(self.intermediate_size, self.hidden_size, bias=True)
        between = self.typed(self.activation, features=self.intermediate_size)
        return dict(zip(self.names, (first, between, second), strict=True))


@dataclass(frozen=True, slots=True)
class Container(Layer):
    """Parts by name, and nothing of its own."""

    inner: Mapping[str, Layer]

    def children(self) -> dict[str, Layer]:
        return dict(self.inner)
