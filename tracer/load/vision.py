"""DeepSeek-OCR's vision tower on the meta device, put together from transformers' own modules.

    global view [B, 3, 1024, 1024] ─┐
                                    ├─ sam ─┬────────┐
    crops [B, h, w, 3, 640, 640] ───┘       └─ clip ─┴─ projector ─ newlines, separator ─ [B, tokens, 1280]

The order of features, newlines and separator is that of the vendor's public code.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPEncoder, CLIPVisionEmbeddings
from transformers.models.deepseek_ocr2.configuration_deepseek_ocr2 import DeepseekOcr2SamVisionConfig
from transformers.models.deepseek_ocr2.modeling_deepseek_ocr2 import DeepseekOcr2SamVisionEncoder

from fxmeter.models.errors import ModelError
from fxmeter.models.page import CropGrid
from fxmeter.models.presets import Preset, preset, preset_names
from fxmeter.models.sizes import CROP_SIDE, GLOBAL_SIDE
from fxmeter.models.source import locate
from fxmeter.tracer.load.loading import dtype_of

SAM_CHANNELS = 1024
"""Channels of SAM's features: CLIP's width, since they take the place of its patches."""


class ClipEmbeddings(CLIPVisionEmbeddings):
    """A class token before SAM's features, and a position for each; the patch convolution lies idle."""

    def forward(self, features: Tensor) -> Tensor:  # type: ignore[override]
        """[N, 1024, s, s] → [N, s·s + 1, 1024]"""
        tokens = features.flatten(2).transpose(1, 2)
        class_token = self.class_embedding.expand(len(features), 1, -1)
        return torch.cat([class_token, tokens], dim=1) + self._positions(features.shape[-1])

    def _positions(self, side: int) -> Tensor:
        """[1, side·side + 1, 1024]: the learned 16 x 16 grid, resized in float32 as the vendor resizes it."""
        positions: Tensor = self.position_embedding(self.position_ids)
        learned = math.isqrt(positions.shape[1] - 1)
        if side == learned:
            return positions
        grid = positions[:, 1:].unflatten(1, (learned, learned)).permute(0, 3, 1, 2)
        resized = F.interpolate(grid.float(), size=(side, side), mode="bicubic", antialias=True, align_corners=False)
        return torch.cat([positions[:, :1], resized.to(positions.dtype).flatten(2).transpose(1, 2)], dim=1)


class Clip(nn.Module):
    """CLIP-L's blocks on SAM's features; every token comes out, and no final norm is applied."""

    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = ClipEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.encoder = CLIPEncoder(config)  # type: ignore[arg-type]  # it asks for a config with two parts

    def forward(self, features: Tensor) -> Tensor:
        """[N, 1024, s, s] → [N, s·s + 1, 1024]"""
        hidden_states = self.pre_layrnorm(self.embeddings(features))
        return self.encoder(inputs_embeds=hidden_states).last_hidden_state


class DeepseekOCRVision(nn.Module):
    """Pixels of a batch of pages to image tokens of the decoder's width.

    Its 401,372,160 parameters: SAM with the two convolutions behind its neck 95,569,152, CLIP 303,177,728,
    projector with bias 2,622,720, newline and separator 1,280 each. CLIP's count has the patch convolution
    (602,112), which the vendor's checkpoint keeps though nothing calls it, and no final norm, which the
    vendor's model does not have.
    """

    def __init__(self, hidden_size: int = 1280) -> None:
        super().__init__()
        sam = DeepseekOcr2SamVisionConfig(downsample_channels=[512, SAM_CHANNELS])
        # SAM looks its attention class up by this name; its position bias rules a fused kernel out.
        sam._attn_implementation = "eager"
        clip = CLIPVisionConfig(
            hidden_size=SAM_CHANNELS,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            image_size=224,
            patch_size=14,
        )
        clip._attn_implementation = "eager"
        self.sam = DeepseekOcr2SamVisionEncoder(sam)
        self.clip = Clip(clip)
        self.projector = nn.Linear(clip.hidden_size + SAM_CHANNELS, hidden_size)
        self.image_newline = nn.Parameter(torch.empty(hidden_size))
        self.view_separator = nn.Parameter(torch.empty(hidden_size))

    def set_attn_implementation(self, name: str) -> None:
        """Select CLIP's attention from transformers' attention interface; SAM's stays eager."""
        self.clip.config._attn_implementation = name

    def forward(self, global_view: Tensor, crops: Tensor | None = None) -> Tensor:
        """[B, 3, 1024, 1024] and, where there are crops, [B, h, w, 3, 640, 640] → [B, tokens, hidden_size]

        Crops come first, joined into one picture of h x w, then the global view, then the separator.
        """
        pictures = [self._features(global_view)]
        if crops is not None:
            batch, h, w = crops.shape[:3]
            features = self._features(crops.flatten(0, 2)).unflatten(0, (batch, h, w))
            pictures.insert(0, features.transpose(2, 3).flatten(3, 4).flatten(1, 2))
        separator = self.view_separator.expand(len(global_view), 1, -1)
        return torch.cat([*(self._with_newlines(picture) for picture in pictures), separator], dim=1)

    def _features(self, pixels: Tensor) -> Tensor:
        """[N, 3, side, side] → [N, s, s, hidden_size]"""
        sam: Tensor = self.sam(pixels).last_hidden_state
        clip = self.clip(sam)[:, 1:]
        both = torch.cat([clip, sam.flatten(2).transpose(1, 2)], dim=-1)
        return self.projector(both).unflatten(1, tuple(sam.shape[-2:]))

    def _with_newlines(self, picture: Tensor) -> Tensor:
        """[B, rows, columns, hidden_size] → [B, rows · (columns + 1), hidden_size]"""
        newlines = self.image_newline.expand(*picture.shape[:2], 1, -1)
        return torch.cat([picture, newlines], dim=2).flatten(1, 2)


def build_vision(dtype: torch.dtype = torch.bfloat16) -> DeepseekOCRVision:
    """The tower on meta, in evaluation mode, with parameters of ``dtype``: nothing is allocated."""
    with torch.device("meta"):
        return DeepseekOCRVision().to(dtype).eval()


TOWERS = {"deepseek-ocr": build_vision}
"""Every tower that can be built, by the name that presets give it."""


def load_vision(source: str, *, dtype: str | torch.dtype | None = None) -> DeepseekOCRVision:
    """The vision tower of a preset that has one, on meta; its dtype is by default the checkpoint's."""
    found = locate(source)
    if not isinstance(found, Preset) or found.vision not in TOWERS:
        having = [name for name in preset_names() if preset(name).vision]
        raise ModelError(f"no vision tower is known for {source}; presets with one: {', '.join(having)}")
    return TOWERS[found.vision](dtype_of(dtype, found.config))


def page_pixels(crops: CropGrid = (0, 0), *, batch: int = 1, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, ...]:
    """Arguments of the tower on meta, for ``batch`` pages with (rows, columns) of crops each."""
    shapes: list[tuple[int, ...]] = [(batch, 3, GLOBAL_SIDE, GLOBAL_SIDE)]
    if 0 not in crops:
        shapes.append((batch, *crops, 3, CROP_SIDE, CROP_SIDE))
    return tuple(torch.empty(shape, dtype=dtype, device="meta") for shape in shapes)
