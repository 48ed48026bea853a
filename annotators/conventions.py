"""The conventions behind every number: which choices there are, and which one is in force."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import get_args

from fxmeter.models.choices import Causal, Logits, Routing
from fxmeter.models.deployment import Deployment
from fxmeter.models.errors import ScenarioError


@dataclass(frozen=True, slots=True, kw_only=True)
class Conventions:
    """The choices behind every number, each a switch and each printed on every report.

    ``causal``: "full" counts every (query, key) pair; "exact" counts for a fused attention core only the pairs that
    its mask lets through, windows included (eager attention computes every pair whatever its mask says).
    ``logits``: "all" positions, what ``forward`` computes, the "last", what ``generate`` needs, or "none", as in a
    chunk of a prompt that is not the last.
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

    @property
    def words(self) -> list[str]:
        """Each with its name: "causal full"."""
        return [f"{name} {word}" for name, word in asdict(self).items()]

    @property
    def before_last(self) -> Conventions:
        """Those of the chunks of a prompt before its last one, whose logits nobody asks for unless all are wanted."""
        return replace(self, logits="none") if self.logits == "last" else self

    def under(self, deployment: Deployment, stage: str = "prefill") -> Conventions:
        """The conventions in force for a stage: an engine computes the pairs that a mask lets through and the logits of
        the last position of a prompt, whatever was asked for; of a decode step those of every new token, which is one
        unless drafted ones are checked."""
        if deployment.kernels == "transformers":
            return self
        wanted: Logits = "all" if stage == "decode" else "last"
        return replace(self, causal="exact", logits="none" if self.logits == "none" else wanted)


USUAL = Conventions()
"""What counts unless something else is asked for."""
