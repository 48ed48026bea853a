"""Hand-written cost of multi-head latent attention, as transformers executes it and as a serving kernel does.

Architecture: DeepSeek-V2 (arXiv:2405.04434), section 2.1. The order of operations and the dtypes are those of
transformers' models/deepseek_v2 and models/deepseek_v3. Symbols as in `fxmeter.models.hand.llama`, and: r kv_lora_rank;
d_n, d_r and d_v the head sizes of queries and keys without position, of their rotated part, and of values.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from fxmeter.models.choices import Attention, Causal
from fxmeter.models.hand.layer import (
    FLOAT32_BYTES,
    INT64_BYTES,
    Layer,
    RMSNorm,
    TypedLayer,
    cast_bytes,
    pointwise,
    weights,
)
from fxmeter.models.hand.llama import cache_cost, rotate_half_cost
from fxmeter.models.sizes import Size
from fxmeter.models.stage_cost import StageCost

Rope = Literal["complex", "interleaved", "half"]
"""How q and k are rotated: V2, V3, or V3 with ``rope_interleave`` off."""

COMPLEX64_BYTES = 8
COMPLEX_PRODUCT_FLOPS = 4 + 2
"""(a + bi)(c + di): four products, two additions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepseekV2RotaryEmbedding(Layer):
    """exp(i·position·inv_freq), complex64, of S_q·d/2 angles that all sequences share.

    Vector, per angle: the product 1, polar 4 (cos, sin, and each times the magnitude 1), the scaling 2.
    Tensors: positions (int64, cast to float32), angles and magnitudes (float32), polar and scaled
    (complex64).
    """

    head_dim: int

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        angles = query_len * (self.head_dim // 2)
        position_bytes = query_len * FLOAT32_BYTES
        return StageCost(weight_read_bytes=self.head_dim // 2 * FLOAT32_BYTES) + pointwise(
            (1 + 4 + 2) * angles,
            read=query_len * INT64_BYTES + position_bytes + angles * (2 * FLOAT32_BYTES + COMPLEX64_BYTES),
            write=position_bytes + angles * (2 * FLOAT32_BYTES + 2 * COMPLEX64_BYTES),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentExpansion(TypedLayer):
    """kv_b_proj over the whole latent cache: B·S_kv rows, r → H·(d_n + d_v), at every step.

    A `Linear` without bias on S_kv rows, whose input is the cache: it counts as KV read.
    """

    kv_lora_rank: int
    out_features: int

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        cost = self.linear(self.kv_lora_rank, self.out_features).own(batch, kv_len, kv_len)
        return replace(cost, kv_read_bytes=cost.activation_read_bytes, activation_read_bytes=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsorbedProjection(TypedLayer):
    """kv_b_proj read as W_UK (r → d_n) and W_UV (r → d_v) of each head, and applied on the query side.

    Matmul 2·B·S_q·H·r·d_n to bring q_nope into latent space and 2·B·S_q·H·r·d_v to leave it. Reads q_nope and
    the attended latent, writes the latent query and the output.
    """

    num_attention_heads: int
    kv_lora_rank: int
    qk_nope_head_dim: int
    v_head_dim: int

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        e, rows = self.element_bytes, batch * query_len * self.num_attention_heads
        head_dims = self.qk_nope_head_dim + self.v_head_dim
        return (
            StageCost(matmul_flops=2 * rows * self.kv_lora_rank * head_dims)
            + weights(self.num_attention_heads * self.kv_lora_rank * head_dims * e)
            + pointwise(
                0,
                read=rows * (self.qk_nope_head_dim + self.kv_lora_rank) * e,
                write=rows * (self.kv_lora_rank + self.v_head_dim) * e,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepseekV2Attention(TypedLayer):
    """Multi-head latent attention as transformers executes it: cache the latent, expand all of it.

    Parts, on B·S_q rows: q_proj h → H·(d_n + d_r), or with a q_lora_rank r_q: q_a_proj h → r_q,
    q_a_layernorm, q_b_proj r_q → H·(d_n + d_r); kv_a_proj_with_mqa h → r + d_r; kv_a_layernorm over r; o_proj
    H·d_v → h; and kv_b_proj on the B·S_kv rows of the cache. ``attention_bias`` is on q_a_proj,
    kv_a_proj_with_mqa and o_proj.

    Own work: rotation of H query heads and one key head of d_r; the new latents and rotated keys, B·S_q·(r +
    d_r), appended to a cache that then holds B·S_kv·(r + d_r), of which kv_b_proj reads the latents and this
    the keys; query heads joined again, B·S_q·H·(d_n + d_r) read and written; key heads put together,
    B·S_kv·H·d_n read and B·S_kv·H·(d_n + d_r) written; the core, which reads B·S_kv·H·(d_n + d_r) of keys and
    B·S_kv·H·d_v of values.
    """

    hidden_size: int
    num_attention_heads: int
    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    attention: Attention = "eager"
    rope: Rope = "complex"
    attention_bias: bool = False
    causal: Causal = "full"

    def children(self) -> dict[str, Layer]:
        h, r = self.hidden_size, self.kv_lora_rank
        queries = self.num_attention_heads * (self.qk_nope_head_dim + self.qk_rope_head_dim)
        values = self.num_attention_heads * self.v_head_dim
        bias, rank = self.attention_bias, self.q_lora_rank
        from_input: dict[str, Layer] = {"q_proj": self.linear(h, queries)}
        if rank is not None:
            from_input = {
                "q_a_proj": self.linear(h, rank, bias=bias),
                "q_a_layernorm": self.typed(RMSNorm, hidden_size=rank),
                "q_b_proj": self.linear(rank, queries),
            }
        return {
            **from_input,
            "kv_a_proj_with_mqa": self.linear(h, r + self.qk_rope_head_dim, bias=bias),
            "kv_a_layernorm": self.typed(RMSNorm, hidden_size=r),
            "kv_b_proj": self._kv_b_proj(),
            "o_proj": self.linear(values, h, bias=bias),
        }

    def _kv_b_proj(self) -> Layer:
        out_features = self.num_attention_heads * (self.qk_nope_head_dim + self.v_head_dim)
        return self.typed(LatentExpansion, kv_lora_rank=self.kv_lora_rank, out_features=out_features)

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        e, heads = self.element_bytes, self.num_attention_heads
        qk_head_dim = self.qk_nope_head_dim + self.qk_rope_head_dim
        query_bytes = batch * query_len * heads * qk_head_dim * e
        key_bytes = batch * kv_len * heads * qk_head_dim * e
        nope_bytes = batch * kv_len * heads * self.qk_nope_head_dim * e
        value_bytes = batch * kv_len * heads * self.v_head_dim * e
        return (
            self._rotation(batch, query_len)
            + self._cache(batch, query_len, kv_len, read=self.qk_rope_head_dim)
            + pointwise(0, read=query_bytes + nope_bytes, write=query_bytes + key_bytes)
            + StageCost(activation_read_bytes=key_bytes + value_bytes)
            + self.core(heads, qk_head_dim, self.v_head_dim, self.attention, causal=self.causal).own(
                batch, query_len, kv_len
            )
        )

    def _cache(self, batch: Size, query_len: Size, kv_len: Size, *, read: int) -> StageCost:
        """Appended: r + d_r elements a token. Read of each: as many as ``read`` says."""
        token_bytes = (self.kv_lora_rank + self.qk_rope_head_dim) * self.element_bytes
        appended = cache_cost(batch, query_len, kv_len, token_bytes)
        return appended + StageCost(kv_read_bytes=batch * kv_len * read * self.element_bytes)

    def _rotation(self, batch: Size, query_len: Size) -> StageCost:
        """H query heads and one key head, d_r wide; p pairs of elements (x, y), each turned by an angle.

        complex: one complex product a pair. Written: the float32 copy, the product, its cast back. The angles,
        complex, are read once for q and once for k.

        interleaved: x·cos − y·sin and y·cos + x·sin, 6 FLOPs a pair. Written for each of them: two products and
        their difference or sum, and at last both joined: 2·3 + 2 = 8 elements a pair; read 2·(2 + 2) + 2 = 10.
        Half of cos and half of sin (S_q·d_r/2 each) are read for each of them, for q and for k.

        half: `rotate_half_cost`.
        """
        e, d = self.element_bytes, self.qk_rope_head_dim
        heads = self.num_attention_heads + 1
        if self.rope == "half":
            return rotate_half_cost(batch, query_len, heads=heads, head_dim=d, element_bytes=e)
        angles = query_len * (d // 2)
        pairs = batch * heads * angles
        if self.rope == "interleaved":
            return pointwise(6 * pairs, read=10 * pairs * e + 8 * angles * e, write=8 * pairs * e)
        up, down = cast_bytes(e)
        tensors_bytes = 2 * pairs * (up + FLOAT32_BYTES + down)
        return pointwise(
            COMPLEX_PRODUCT_FLOPS * pairs,
            read=tensors_bytes + 2 * angles * COMPLEX64_BYTES,
            write=tensors_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepseekV2AbsorbedAttention(DeepseekV2Attention):
    """The same attention as a serving kernel executes it (section 2.1.2): it never expands the cache.

    kv_b_proj is absorbed into the query and the output (`AbsorbedProjection`); the core is a fused kernel in
    latent space, d_qk = r + d_r and d_v = r, for all heads over one shared cache of B·S_kv·(r + d_r), read
    once. Parameters, cache and every other part are those of `DeepseekV2Attention`; it has no eager form.
    """

    attention: Attention = field(default="flash", init=False)

    def _kv_b_proj(self) -> Layer:
        names = ("num_attention_heads", "kv_lora_rank", "qk_nope_head_dim", "v_head_dim")
        return self.typed(AbsorbedProjection, **{name: getattr(self, name) for name in names})

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        latent_dim = self.kv_lora_rank + self.qk_rope_head_dim
        return (
            self._rotation(batch, query_len)
            + self._cache(batch, query_len, kv_len, read=latent_dim)
            + self.core(
                self.num_attention_heads, latent_dim, self.kv_lora_rank, self.attention, causal=self.causal
            ).own(batch, query_len, kv_len)
        )
