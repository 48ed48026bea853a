"""DeepSeek-OCR's vision tower: SAM, CLIP-L's blocks on SAM's features, and one linear projector.

Sources: the DeepSeek-OCR paper (DeepEncoder), "Learning Transferable Visual Models" (Radford et al. 2021)
for CLIP's ViT-L/14, and the vendor's public code for what is kept of it. Module names are those of
``fxmeter.tracer.load.vision.DeepseekOCRVision``.

A page is one padded 1024 px global view and a grid of 640 px crops. The tower runs once on the global views
of the batch and, where there are crops, once more on all of them together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from fxmeter.models.errors import ScenarioError
from fxmeter.models.hand.layer import Attention
from fxmeter.models.hand.sam import SamEncoder
from fxmeter.models.hand.vision_ops import (
    ModuleCosts,
    layer_norm,
    leaf,
    linear,
    parameter,
    pointwise,
    product,
    softmax,
    tree,
)
from fxmeter.models.sizes import CROP_SIDE, GLOBAL_SIDE
from fxmeter.models.stage_cost import StageCost


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipEmbeddings:
    """A class token before the features, and a position for each; CLIP's own patch convolution lies idle.

    The vendor's checkpoint keeps that convolution's weights, so they are resident; nothing reads them.
    """

    hidden_size: int = 1024
    positions: int = 257
    patch_size: int = 14
    element_bytes: int = 2

    def cost(self, images: Any, tokens: int) -> StageCost:
        """``images`` sequences of ``tokens``, the class token among them."""
        size = self.element_bytes
        idle = StageCost(weight_bytes=3 * self.patch_size * self.patch_size * self.hidden_size * size)
        return (
            parameter(self.hidden_size, size)  # the class token
            + parameter(self.positions * self.hidden_size, size)
            + pointwise(1, images * tokens * self.hidden_size, size)
            + idle
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipAttention:
    """Bidirectional multi-head attention with biases on all four projections."""

    hidden_size: int = 1024
    num_heads: int = 16
    element_bytes: int = 2

    def modules(self, images: Any, tokens: int, attention: Attention = "eager") -> ModuleCosts:
        """``images`` sequences of ``tokens``.

        Both implementations do the same arithmetic. Eager writes the scores, the scaled scores and the
        probabilities; flash keeps them on chip and moves queries, keys, values and context only.
        """
        size = self.element_bytes
        projection = leaf(linear(images * tokens, self.hidden_size, self.hidden_size, size))
        return tree(
            self._core(images, tokens, attention),
            q_proj=projection,
            k_proj=projection,
            v_proj=projection,
            out_proj=projection,
        )

    def cost(self, images: Any, tokens: int, attention: Attention = "eager") -> StageCost:
        """Projections and attention core."""
        return self.modules(images, tokens, attention)[""]

    def _core(self, images: Any, tokens: int, attention: Attention) -> StageCost:
        size = self.element_bytes
        head_size = self.hidden_size // self.num_heads
        heads = images * self.num_heads
        scores = heads * tokens * tokens
        eager = (
            product(heads, tokens, head_size, tokens, size)
            + pointwise(1, scores, size)  # times head_size^-1/2
            + softmax(scores, size)
            + product(heads, tokens, tokens, head_size, size)
        )
        if attention == "eager":
            return eager
        if attention != "flash":
            raise ScenarioError(f"attention must be 'eager' or 'flash', not {attention!r}")
        context = images * tokens * self.hidden_size * size
        return StageCost(
            matmul_flops=eager.matmul_flops,
            vector_flops=eager.vector_flops,
            activation_read_bytes=3 * context,
            activation_write_bytes=context,
            activation_bytes=context,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipMLP:
    """Two linear layers with x * sigmoid(1.702 x), the quick GELU, between them."""

    hidden_size: int = 1024
    intermediate_size: int = 4096
    element_bytes: int = 2

    def modules(self, rows: Any) -> ModuleCosts:
        """``rows`` tokens."""
        size = self.element_bytes
        hidden = rows * self.intermediate_size
        quick_gelu = pointwise(1, hidden, size) + pointwise(4, hidden, size) + pointwise(1, hidden, size, operands=2)
        return tree(
            StageCost(),
            fc1=leaf(linear(rows, self.hidden_size, self.intermediate_size, size)),
            activation_fn=leaf(quick_gelu),
            fc2=leaf(linear(rows, self.intermediate_size, self.hidden_size, size)),
        )

    def cost(self, rows: Any) -> StageCost:
        """Both layers and the activation."""
        return self.modules(rows)[""]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipBlock:
    """A pre-norm transformer block."""

    hidden_size: int = 1024
    num_heads: int = 16
    intermediate_size: int = 4096
    element_bytes: int = 2

    def modules(self, images: Any, tokens: int, attention: Attention = "eager") -> ModuleCosts:
        """``images`` sequences of ``tokens``."""
        size = self.element_bytes
        width = self.hidden_size
        rows = images * tokens
        attn = ClipAttention(hidden_size=width, num_heads=self.num_heads, element_bytes=size)
        mlp = ClipMLP(hidden_size=width, intermediate_size=self.intermediate_size, element_bytes=size)
        return tree(
            2 * pointwise(1, rows * width, size, operands=2),  # the residual additions
            layer_norm1=leaf(layer_norm(rows, width, size)),
            self_attn=attn.modules(images, tokens, attention),
            layer_norm2=leaf(layer_norm(rows, width, size)),
            mlp=mlp.modules(rows),
        )

    def cost(self, images: Any, tokens: int, attention: Attention = "eager") -> StageCost:
        """Norms, attention, MLP, residuals."""
        return self.modules(images, tokens, attention)[""]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipEncoder:
    """CLIP-L without its final norm: embeddings, a norm, the blocks."""

    hidden_size: int = 1024
    num_heads: int = 16
    intermediate_size: int = 4096
    num_layers: int = 24
    positions: int = 257
    patch_size: int = 14
    element_bytes: int = 2

    def modules(self, images: Any, tokens: int, attention: Attention = "eager") -> ModuleCosts:
        """``images`` sequences of ``tokens``: one class token and SAM's features."""
        size = self.element_bytes
        width = self.hidden_size
        embeddings = ClipEmbeddings(
            hidden_size=width, positions=self.positions, patch_size=self.patch_size, element_bytes=size
        )
        block = ClipBlock(
            hidden_size=width,
            num_heads=self.num_heads,
            intermediate_size=self.intermediate_size,
            element_bytes=size,
        ).modules(images, tokens, attention)
        return tree(
            StageCost(),
            embeddings=leaf(embeddings.cost(images, tokens)),
            pre_layrnorm=leaf(layer_norm(images * tokens, width, size)),
            encoder=tree(StageCost(), **{f"layers.{layer}": block for layer in range(self.num_layers)}),
        )

    def cost(self, images: Any, tokens: int, attention: Attention = "eager") -> StageCost:
        """The whole encoder."""
        return self.modules(images, tokens, attention)[""]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepseekOCRVision:
    """The tower of a page: SAM, CLIP, projector, and the two learned vectors that lay the features out.

    Features of SAM and CLIP side by side, 2048 wide, are projected to the decoder's width; CLIP's class
    token is dropped. SAM's attention is eager under either implementation: its bias is beyond a flash
    kernel.
    """

    hidden_size: int = 1280
    element_bytes: int = 2

    @property
    def sam(self) -> SamEncoder:
        """SAM-B."""
        return SamEncoder(element_bytes=self.element_bytes)

    @property
    def clip(self) -> ClipEncoder:
        """CLIP-L."""
        return ClipEncoder(element_bytes=self.element_bytes)

    def view(self, images: Any, side: int, attention: Attention = "eager") -> ModuleCosts:
        """One call of the tower, on ``images`` views of side x side pixels."""
        features = self.sam.feature_side(side) ** 2
        width = self.sam.downsample_channels[-1] + self.clip.hidden_size
        return tree(
            StageCost(),
            sam=self.sam.modules(images, side),
            clip=self.clip.modules(images, features + 1, attention),
            projector=leaf(linear(images * features, width, self.hidden_size, self.element_bytes)),
        )

    def modules(self, batch: Any, crops_h: Any = 0, crops_w: Any = 0, attention: Attention = "eager") -> ModuleCosts:
        """``batch`` pages with crops_h rows of crops_w crops each; 0, 0 for pages without crops.

        All but one quantity is a constant plus a term linear in the number of crops. The exception is
        ``weight_read_bytes``: the second call, if there is one, reads every weight again.
        """
        crops = crops_h * crops_w
        second_call = 1 - 0**crops  # 0 without crops, else 1: for ints, arrays and positive symbols alike
        overview = self.view(batch, GLOBAL_SIDE, attention)
        details = self.view(batch * crops, CROP_SIDE, attention)
        modules = {path: _both(overview[path], details[path], second_call) for path in overview}
        modules[""] += self._layout(second_call)
        return modules

    def cost(self, batch: Any, crops_h: Any = 0, crops_w: Any = 0, attention: Attention = "eager") -> StageCost:
        """The vision stage of ``batch`` pages."""
        return self.modules(batch, crops_h, crops_w, attention)[""]

    def _layout(self, second_call: Any) -> StageCost:
        """A newline behind every row of features, in both calls; one separator behind the global view."""
        size = self.element_bytes
        newline_again = StageCost(weight_read_bytes=second_call * self.hidden_size * size)
        return 2 * parameter(self.hidden_size, size) + newline_again


def _both(overview: StageCost, details: StageCost, second_call: Any) -> StageCost:
    """Two calls of the same module, the second of which may not take place: weights are resident once."""
    return replace(
        overview + details,
        weight_read_bytes=overview.weight_read_bytes + second_call * details.weight_read_bytes,
        weight_bytes=overview.weight_bytes,
    )
