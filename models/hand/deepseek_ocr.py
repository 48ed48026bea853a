"""Hand-written cost of the DeepSeek-OCR decoder (arXiv:2510.18234); its vision tower is in `models.hand.vision_tower`.

A small DeepSeek-V2 mixture of experts whose attention is Llama's, multi-head, not latent (``use_mla`` false).
The order of operations and the dtypes are those of the text model in transformers' models/deepseek_ocr2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fxmeter.models.hand.deepseek import decoder_layers_from_config
from fxmeter.models.hand.layer import Attention, CausalLM, Decoder, check_silu, require
from fxmeter.models.hand.llama import LlamaRotaryEmbedding, RMSNorm, attention_from_config


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepseekOCRModel(CausalLM):
    """The decoder with its embedding and head: dense and sparse layers around `LlamaAttention`.

    Rotation is Llama's, cos and sin apart; the router is softmax and greedy; there are shared experts.
    """

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], *, attention: Attention = "eager", element_bytes: int = 2
    ) -> DeepseekOCRModel:
        """The decoder that the fields of a DeepseekOcr2TextConfig's config.json describe.

        Which layers are sparse, ``mlp_layer_types`` says or, in the vendor's file, ``first_k_dense_replace``.
        """
        check_silu(config)
        self_attn = attention_from_config(config, attention, element_bytes)
        hidden_size = self_attn.hidden_size
        model = Decoder(
            vocab_size=require(config, "vocab_size"),
            hidden_size=hidden_size,
            layers=decoder_layers_from_config(config, self_attn, element_bytes),
            norm=RMSNorm(hidden_size=hidden_size, element_bytes=element_bytes),
            rotary_emb=LlamaRotaryEmbedding(head_dim=self_attn.head_dim, element_bytes=element_bytes),
            attention=attention,
            element_bytes=element_bytes,
        )
        return cls(model=model, tie_word_embeddings=bool(config.get("tie_word_embeddings")))
