"""Hand-written cost of Llama's layers and of a whole Llama model.

The architecture is that of Touvron et al., 2023 (arXiv:2302.13971); the order of operations and the dtypes
are those of transformers' models/llama/modeling_llama.py. Symbols: B batch, S_q query_len, S_kv kv_len, h
hidden_size, H query heads, H_kv key/value heads, d head_dim, e element_bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from fxmeter.models.choices import Attention, Causal
from fxmeter.models.hand.causal_lm import CausalLM, require
from fxmeter.models.hand.layer import (
    FLOAT32_BYTES,
    INT64_BYTES,
    Layer,
    ResidualBlock,
    RMSNorm,
    SiLU,
    TypedLayer,
    binary,
    cast_bytes,
    pointwise,
)
from fxmeter.models.names import Fields
from fxmeter.models.sizes import Size
from fxmeter.models.stage_cost import ZERO, StageCost


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaRotaryEmbedding(TypedLayer):
    """cos and sin of position·inv_freq, computed once a pass for S_q positions that all sequences share.

    Su et al., 2021 (arXiv:2104.09864); element-wise in transformers 5.23, so no matmul and no B.
    Vector: S_q·d/2 angles by 1 product; over S_q·d (the angles twice): cos 1, sin 1, and each times the
    scaling 1. Tensors: positions (int64, cast to float32), angles, angles twice (one read joins them with
    themselves), cos, sin and both scaled (float32), both cast. The buffer inv_freq (d/2 float32) is read; it is
    not a parameter.
    """

    head_dim: int

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        up, down = cast_bytes(self.element_bytes)
        angles = query_len * (self.head_dim // 2)
        elements = 2 * angles
        position_bytes, angles_bytes = query_len * FLOAT32_BYTES, angles * FLOAT32_BYTES
        return StageCost(weight_read_bytes=self.head_dim // 2 * FLOAT32_BYTES) + pointwise(
            angles + 4 * elements,
            read=query_len * INT64_BYTES + position_bytes + angles_bytes + elements * (4 * FLOAT32_BYTES + 2 * up),
            write=position_bytes + angles_bytes + elements * (5 * FLOAT32_BYTES + 2 * down),
        )


def rotate_half_cost(batch: Size, query_len: Size, *, heads: int, head_dim: int, element_bytes: int) -> StageCost:
    """x·cos + rotate_half(x)·sin for q and k, ``heads`` of them together (``apply_rotary_pos_emb``).

    Per pair of elements: x·cos 2, negate one half 1, times sin 2, add 2 = 7 vector FLOPs. Tensors, in
    elements of a pair: x·cos 2, the negated half 1, the concatenation 2, its product 2, the sum 2 = 9
    written, and 2 + 1 + 2 + 2 + 4 = 11 read; cos and sin (S_q·d each, no batch) are read once for q and once
    for k.
    """
    pairs = batch * query_len * heads * (head_dim // 2)
    angles_bytes = query_len * head_dim * element_bytes
    return pointwise(7 * pairs, read=11 * pairs * element_bytes + 4 * angles_bytes, write=9 * pairs * element_bytes)


def cache_cost(batch: Size, query_len: Size, kv_len: Size, token_bytes: int) -> StageCost:
    """New entries of ``token_bytes`` each, appended to a cache that then has S_kv of them. Reading is left out."""
    return StageCost(
        activation_read_bytes=batch * query_len * token_bytes,
        kv_write_bytes=batch * query_len * token_bytes,
        kv_bytes=batch * kv_len * token_bytes,
        kv_storage_bytes=batch * kv_len * token_bytes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaAttention(TypedLayer):
    """Grouped-query attention, eager (Ainslie et al. 2023; ``LlamaAttention``). H_kv = H is multi-head.

    Parts: q_proj h → H·d, k_proj and v_proj h → H_kv·d, o_proj H·d → h, on B·S_q rows.

    Own work: rotation of H + H_kv heads; the new keys and values, 2·B·S_q·H_kv·d, appended to a cache that then holds
    2·B·S_kv·H_kv·d, all of it read; the core (`AttentionCore`) with d_qk = d_v = d. Under GQA eager repeats the cache
    for each query head (``repeat_kv``): 2·B·S_kv·H·d written and read again.
    """

    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    attention_bias: bool = False
    causal: Causal = "full"

    attention: ClassVar[Attention] = "eager"

    def children(self) -> dict[str, Layer]:
        queries = self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        return {
            "q_proj": self.linear(self.hidden_size, queries, bias=self.attention_bias),
            "k_proj": self.linear(self.hidden_size, keys, bias=self.attention_bias),
            "v_proj": self.linear(self.hidden_size, keys, bias=self.attention_bias),
            "o_proj": self.linear(queries, self.hidden_size, bias=self.attention_bias),
        }

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        e, heads, d = self.element_bytes, self.num_attention_heads, self.head_dim
        token_bytes = 2 * self.num_key_value_heads * d * e
        return (
            rotate_half_cost(batch, query_len, heads=heads + self.num_key_value_heads, head_dim=d, element_bytes=e)
            + cache_cost(batch, query_len, kv_len, token_bytes)
            + StageCost(kv_read_bytes=batch * kv_len * token_bytes)
            + self._repeated(batch, kv_len)
            + self.core(heads, d, d, self.attention, causal=self.causal).own(batch, query_len, kv_len)
        )

    def _repeated(self, batch: Size, kv_len: Size) -> StageCost:
        if self.attention == "flash" or self.num_attention_heads == self.num_key_value_heads:
            return ZERO
        expanded_bytes = 2 * batch * kv_len * self.num_attention_heads * self.head_dim * self.element_bytes
        return pointwise(0, read=expanded_bytes, write=expanded_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaFlashAttention2(LlamaAttention):
    """The same attention by FlashAttention-2 (Dao, 2023): no score, probability or repeated K/V buffers.

    Matmul FLOPs are equal (every pair, as the convention has it), vector FLOPs lack the addition of the mask.
    """

    attention: ClassVar[Attention] = "flash"


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaMLP(TypedLayer):
    """SwiGLU: down(silu(gate(x))·up(x)) (Shazeer, 2020; ``LlamaMLP``), intermediate_size I.

    Parts: gate_proj and up_proj h → I, down_proj I → h, act_fn on B·S_q·I elements.
    Own work: the product of gate and up, 1 FLOP an element, reading both and writing one.
    """

    hidden_size: int
    intermediate_size: int
    mlp_bias: bool = False

    def children(self) -> dict[str, Layer]:
        return {
            "gate_proj": self.linear(self.hidden_size, self.intermediate_size, bias=self.mlp_bias),
            "up_proj": self.linear(self.hidden_size, self.intermediate_size, bias=self.mlp_bias),
            "down_proj": self.linear(self.intermediate_size, self.hidden_size, bias=self.mlp_bias),
            "act_fn": self.typed(SiLU, features=self.intermediate_size),
        }

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        return binary(batch * query_len * self.intermediate_size, self.element_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaDecoderLayer(ResidualBlock):
    """`ResidualBlock` with RMS norms, around any attention and any MLP on h."""

    self_attn: Layer
    mlp: Layer

    def children(self) -> dict[str, Layer]:
        norm = self.typed(RMSNorm, hidden_size=self.hidden_size)
        around = {"input_layernorm": norm, "post_attention_layernorm": norm}
        return {"self_attn": self.self_attn, "mlp": self.mlp, **around}


def attention_from_config(config: Fields, attention: Attention, element_bytes: int) -> LlamaAttention:
    """The attention of a LlamaConfig; ``num_key_value_heads`` and ``head_dim`` may be absent or null."""
    hidden_size, heads = require(config, "hidden_size"), require(config, "num_attention_heads")
    kind = LlamaAttention if attention == "eager" else LlamaFlashAttention2
    return kind(
        hidden_size=hidden_size,
        num_attention_heads=heads,
        num_key_value_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or hidden_size // heads,
        attention_bias=bool(config.get("attention_bias")),
        element_bytes=element_bytes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaModel(CausalLM):
    """``LlamaForCausalLM``: L equal decoder layers between the embedding and the head."""

    @classmethod
    def from_config(cls, config: Fields, *, attention: Attention = "eager", element_bytes: int = 2) -> Self:
        """The model that the fields of a LlamaConfig's config.json describe."""
        self_attn = attention_from_config(config, attention, element_bytes)
        mlp = LlamaMLP(
            hidden_size=self_attn.hidden_size,
            intermediate_size=require(config, "intermediate_size"),
            mlp_bias=bool(config.get("mlp_bias")),
            element_bytes=element_bytes,
        )
        layer = LlamaDecoderLayer(
            hidden_size=self_attn.hidden_size, self_attn=self_attn, mlp=mlp, element_bytes=element_bytes
        )
        rotary_emb = LlamaRotaryEmbedding(head_dim=self_attn.head_dim, element_bytes=element_bytes)
        layers = (layer,) * require(config, "num_hidden_layers")
        return cls.around(layers, rotary_emb, config, attention, element_bytes)
