"""A model in one line, as every report and document names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A part of a checkpoint that is not priced. ``parameters`` is None where nobody could count them."""

    name: str
    parameters: int | None


@dataclass(frozen=True, slots=True)
class PositionLimit:
    """The most positions that a config allows, and the field that says so."""

    field: str
    positions: int


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model in one line. ``parameters`` counts tied ones once, ``active_parameters`` those that one token reads.

    ``weights`` names the storage format of the weights, ``weight_bytes`` what they take in it, ``checkpoint_bytes``
    what the checkpoint's tensors do (saved buffers, and what it has twice), and ``adds`` the work that an engine does
    for the format and that is not priced. ``left_out`` is what else the checkpoint holds. ``layers`` are the decoder's,
    and the encoder's where there is one, ``further_layers`` those behind them that predict further tokens; ``limit``
    and ``encoder_limit`` the positions that each has, ``encoder_positions`` those that an encoder always has.
    ``config_sha256`` is the hash of its config (and of its tower's parameters), whatever transformers release wrote it,
    ``source_sha256`` that of what it was loaded from: the config as it is given, or the user's own code.
    """

    name: str
    model_type: str
    dtype: str
    parameters: int
    weight_bytes: int
    layers: int
    experts_implementation: str | None
    limit: PositionLimit | None
    encoder_limit: PositionLimit | None
    vision_parameters: int
    active_parameters: int | None
    weights: str = ""
    kv: str = ""
    kernels: str = "transformers"
    page_size: int | None = None
    sharding: Mapping[str, int] = field(default_factory=dict)
    adds: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    checkpoint_bytes: int = 0
    further_layers: int = 0
    encoder_positions: int | None = None
    kind: Literal["decoder", "encoder", "encoder-decoder"] = "decoder"
    config_sha256: str = ""
    source_sha256: str = ""

    @property
    def max_positions(self) -> int | None:
        """The longest context that the config allows."""
        return None if self.limit is None else self.limit.positions

    def warnings(self, tokens: int, encoder_len: int = 0) -> tuple[str, ...]:
        """What to say of a context of ``tokens``, and of so many positions of the encoder: that it goes beyond the
        model's positions, where it does."""
        asked = ((tokens, "tokens", self.limit), (encoder_len, "positions of the encoder", self.encoder_limit))
        return tuple(
            f"{count:,} {what} are more than this model's {limit.field}, {limit.positions:,}"
            for count, what, limit in asked
            if limit is not None and count > limit.positions
        )
