"""SAM's image encoder, as DeepSeek-OCR uses it: a ViTDet-B with windowed attention, and a 16-fold compressor.

Sources: "Segment Anything" (Kirillov et al. 2023) and "Exploring Plain Vision Transformer Backbones" (Li et
al. 2022) for the encoder, "MViTv2" (Li et al. 2022) for decomposed relative positions, the DeepSeek-OCR
paper for the two convolutions behind the neck. Module names are those of transformers' encoder.

A view is a square image. Its patches of 16 x 16 pixels form a grid g x g: 64 x 64 for the 1024 px global view, 40 x 40
for a 640 px crop. B is images (in attention: windows of them), S_q the patches of one; of the whole encoder, pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

from fxmeter.models.hand.layer import (
    FLOAT32_BYTES,
    Layer,
    ResidualBlock,
    TypedLayer,
    cast_bytes,
    pointwise,
    weights,
)
from fxmeter.models.hand.vision_layers import Container, Convolution, LayerNorm, VisionMLP, positions
from fxmeter.models.sizes import Size
from fxmeter.models.stage_cost import StageCost


@dataclass(frozen=True, slots=True, kw_only=True)
class SamAttention(TypedLayer):
    """Self-attention within B square windows of T = S_q tokens, with a bias for row and one for column distances.

    ``table_side`` is the side for which the distance tables were learned: each has 2·table_side − 1 rows.

    Row distances are a product of the query with one vector per (query row, key row), so each of T queries meets √T
    vectors of the head's size d; column distances likewise. Their broadcast sum is the bias.

    Matmul, per window and head: 2·T·T·d twice, 2·T·√T·d twice. Vector: the query times d^-1/2, T·d; per pair, the sum
    of the distances 1, its addition to the scores 1, softmax 5.
    Tensors: query scaled, T·d; both distances, T·√T; scores, bias, their sum, and softmax in float32 with its casts,
    T·T each; context, T·d. Read: the query to scale it, and scaled by three products; key; value; all others once.
    """

    hidden_size: int
    num_heads: int
    table_side: int

    def children(self) -> dict[str, Layer]:
        h = self.hidden_size
        return {"qkv": self.linear(h, 3 * h, bias=True), "proj": self.linear(h, h, bias=True)}

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        e, head_dim = self.element_bytes, self.hidden_size // self.num_heads
        up, down = cast_bytes(e)
        queries = batch * self.num_heads * query_len
        query_bytes = queries * head_dim * e
        distances, pairs = queries * isqrt(query_len), queries * kv_len
        buffers = 2 * distances * e + pairs * (e + e + e + up + FLOAT32_BYTES + down)
        return (
            StageCost(matmul_flops=2 * 2 * (pairs + distances) * head_dim)
            + weights(2 * (2 * self.table_side - 1) * head_dim * e)
            + pointwise(
                queries * head_dim + (1 + 1 + 5) * pairs,
                read=(1 + 3 + 1 + 1) * query_bytes + buffers,
                write=(1 + 1) * query_bytes + buffers,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SamMLP(VisionMLP):
    """The erf form of GELU is between its layers, 5 FLOPs an element as SiLU has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamBlock(ResidualBlock):
    """A pre-norm transformer block; ``window`` is the side of its windows, 0 for global attention.

    Windowed attention pads the grid to whole windows and computes the padding like any token: 64 x 64 becomes 5 x 5
    windows of 14 x 14, 4,900 tokens for 4,096. Norms, residuals and MLP see the tokens alone.
    """

    num_heads: int
    intermediate_size: int
    window: int
    table_side: int

    def children(self) -> dict[str, Layer]:
        h, table_side = self.hidden_size, self.window or self.table_side
        norm = self.typed(LayerNorm, hidden_size=h)
        return {
            "layer_norm1": norm,
            "attn": self.typed(SamAttention, hidden_size=h, num_heads=self.num_heads, table_side=table_side),
            "layer_norm2": norm,
            "mlp": self.typed(SamMLP, hidden_size=h, intermediate_size=self.intermediate_size),
        }

    def inside(self, name: str, batch: Size, query_len: Size, kv_len: Size) -> tuple[Size, Size, Size]:
        if name != "attn" or not self.window:
            return batch, query_len, kv_len
        across = -(-isqrt(query_len) // self.window)
        tokens = self.window * self.window
        return batch * across * across, tokens, tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class SamEncoder(TypedLayer):
    """Patches, absolute positions, blocks, neck, two stride-2 convolutions; S_q is the pixels of a view.

    A patch is a convolution of the three colours whose stride is its size; with a bias. The neck is a 1x1 and a 3x3
    convolution, each with a layer norm over the channels behind it. The last two convolutions halve the grid each.
    """

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

    def patches(self, pixels: int) -> int:
        """Of a view."""
        return pixels // self.patch_size**2

    def features(self, pixels: int) -> int:
        """Of a view: its patches' grid halved twice."""
        return positions(self.patches(pixels), 2 * 2)

    def block(self, layer: int) -> SamBlock:
        """The block at ``layer``: windowed, unless its index is one of ``global_layers``."""
        names = ("hidden_size", "num_heads", "intermediate_size", "table_side")
        window = 0 if layer in self.global_layers else self.window
        return self.typed(SamBlock, window=window, **{name: getattr(self, name) for name in names})

    def children(self) -> dict[str, Layer]:
        h, width, patch = self.hidden_size, self.neck_channels, self.patch_size
        projection = self.typed(Convolution, in_channels=3, out_channels=h, kernel=patch, stride=patch, bias=True)
        norm = self.typed(LayerNorm, hidden_size=width)
        half, quarter = self.downsample_channels
        neck = {
            "conv1": self.typed(Convolution, in_channels=h, out_channels=width, kernel=1),
            "layer_norm1": norm,
            "conv2": self.typed(Convolution, in_channels=width, out_channels=width, kernel=3),
            "layer_norm2": norm,
        }
        return {
            "patch_embed": Container({"projection": projection}),
            **{f"layers.{layer}": self.block(layer) for layer in range(self.num_layers)},
            "neck": Container(neck),
            "proj": Container(
                {
                    "conv1": self.typed(Convolution, in_channels=width, out_channels=half, kernel=3, stride=2),
                    "conv2": self.typed(
                        Convolution, in_channels=half, out_channels=quarter, kernel=3, stride=2, pooled=2
                    ),
                }
            ),
        }

    def inside(self, name: str, batch: Size, query_len: Size, kv_len: Size) -> tuple[Size, Size, Size]:
        tokens = query_len if name == "patch_embed" else self.patches(query_len)
        return batch, tokens, tokens

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        """The absolute positions, added to the patches."""
        e, elements = self.element_bytes, batch * self.patches(query_len) * self.hidden_size
        table = weights(self.table_side * self.table_side * self.hidden_size * e)
        return table + pointwise(elements, read=elements * e, write=elements * e)
