"""Layer models written by hand from the architecture: formulas over plain numbers, never derived from a trace."""

from fxmeter.models.hand.deepseek import DeepseekModel, DeepseekOCRModel, DeepseekV2DecoderLayer
from fxmeter.models.hand.layer import AttentionCore, Embedding, Linear, RMSNorm
from fxmeter.models.hand.llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaFlashAttention2,
    LlamaMLP,
    LlamaModel,
    LlamaRotaryEmbedding,
)
from fxmeter.models.hand.mla import DeepseekV2AbsorbedAttention, DeepseekV2Attention
from fxmeter.models.hand.moe import DeepseekV2Experts, DeepseekV2MLP, DeepseekV2MoE, MoEGate
from fxmeter.models.hand.sam import SamEncoder
from fxmeter.models.hand.vision_tower import ClipEncoder, DeepseekOCRVision

__all__ = [
    "AttentionCore",
    "ClipEncoder",
    "DeepseekModel",
    "DeepseekOCRModel",
    "DeepseekOCRVision",
    "DeepseekV2AbsorbedAttention",
    "DeepseekV2Attention",
    "DeepseekV2DecoderLayer",
    "DeepseekV2Experts",
    "DeepseekV2MLP",
    "DeepseekV2MoE",
    "Embedding",
    "Linear",
    "LlamaAttention",
    "LlamaDecoderLayer",
    "LlamaFlashAttention2",
    "LlamaMLP",
    "LlamaModel",
    "LlamaRotaryEmbedding",
    "MoEGate",
    "RMSNorm",
    "SamEncoder",
]
