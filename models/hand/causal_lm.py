"""The stack that joins hand-written decoder layers to a model, and how it is read from a config.json."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from fxmeter.models.choices import Attention, Logits
from fxmeter.models.errors import ModelError
from fxmeter.models.hand.layer import BOOL_BYTES, INT64_BYTES, Embedding, Layer, RMSNorm, TypedLayer, pointwise
from fxmeter.models.names import Fields
from fxmeter.models.sizes import Size
from fxmeter.models.stage_cost import StageCost


def require(config: Fields, name: str) -> Any:
    """The field ``name`` of a config.json."""
    try:
        return config[name]
    except KeyError:
        raise ModelError(f"the config has no field {name!r}; add it, as its config.json spells it") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder(TypedLayer):
    """``model`` of a Hugging Face causal LM: embedding, decoder layers, final norm, rotary embedding.

    Its own work is the positions of the S_q new tokens, int64 and the same for all sequences: counted from 0, then
    moved by the cached length. Eager makes the causal mask too (``eager_mask`` of masking_utils.py): a boolean
    S_q·S_kv, written and read, and the additive mask B·S_q·S_kv in the model's dtype. It is all integers and
    comparisons: no FLOPs.
    """

    vocab_size: int
    hidden_size: int
    layers: tuple[Layer, ...]
    norm: Layer
    rotary_emb: Layer
    attention: Attention

    def children(self) -> dict[str, Layer]:
        table = self.typed(Embedding, vocab_size=self.vocab_size, hidden_size=self.hidden_size)
        layers = {f"layers.{index}": layer for index, layer in enumerate(self.layers)}
        return {"embed_tokens": table, **layers, "norm": self.norm, "rotary_emb": self.rotary_emb}

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        position_bytes = query_len * INT64_BYTES
        positions = pointwise(0, read=position_bytes, write=2 * position_bytes)
        if self.attention == "flash":
            return positions
        boolean_bytes = query_len * kv_len * BOOL_BYTES
        mask_bytes = batch * query_len * kv_len * self.element_bytes
        return positions + pointwise(0, read=boolean_bytes, write=boolean_bytes + mask_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class CausalLM(Layer):
    """A whole model: ``model``, then ``lm_head`` without bias on every one of the B·S_q positions, or with ``logits``
    "last" on the last of each sequence."""

    model: Decoder
    tie_word_embeddings: bool
    logits: Logits = "all"

    def children(self) -> dict[str, Layer]:
        head = self.model.linear(self.model.hidden_size, self.model.vocab_size)
        return {"model": self.model, "lm_head": replace(head, tied=self.tie_word_embeddings)}

    def inside(self, name: str, batch: Size, query_len: Size, kv_len: Size) -> tuple[Size, Size, Size]:
        return (batch, 1, kv_len) if name == "lm_head" and self.logits == "last" else (batch, query_len, kv_len)

    @classmethod
    def around(
        cls,
        layers: tuple[Layer, ...],
        rotary_emb: Layer,
        config: Fields,
        attention: Attention,
        element_bytes: int,
    ) -> Self:
        """Decoder layers with what the fields of a config.json put around them.

        Raises ModelError for a field that is missing, and for an MLP that is gated by anything but silu.
        """
        if (activation := config.get("hidden_act", "silu")) != "silu":
            raise ModelError(f"hidden_act is {activation!r}; the hand-written layer models know only 'silu'")
        hidden_size = require(config, "hidden_size")
        model = Decoder(
            vocab_size=require(config, "vocab_size"),
            hidden_size=hidden_size,
            layers=layers,
            norm=RMSNorm(hidden_size=hidden_size, element_bytes=element_bytes),
            rotary_emb=rotary_emb,
            attention=attention,
            element_bytes=element_bytes,
        )
        return cls(model=model, tie_word_embeddings=bool(config.get("tie_word_embeddings")))
