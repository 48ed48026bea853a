"""The conventions behind every number: which choices there are, and which one is in force."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fxmeter.models.errors import ScenarioError

CAUSAL = ("full", "exact")
LOGITS = ("all", "last")
ROUTING = ("uniform", "worst")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conventions:
    """The choices behind every number, each a switch and each printed on every report.

    ``causal``: "full" counts every (query, key) pair; "exact" counts for a fused attention core only the pairs that
    its mask lets through, windows included (eager attention computes every pair whatever its mask says).
    ``logits``: "all" positions, what ``forward`` computes, or the "last", what ``generate`` needs.
    ``routing``: weights of routed experts read: "uniform" expects E·(1−(1−k/E)^T) distinct ones for T tokens,
    "worst" has min(E, kT).
    """

    causal: Literal["full", "exact"] = "full"
    logits: Literal["all", "last"] = "all"
    routing: Literal["uniform", "worst"] = "uniform"

    def __post_init__(self) -> None:
        for name, allowed in (("causal", CAUSAL), ("logits", LOGITS), ("routing", ROUTING)):
            value = getattr(self, name)
            if value not in allowed:
                raise ScenarioError(f"{name} must be {' or '.join(map(repr, allowed))}, not {value!r}")
