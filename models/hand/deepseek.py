"""Hand-written cost of a DeepSeek decoder layer, of whole DeepSeek-V2, V2-Lite and V3 models, and of DeepSeek-OCR.

Its parts, mixture of experts and latent attention, are in `fxmeter.models.hand.moe` and `fxmeter.models.hand.mla`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from fxmeter.models.choices import Attention
from fxmeter.models.errors import ModelError
from fxmeter.models.hand.causal_lm import CausalLM, require
from fxmeter.models.hand.layer import Layer
from fxmeter.models.hand.llama import LlamaDecoderLayer, LlamaRotaryEmbedding, attention_from_config
from fxmeter.models.hand.mla import DeepseekV2AbsorbedAttention, DeepseekV2Attention, DeepseekV2RotaryEmbedding, Rope
from fxmeter.models.hand.moe import DeepseekV2Experts, DeepseekV2MLP, DeepseekV2MoE, MoEGate, TopkMethod
from fxmeter.models.names import Document, Fields


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepseekV2DecoderLayer(LlamaDecoderLayer):
    """Llama's residual block, around latent or Llama's attention and a dense MLP or a mixture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepseekModel(CausalLM):
    """``DeepseekV2ForCausalLM``, ``DeepseekV3ForCausalLM``: dense layers first, then mixtures of experts."""

    @classmethod
    def from_config(
        cls,
        config: Fields,
        *,
        attention: Attention = "eager",
        absorbed: bool = False,
        element_bytes: int = 2,
    ) -> Self:
        """The model that the fields of a DeepseekV2Config's or DeepseekV3Config's config.json describe.

        V3 is told by ``model_type``: sigmoid routing, interleaved rotation, cos and sin apart, no bias in its
        MLPs. ``absorbed`` takes `DeepseekV2AbsorbedAttention`, which is a fused kernel: for flash only.
        """
        if absorbed and attention != "flash":
            raise ModelError(f"absorbed attention is a fused kernel; with it, say 'flash', not {attention!r}")
        rope_head_dim = require(config, "qk_rope_head_dim")
        rope: Rope = "complex"
        rotary_emb: Layer = DeepseekV2RotaryEmbedding(head_dim=rope_head_dim)
        if require(config, "model_type") == "deepseek_v3":
            rope = "interleaved" if config.get("rope_interleave", True) else "half"
            rotary_emb = LlamaRotaryEmbedding(head_dim=rope_head_dim, element_bytes=element_bytes)
        dims = ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        sizes: Document = {
            **{name: require(config, name) for name in ("hidden_size", "num_attention_heads", *dims)},
            "rope": rope,
            "attention_bias": bool(config.get("attention_bias")),
            "element_bytes": element_bytes,
        }
        self_attn = DeepseekV2AbsorbedAttention(**sizes) if absorbed else None
        layers = decoder_layers(config, self_attn or DeepseekV2Attention(attention=attention, **sizes), element_bytes)
        return cls.around(layers, rotary_emb, config, attention, element_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepseekOCRModel(CausalLM):
    """DeepSeek-OCR's decoder (arXiv:2510.18234): a small DeepSeek-V2 mixture whose attention is Llama's, multi-head,
    not latent (``use_mla`` false). Its vision tower is in `fxmeter.models.hand.vision_tower`.

    Rotation is Llama's, cos and sin apart; the router is softmax and greedy; there are shared experts. The order of
    operations and the dtypes are those of the text model in transformers' models/deepseek_ocr2.
    """

    @classmethod
    def from_config(cls, config: Fields, *, attention: Attention = "eager", element_bytes: int = 2) -> Self:
        """The decoder that the fields of a DeepseekOcr2TextConfig's config.json describe.

        Which layers are sparse, ``mlp_layer_types`` says or, in the vendor's file, ``first_k_dense_replace``.
        """
        self_attn = attention_from_config(config, attention, element_bytes)
        rotary_emb = LlamaRotaryEmbedding(head_dim=self_attn.head_dim, element_bytes=element_bytes)
        layers = decoder_layers(config, self_attn, element_bytes)
        return cls.around(layers, rotary_emb, config, attention, element_bytes)


def decoder_layers(config: Fields, self_attn: Layer, element_bytes: int) -> tuple[Layer, ...]:
    """All decoder layers: dense or sparse by ``mlp_layer_types``, else by ``first_k_dense_replace``."""
    is_v3 = config.get("model_type") == "deepseek_v3"
    hidden_size, inner = require(config, "hidden_size"), require(config, "moe_intermediate_size")
    mlp_bias = False if is_v3 else bool(config.get("mlp_bias"))
    routed = {
        "hidden_size": hidden_size,
        "n_routed_experts": require(config, "n_routed_experts"),
        "num_experts_per_tok": require(config, "num_experts_per_tok"),
        "element_bytes": element_bytes,
    }

    def mlp(intermediate_size: int) -> DeepseekV2MLP:
        return DeepseekV2MLP(
            hidden_size=hidden_size,
            intermediate_size=intermediate_size,
            mlp_bias=mlp_bias,
            element_bytes=element_bytes,
        )

    def layer(feed_forward: Layer) -> Layer:
        return DeepseekV2DecoderLayer(
            hidden_size=hidden_size, self_attn=self_attn, mlp=feed_forward, element_bytes=element_bytes
        )

    mixture = DeepseekV2MoE(
        gate=MoEGate(
            topk_method=_topk_method(config),
            n_group=config.get("n_group") or 1,
            topk_group=config.get("topk_group") or 1,
            norm_topk_prob=bool(config.get("norm_topk_prob")),
            **routed,
        ),
        experts=DeepseekV2Experts(moe_intermediate_size=inner, **routed),
        shared_experts=mlp(inner * require(config, "n_shared_experts")),
    )
    kinds = {"dense": layer(mlp(require(config, "intermediate_size"))), "sparse": layer(mixture)}
    return tuple(kinds[kind] for kind in mlp_layer_types(config))


def mlp_layer_types(config: Fields) -> list[str]:
    """ "dense" or "sparse" for each layer."""
    layers = require(config, "num_hidden_layers")
    if config.get("mlp_layer_types") is not None:
        return list(config["mlp_layer_types"])
    dense = require(config, "first_k_dense_replace")
    return ["dense" if index < dense else "sparse" for index in range(layers)]


def _topk_method(config: Fields) -> TopkMethod:
    if config.get("model_type") == "deepseek_v3":
        return "noaux_tc"
    match config.get("topk_method", "greedy"):
        case "greedy":
            return "greedy"
        case "group_limited_greedy":
            return "group_limited_greedy"
        case other:
            raise ModelError(f"topk_method is {other!r}; DeepSeek-V2 has 'greedy' and 'group_limited_greedy'")
