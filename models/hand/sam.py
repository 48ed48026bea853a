"""SAM's image encoder, as DeepSeek-OCR uses it: a ViTDet-B with windowed attention, and a 16-fold compressor.

Sources: "Segment Anything" (Kirillov et al. 2023) and "Exploring Plain Vision Transformer Backbones" (Li et
al. 2022) for the encoder, "MViTv2" (Li et al. 2022) for decomposed relative positions, the DeepSeek-OCR
paper for the two convolutions behind the neck. Module names are those of transformers' encoder.

A view is a square image of ``side`` pixels. Its patches form a grid g x g, g = side / 16: 64 for the 1024
px global view, 40 for a 640 px crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fxmeter.models.hand.vision_ops import (
    ModuleCosts,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SamAttention:
    """Self-attention within square windows, with a bias for the row and one for the column distance.

    ``table_side`` is the side for which the distance tables were learned: each has 2 * table_side - 1 rows.
    """

    hidden_size: int
    num_heads: int
    table_side: int
    element_bytes: int = 2

    def modules(self, windows: Any, side: int) -> ModuleCosts:
        """``windows`` windows of side x side tokens; T = side^2 attend to T, in each window and head.

        Row distances are a product of the query with one vector per (query row, key row), so each of T
        queries meets ``side`` vectors of the head's size; column distances likewise. Their broadcast sum is
        the bias.
        """
        size = self.element_bytes
        head_size = self.hidden_size // self.num_heads
        tokens = side * side
        heads = windows * self.num_heads
        query = heads * tokens * head_size
        distances = heads * tokens * side
        scores = heads * tokens * tokens

        tables = parameter(2 * (2 * self.table_side - 1) * head_size, size)
        row_distances = StageCost(
            matmul_flops=2 * distances * head_size,
            activation_read_bytes=query * size,
            activation_write_bytes=distances * size,
            activation_bytes=distances * size,
        )
        bias = StageCost(
            vector_flops=scores,
            activation_read_bytes=2 * distances * size,
            activation_write_bytes=scores * size,
            activation_bytes=scores * size,
        )
        core = [
            pointwise(1, query, size),  # the query times head_size^-1/2
            product(heads, tokens, head_size, tokens, size),
            tables,
            2 * row_distances,  # and as many column distances
            bias,
            pointwise(1, scores, size, operands=2),  # scores plus bias
            softmax(scores, size),
            product(heads, tokens, tokens, head_size, size),
        ]
        rows = windows * tokens
        return tree(
            StageCost.total(core),
            qkv=leaf(linear(rows, self.hidden_size, 3 * self.hidden_size, size)),
            proj=leaf(linear(rows, self.hidden_size, self.hidden_size, size)),
        )

    def cost(self, windows: Any, side: int) -> StageCost:
        """Projections, scores, relative positions, softmax, context."""
        return self.modules(windows, side)[""]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamMLP:
    """Two linear layers with the erf form of GELU between them."""

    hidden_size: int
    intermediate_size: int
    element_bytes: int = 2

    def modules(self, rows: Any) -> ModuleCosts:
        """``rows`` tokens."""
        size = self.element_bytes
        return tree(
            StageCost(),
            lin1=leaf(linear(rows, self.hidden_size, self.intermediate_size, size)),
            act=leaf(pointwise(5, rows * self.intermediate_size, size)),
            lin2=leaf(linear(rows, self.intermediate_size, self.hidden_size, size)),
        )

    def cost(self, rows: Any) -> StageCost:
        """Both layers and the activation."""
        return self.modules(rows)[""]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamBlock:
    """A pre-norm transformer block; ``window`` is the side of its windows, 0 for global attention."""

    hidden_size: int
    num_heads: int
    intermediate_size: int
    window: int
    table_side: int
    element_bytes: int = 2

    def modules(self, images: Any, grid: int) -> ModuleCosts:
        """``images`` grids of grid x grid tokens.

        Windowed attention pads the grid to whole windows and computes the padding like any token: 64 x 64
        becomes 5 x 5 windows of 14 x 14, 4,900 tokens for 4,096. Norms, residuals and MLP see the tokens
        alone.
        """
        size = self.element_bytes
        rows = images * grid * grid
        if self.window:
            across = -(-grid // self.window)
            windows, side, table_side = images * across * across, self.window, self.window
        else:
            windows, side, table_side = images, grid, self.table_side
        attention = SamAttention(
            hidden_size=self.hidden_size,
            num_heads=self.num_heads,
            table_side=table_side,
            element_bytes=size,
        )
        mlp = SamMLP(hidden_size=self.hidden_size, intermediate_size=self.intermediate_size, element_bytes=size)
        return tree(
            2 * pointwise(1, rows * self.hidden_size, size, operands=2),  # the residual additions
            layer_norm1=leaf(layer_norm(rows, self.hidden_size, size)),
            attn=attention.modules(windows, side),
            layer_norm2=leaf(layer_norm(rows, self.hidden_size, size)),
            mlp=mlp.modules(rows),
        )

    def cost(self, images: Any, grid: int) -> StageCost:
        """Norms, attention, MLP, residuals."""
        return self.modules(images, grid)[""]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamEncoder:
    """Patches, absolute positions, blocks, neck, two stride-2 convolutions: side/64 x side/64 features."""

    hidden_size: int = 768
    num_heads: int = 12
    intermediate_size: int = 3072
    num_layers: int = 12
    global_layers: tuple[int, ...] = (2, 5, 8, 11)
    patch_size: int = 16
    window: int = 14
    table_side: int = 64
    neck_channels: int = 256
    downsample_channels: tuple[int, int] = (512, 1024)
    element_bytes: int = 2

    def feature_side(self, side: int) -> int:
        """Features along each side of a view of ``side`` pixels: its patches, halved twice, rounded up."""
        return _halved(_halved(side // self.patch_size))

    def block(self, layer: int) -> SamBlock:
        """The block at ``layer``: windowed, unless its index is one of ``global_layers``."""
        return SamBlock(
            hidden_size=self.hidden_size,
            num_heads=self.num_heads,
            intermediate_size=self.intermediate_size,
            window=0 if layer in self.global_layers else self.window,
            table_side=self.table_side,
            element_bytes=self.element_bytes,
        )

    def modules(self, images: Any, side: int) -> ModuleCosts:
        """``images`` views of side x side pixels; blocks are ``layers.0`` and so on."""
        size = self.element_bytes
        grid = side // self.patch_size
        tokens = images * grid * grid
        positions = parameter(self.table_side * self.table_side * self.hidden_size, size)
        return tree(
            positions + pointwise(1, tokens * self.hidden_size, size),
            patch_embed=tree(StageCost(), projection=leaf(self._patches(images, side))),
            **{f"layers.{layer}": self.block(layer).modules(images, grid) for layer in range(self.num_layers)},
            neck=self._neck(images, grid),
            proj=self._downsample(images, grid),
        )

    def cost(self, images: Any, side: int) -> StageCost:
        """The whole encoder."""
        return self.modules(images, side)[""]

    def _patches(self, images: Any, side: int) -> StageCost:
        """A convolution of the three colours whose stride is its size, patch_size; with a bias."""
        grid = side // self.patch_size
        bias = parameter(self.hidden_size, self.element_bytes) + StageCost(
            vector_flops=images * grid * grid * self.hidden_size
        )
        return bias + convolution(images, side, grid, 3, self.hidden_size, self.patch_size, self.element_bytes)

    def _neck(self, images: Any, grid: int) -> ModuleCosts:
        """A 1x1 and a 3x3 convolution, each with a layer norm over the channels behind it."""
        size = self.element_bytes
        width = self.neck_channels
        norm = layer_norm(images * grid * grid, width, size)
        return tree(
            StageCost(),
            conv1=leaf(convolution(images, grid, grid, self.hidden_size, width, 1, size)),
            layer_norm1=leaf(norm),
            conv2=leaf(convolution(images, grid, grid, width, width, 3, size)),
            layer_norm2=leaf(norm),
        )

    def _downsample(self, images: Any, grid: int) -> ModuleCosts:
        """Two 3x3 convolutions of stride 2 and padding 1, each of which halves the grid."""
        first, second = self.downsample_channels
        half = _halved(grid)
        quarter = _halved(half)
        size = self.element_bytes
        return tree(
            StageCost(),
            conv1=leaf(convolution(images, grid, half, self.neck_channels, first, 3, size)),
            conv2=leaf(convolution(images, half, quarter, first, second, 3, size)),
        )


def _halved(side: int) -> int:
    """Outputs of a 3x3 convolution of stride 2 and padding 1 along a side."""
    return (side + 1) // 2
