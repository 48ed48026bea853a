"""DeepSeek-OCR's vision tower: SAM, CLIP-L's blocks on SAM's features, and one linear projector.

Sources: the DeepSeek-OCR paper (DeepEncoder), "Learning Transferable Visual Models" (Radford et al. 2021)
for CLIP's ViT-L/14, and the vendor's public code for what is kept of it. Module names are those of
``fxmeter.tracer.load.vision.DeepseekOCRVision``.

A page is one padded 1024 px global view and a grid of 640 px crops. The tower runs once on the global views
of the batch and, where there are crops, once more on all of them together. B is images, S_q the tokens of one, the
class token among them; of a view, its pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from fxmeter.models.choices import Attention
from fxmeter.models.hand.layer import (
    Layer,
    ResidualBlock,
    SiLU,
    TypedLayer,
    binary,
    pointwise,
    weights,
)
from fxmeter.models.hand.sam import SamEncoder
from fxmeter.models.hand.vision_layers import Container, LayerNorm, VisionMLP
from fxmeter.models.sizes import CROP_SIDE, GLOBAL_SIDE, Size
from fxmeter.models.stage_cost import StageCost


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipEmbeddings(TypedLayer):
    """A class token before the features, and a position for each; CLIP's own patch convolution lies idle.

    The vendor's checkpoint keeps that convolution's weights, so they are resident; nothing reads them.
    """

    hidden_size: int = 1024
    positions: int = 257
    patch_size: int = 14

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        h, e = self.hidden_size, self.element_bytes
        elements = batch * query_len * h
        idle = StageCost(weight_bytes=3 * self.patch_size * self.patch_size * h * e)
        class_token, positions = weights(h * e), weights(self.positions * h * e)
        return class_token + positions + idle + pointwise(elements, read=elements * e, write=elements * e)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipAttention(TypedLayer):
    """Bidirectional multi-head attention with biases on all four projections.

    Both implementations do the same arithmetic. Eager writes the scores, the scaled scores and the
    probabilities; flash keeps them on chip and moves queries, keys, values and context only.
    """

    hidden_size: int = 1024
    num_heads: int = 16
    attention: Attention = "eager"

    def children(self) -> dict[str, Layer]:
        projection = self.linear(self.hidden_size, self.hidden_size, bias=True)
        return dict.fromkeys(("q_proj", "k_proj", "v_proj", "out_proj"), projection)

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        e, head_dim = self.element_bytes, self.hidden_size // self.num_heads
        core = self.core(self.num_heads, head_dim, head_dim, self.attention, masked=False)
        keys_and_values = StageCost(activation_read_bytes=2 * batch * kv_len * self.hidden_size * e)
        return keys_and_values + core.own(batch, query_len, kv_len)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuickGELU(SiLU):
    """x·sigmoid(1.702·x) on B·S_q rows of ``features``: three operations of 1, 4 and 1 FLOPs an element."""

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        e, elements = self.element_bytes, batch * query_len * self.features
        return pointwise((1 + 4) * elements, read=2 * elements * e, write=2 * elements * e) + binary(elements, e)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipMLP(VisionMLP):
    """The quick GELU is between its layers."""

    hidden_size: int = 1024
    intermediate_size: int = 4096
    names: ClassVar[tuple[str, str, str]] = ("fc1", "activation_fn", "fc2")
    activation: ClassVar[type[SiLU]] = QuickGELU


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipBlock(ResidualBlock):
    """A pre-norm transformer block."""

    hidden_size: int = 1024
    num_heads: int = 16
    intermediate_size: int = 4096
    attention: Attention = "eager"

    def children(self) -> dict[str, Layer]:
        h, heads, attention = self.hidden_size, self.num_heads, self.attention
        norm = self.typed(LayerNorm, hidden_size=h)
        return {
            "layer_norm1": norm,
            "self_attn": self.typed(ClipAttention, hidden_size=h, num_heads=heads, attention=attention),
            "layer_norm2": norm,
            "mlp": self.typed(ClipMLP, hidden_size=h, intermediate_size=self.intermediate_size),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipEncoder(TypedLayer):
    """CLIP-L without its final norm: embeddings, a norm, the blocks. S_q is one class token and SAM's features."""

    hidden_size: int = 1024
    num_heads: int = 16
    intermediate_size: int = 4096
    num_layers: int = 24
    positions: int = 257
    patch_size: int = 14
    attention: Attention = "eager"

    def children(self) -> dict[str, Layer]:
        h, names = self.hidden_size, ("hidden_size", "num_heads", "intermediate_size", "attention")
        block = self.typed(ClipBlock, **{name: getattr(self, name) for name in names})
        return {
            "embeddings": self.typed(
                ClipEmbeddings, hidden_size=h, positions=self.positions, patch_size=self.patch_size
            ),
            "pre_layrnorm": self.typed(LayerNorm, hidden_size=h),
            "encoder": Container({f"layers.{layer}": block for layer in range(self.num_layers)}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepEncoder(TypedLayer):
    """One call of the tower, on B views of S_q pixels.

    Features of SAM and CLIP side by side, 2048 wide, are projected to the decoder's width; CLIP's class
    token is dropped. SAM's attention is eager under either implementation: its bias is beyond a flash
    kernel.
    """

    hidden_size: int = 1280
    attention: Attention = "eager"

    def children(self) -> dict[str, Layer]:
        sam, clip = self.typed(SamEncoder), self.typed(ClipEncoder, attention=self.attention)
        width = sam.downsample_channels[-1] + clip.hidden_size
        return {"sam": sam, "clip": clip, "projector": self.linear(width, self.hidden_size, bias=True)}

    def inside(self, name: str, batch: Size, query_len: Size, kv_len: Size) -> tuple[Size, Size, Size]:
        if name == "sam":
            return batch, query_len, kv_len
        features = SamEncoder().features(query_len)
        tokens = features + 1 if name == "clip" else features
        return batch, tokens, tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepseekOCRVision:
    """`DeepEncoder` on both kinds of views of a page, and the two learned vectors that lay the features out."""

    hidden_size: int = 1280
    attention: Attention = "eager"
    element_bytes: int = 2

    def view(self, images: Size, side: int) -> dict[str, StageCost]:
        """One call of the tower, on ``images`` views of side x side pixels."""
        encoder = DeepEncoder(hidden_size=self.hidden_size, attention=self.attention, element_bytes=self.element_bytes)
        return encoder.modules(images, side * side, side * side)

    def modules(self, batch: Size, rows: Size = 0, columns: Size = 0) -> dict[str, StageCost]:
        """``batch`` pages with as many rows and columns of crops each, by module; 0, 0 for pages without crops.

        All but one quantity is a constant plus a term linear in the number of crops. The exception is
        ``weight_read_bytes``: the second call, if there is one, reads every weight again.
        """
        crops = rows * columns
        second_call = 1 - 0**crops  # 0 without crops, else 1: for ints, arrays and positive symbols alike
        overview, details = self.view(batch, GLOBAL_SIDE), self.view(batch * crops, CROP_SIDE)
        modules = {path: _both(overview[path], details[path], second_call) for path in overview}
        modules[""] += self._layout(second_call)
        return modules

    def cost(self, batch: Size, rows: Size = 0, columns: Size = 0) -> StageCost:
        """The vision stage of as many pages."""
        return self.modules(batch, rows, columns)[""]

    def _layout(self, second_call: Size) -> StageCost:
        """A newline behind every row of features, in both calls; one separator behind the global view."""
        vector_bytes = self.hidden_size * self.element_bytes
        return 2 * weights(vector_bytes) + StageCost(weight_read_bytes=second_call * vector_bytes)


def _both(overview: StageCost, details: StageCost, second_call: Size) -> StageCost:
    """Two calls of the same module, the second of which may not take place: weights are resident once."""
    return replace(
        overview + details,
        weight_read_bytes=overview.weight_read_bytes + second_call * details.weight_read_bytes,
        weight_bytes=overview.weight_bytes,
    )
