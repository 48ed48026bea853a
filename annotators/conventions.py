"""The conventions behind every number: which choices there are, and which one is in force."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

from fxmeter.models.choices import Causal, Logits, Routing
from fxmeter.models.deployment import Deployment
from fxmeter.models.errors import ScenarioError


@dataclass(frozen=True, slots=True, kw_only=True)
class Conventions:
    """The choices behind every number, each a switch and each printed on every report.

    ``causal``: "full" counts every (query, key) pair; "exact" counts for a fused attention core only the pairs that
    its mask lets through, windows included (eager attention computes every pair whatever its mask says).
    ``logits``: "all" positions, what ``forward`` computes, or the "last", what ``generate`` needs.
    ``routing``: weights of routed experts read: "uniform" expects E·(1−(1−k/E)^T) distinct ones for T tokens,
    "worst" has min(E, kT).
    """

    causal: Causal = "full"
    logits: Logits = "all"
    routing: Routing = "uniform"

    def __post_init__(self) -> None:
        for name, words in (("causal", Causal), ("logits", Logits), ("routing", Routing)):
            value = getattr(self, name)
            if value not in get_args(words):
                raise ScenarioError(f"{name} must be {' or '.join(map(repr, get_args(words)))}, not {value!r}")

    def under(self, deployment: Deployment) -> Conventions:
        """The conventions in force: an engine computes the logits of the last position and the pairs that a mask lets
        through, whatever was asked for."""
        if deployment.kernels == "transformers":
            return self
        return replace(self, causal="exact", logits="last")


USUAL = Conventions()
"""What counts unless something else is asked for."""
