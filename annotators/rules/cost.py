"""What a rule says: the arithmetic of an op, how it fuses, and the bytes that it moves if not the default ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fxmeter.models.stage_cost import Size

Fuses = Literal["pointwise", "reduction", "gather", "scatter", "alone"]
"""How an op shares a kernel with others, by the policy of :mod:`fxmeter.annotators.pricing.fusion`.

"pointwise": with whatever makes its operands and uses its result; copies, creations and views that copy among them.
"reduction": the same, but only with other reductions over equally many elements.
"gather": with what uses its rows; its first operand is in memory.
"scatter": with what makes its values; its result is in memory.
"alone": a kernel of its own.
"""


@dataclass(frozen=True, slots=True)
class Flops:
    """The arithmetic of one execution of an op: all that a rule's formula returns."""

    matmul: Size = 0
    """Matrix products, convolutions and attention cores, 2 per multiply-accumulate."""
    vector: Size = 0
    """All other floating-point arithmetic, by the table that ``fxmeter ops`` prints."""

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.matmul + other.matmul, self.vector + other.vector)


@dataclass(frozen=True, slots=True)
class Moves:
    """Bytes moved by an op, by argument name, where they are not the default. ``out`` is what the op returns.

    Default: an operand is read once, each of its distinct elements; an output with storage of its own is written
    once; an argument changed in place is read and written. A view moves nothing.
    """

    read: Mapping[str, Size] = field(default_factory=dict)
    written: Mapping[str, Size] = field(default_factory=dict)
    sent: Size = 0
    """To other devices: nothing, unless the op is a collective."""


def distinct_experts(experts: int, top_k: Size, tokens: Size, routing: str) -> Size:
    """Expected number of distinct experts that ``tokens`` tokens touch, ``top_k`` each.

    "uniform": each token takes top_k different experts, every choice equally likely, tokens independent: an expert
    is missed by one token with probability 1 − k/E, by all with (1 − k/E)^T.
    """
    if routing == "worst":
        return min(experts, top_k * tokens)
    return experts * (1 - (1 - top_k / experts) ** tokens)
