"""What each preset is, in a line of catalogue.json: read off the loaded models by `make catalogue`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

from fxmeter.models.presets import preset, preset_names


@dataclass(frozen=True, slots=True)
class Listed:
    """A preset in a line.

    Attributes:
        name: the preset's.
        layers: of the decoder, and of the encoder where there is one.
        experts: routed experts of a layer, and how many of them a token chooses; None where there are none.
        parameters: elements of the weights, tied ones once.
        active_parameters: those that decoding one token reads.
        context: the most positions that the config allows; None where it does not say.
        kv_bytes_at_context: what a sequence's cache takes with the whole context in it.
        format: the storage format of the weights.
        source: whose config.json it is.
    """

    name: str
    layers: int
    experts: tuple[int, int] | None
    parameters: int
    active_parameters: int
    context: int | None
    kv_bytes_at_context: int | None
    format: str
    source: str

    @property
    def kv_bytes_per_token(self) -> float | None:
        """What the cache takes for a token of the whole context: windows and states are spread over all of it."""
        if self.context is None or self.kv_bytes_at_context is None:
            return None
        return self.kv_bytes_at_context / self.context


def catalogue() -> tuple[Listed, ...]:
    """All presets, by name."""
    facts = json.loads(files("fxmeter.models").joinpath("catalogue.json").read_text(encoding="utf-8"))
    return tuple(
        Listed(
            name=name,
            source=preset(name).source,
            **{**facts[name], "experts": facts[name]["experts"] and tuple(facts[name]["experts"])},
        )
        for name in preset_names()
    )
