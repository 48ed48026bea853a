"""What hand-written layer models are made of: the base class, plain layers, and the stack that joins them.

A layer model is a frozen record of sizes. Its formulas take the scenario as arguments: batch (B), query_len
(S_q) and kv_len (S_kv), each an int, a numpy integer array or a sympy symbol. e stands for ``element_bytes``.

Traffic follows the tensors that the Hugging Face code names, in its order and dtypes. Layout copies
(``contiguous``, the reshapes inside ``matmul``), integer bookkeeping and views are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fxmeter.models.errors import ModelError
from fxmeter.models.stage_cost import ZERO, StageCost

Size = Any
"""A length or a batch: int, numpy integer array or sympy symbol."""

Attention = Literal["eager", "flash"]

BOOL_BYTES = 1
FLOAT32_BYTES = 4
INT64_BYTES = 8


def cast_bytes(element_bytes: int) -> tuple[int, int]:
    """What a cast to float32, and a cast back, write per element. To a float32 tensor both are no-ops."""
    return (0, 0) if element_bytes == FLOAT32_BYTES else (FLOAT32_BYTES, element_bytes)


def require(config: Mapping[str, Any], name: str) -> Any:
    """The field ``name`` of a config.json."""
    try:
        return config[name]
    except KeyError:
        raise ModelError(f"the config has no field {name!r}; add it, as its config.json spells it") from None


def check_silu(config: Mapping[str, Any]) -> None:
    """Refuse a config whose MLP is gated by anything else."""
    if (activation := config.get("hidden_act", "silu")) != "silu":
        raise ModelError(f"hidden_act is {activation!r}; the hand-written layer models know only 'silu'")


class Layer:
    """A part of a model: its own operations, and the parts inside it under their names in the module tree."""

    __slots__ = ()

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        """Cost of the operations that belong to no part."""
        return ZERO

    def children(self) -> dict[str, Layer]:
        """The parts, by module name."""
        return {}

    def parts(self, batch: Size, query_len: Size, kv_len: Size) -> dict[str, StageCost]:
        """Cost of each part, by module name."""
        return {name: part.cost(batch, query_len, kv_len) for name, part in self.children().items()}

    def cost(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        """Cost of one forward pass: its own operations and all parts."""
        parts = self.parts(batch, query_len, kv_len)
        return self.own(batch, query_len, kv_len) + StageCost.total(parts.values())

    def modules(self, batch: Size, query_len: Size, kv_len: Size) -> dict[str, StageCost]:
        """Cumulative cost by module path; the layer itself is ``""``."""
        found = {"": self.cost(batch, query_len, kv_len)}
        for name, part in self.children().items():
            for path, cost in part.modules(batch, query_len, kv_len).items():
                found[f"{name}.{path}" if path else name] = cost
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear(Layer):
    """y = x Wᵀ + b for T = B·S_q rows (``torch.nn.Linear``).

    Matmul 2·T·in·out; a bias adds T·out vector FLOPs. Reads x (T·in), W (out·in) and b (out), writes y
    (T·out). A ``tied`` weight is read here and resident elsewhere.
    """

    in_features: int
    out_features: int
    bias: bool = False
    tied: bool = False
    element_bytes: int = 2

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        rows = batch * query_len
        bias = int(self.bias)  # sympy does not multiply by a bool
        weight_bytes = (self.in_features + bias) * self.out_features * self.element_bytes
        output_bytes = rows * self.out_features * self.element_bytes
        return StageCost(
            matmul_flops=2 * rows * self.in_features * self.out_features,
            vector_flops=bias * rows * self.out_features,
            weight_read_bytes=weight_bytes,
            activation_read_bytes=rows * self.in_features * self.element_bytes,
            activation_write_bytes=output_bytes,
            activation_bytes=output_bytes,
            weight_bytes=0 if self.tied else weight_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding(Layer):
    """A row of hidden_size for each of the B·S_q token ids (``torch.nn.Embedding``): no arithmetic.

    Reads the ids (int64) and the rows looked up, writes them; the whole table (vocab·h) is resident.
    """

    vocab_size: int
    hidden_size: int
    element_bytes: int = 2

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        tokens = batch * query_len
        rows_bytes = tokens * self.hidden_size * self.element_bytes
        return StageCost(
            weight_read_bytes=rows_bytes,
            activation_read_bytes=tokens * INT64_BYTES,
            activation_write_bytes=rows_bytes,
            activation_bytes=rows_bytes,
            weight_bytes=self.vocab_size * self.hidden_size * self.element_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SiLU(Layer):
    """silu(x) = x·sigmoid(x) on B·S_q rows of ``features``: 5 FLOPs an element (sigmoid 4, product 1)."""

    features: int
    element_bytes: int = 2

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        elements = batch * query_len * self.features
        return pointwise(5 * elements, read=elements * self.element_bytes, write=elements * self.element_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCore(Layer):
    """softmax(Q Kᵀ·scale + mask) V for H heads; Q and K d_qk wide, V d_v wide. P = B·H·S_q·S_kv pairs.

    Matmul 2·P·d_qk for Q Kᵀ and 2·P·d_v for the product with V. Vector: scale 1 and softmax 5 a pair.
    Reads Q (B·S_q·H·d_qk), writes the output (B·S_q·H·d_v). Reading K and V is left to the caller, who knows
    whether they come from the cache.

    Eager (``eager_attention_forward`` of modeling_llama.py) adds 1 FLOP a pair for the mask, and passes five
    buffers of P elements through memory, each written once and read once: the product, the scaled and the
    masked copy in the model's dtype, softmax in float32, and that cast back (no copy if it was float32
    already). The mask itself is B·S_q·S_kv, read once for all heads. Flash keeps all of this on chip (Dao et
    al., 2022).
    """

    num_attention_heads: int
    qk_head_dim: int
    v_head_dim: int
    attention: Attention
    element_bytes: int = 2

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        e = self.element_bytes
        rows = batch * query_len * self.num_attention_heads
        pairs = rows * kv_len
        fused = StageCost(
            matmul_flops=2 * pairs * (self.qk_head_dim + self.v_head_dim),
            vector_flops=(1 + 5) * pairs,
            activation_read_bytes=rows * self.qk_head_dim * e,
            activation_write_bytes=rows * self.v_head_dim * e,
            activation_bytes=rows * self.v_head_dim * e,
        )
        if self.attention == "flash":
            return fused
        _, down = cast_bytes(e)
        buffers_bytes = pairs * (e + e + e + FLOAT32_BYTES + down)
        mask_bytes = batch * query_len * kv_len * e
        return fused + pointwise(pairs, read=buffers_bytes + mask_bytes, write=buffers_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder(Layer):
    """``model`` of a Hugging Face causal LM: embedding, decoder layers, final norm, rotary embedding.

    Its own work, eager only, is the causal mask (``eager_mask`` of masking_utils.py): a boolean S_q·S_kv,
    written and read, and the additive mask B·S_q·S_kv in the model's dtype. It is all comparisons of
    integers: no FLOPs.
    """

    vocab_size: int
    hidden_size: int
    layers: tuple[Layer, ...]
    norm: Layer
    rotary_emb: Layer
    attention: Attention
    element_bytes: int = 2

    def children(self) -> dict[str, Layer]:
        table = Embedding(vocab_size=self.vocab_size, hidden_size=self.hidden_size, element_bytes=self.element_bytes)
        layers = {f"layers.{index}": layer for index, layer in enumerate(self.layers)}
        return {"embed_tokens": table, **layers, "norm": self.norm, "rotary_emb": self.rotary_emb}

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        if self.attention == "flash":
            return ZERO
        boolean_bytes = query_len * kv_len * BOOL_BYTES
        mask_bytes = batch * query_len * kv_len * self.element_bytes
        return pointwise(0, read=boolean_bytes, write=boolean_bytes + mask_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class CausalLM(Layer):
    """A whole model: ``model``, then ``lm_head`` on every one of the B·S_q positions, without bias."""

    model: Decoder
    tie_word_embeddings: bool

    def children(self) -> dict[str, Layer]:
        head = Linear(
            in_features=self.model.hidden_size,
            out_features=self.model.vocab_size,
            tied=self.tie_word_embeddings,
            element_bytes=self.model.element_bytes,
        )
        return {"model": self.model, "lm_head": head}


def pointwise(flops: Size, *, read: Size, write: Size) -> StageCost:
    """Element-wise operations: what they read, and the new tensors they write."""
    return StageCost(
        vector_flops=flops, activation_read_bytes=read, activation_write_bytes=write, activation_bytes=write
    )
