"""The plain layers of a vision transformer, beside those that it shares with a decoder.

The resizing of learned position tables, a constant per call, is left out; a trace sees it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt

from fxmeter.models.hand.layer import Layer, TypedLayer, pointwise, weights
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

    Every output element is a sum over kernel²·in products, those with the zero padding included; a bias adds 1.
    """

    in_channels: int
    out_channels: int
    kernel: int
    stride: int = 1
    bias: bool = False

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        e, inner = self.element_bytes, self.kernel * self.kernel * self.in_channels
        outputs = batch * self.positions(query_len) * self.out_channels
        return (
            StageCost(matmul_flops=2 * outputs * inner)
            + weights((inner + self.bias) * self.out_channels * e)
            + pointwise(int(self.bias) * outputs, read=batch * query_len * self.in_channels * e, write=outputs * e)
        )

    def positions(self, query_len: int) -> int:
        """Of the grid that it makes."""
        return (-(-isqrt(query_len) // self.stride)) ** 2


@dataclass(frozen=True, slots=True)
class Container(Layer):
    """Parts by name, and nothing of its own."""

    inner: Mapping[str, Layer]

    def children(self) -> dict[str, Layer]:
        return dict(self.inner)
