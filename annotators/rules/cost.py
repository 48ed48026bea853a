"""What a rule says: the arithmetic of an op, and where its traffic is not the default, how many bytes move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fxmeter.models.stage_cost import StageCost

Cost = StageCost
"""A rule returns the FLOPs of its op in one of these; the pricing pass fills in the bytes."""


@dataclass(frozen=True, slots=True)
class Moves:
    """Bytes moved by an op, by argument name, where they are not the default. ``out`` is what the op returns.

    Default: an operand is read once, each of its distinct elements; an output with storage of its own is written
    once; an argument changed in place is read and written. A view moves nothing.
    """

    read: Mapping[str, Any] = field(default_factory=dict)
    written: Mapping[str, Any] = field(default_factory=dict)


def distinct_experts(experts: int, top_k: Any, tokens: Any, routing: str) -> Any:
    """Expected number of distinct experts that ``tokens`` tokens touch, ``top_k`` each.

    "uniform": each token takes top_k different experts, every choice equally likely, tokens independent: an expert
    is missed by one token with probability 1 − k/E, by all with (1 − k/E)^T.
    """
    if routing == "worst":
        return min(experts, top_k * tokens)
    return experts * (1 - (1 - top_k / experts) ** tokens)
