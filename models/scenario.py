"""One forward pass, described by what is in it: the only place a sequence length is ever written down."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Literal

from models.errors import ScenarioError

Stage = Literal["prefill", "decode"]

LARGEST_SIZE = 10**9
"""A batch or length above this is taken for a slip of the keyboard (10^9 tokens is 100 times any context sold)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One forward pass of ``batch`` sequences: ``query_len`` new tokens each, after ``past_len`` cached ones.

    ``kv_len``, what attention sees, is their sum: a token attends to itself.
    """

    stage: Stage
    batch: int
    query_len: int
    past_len: int

    def __post_init__(self) -> None:
        for name, at_least in (("batch", 1), ("query_len", 1), ("past_len", 0)):
            object.__setattr__(self, name, _size(name, getattr(self, name), at_least))

    @property
    def kv_len(self) -> int:
        """Tokens in the cache when the pass ends: S_kv = C + S_q."""
        return self.past_len + self.query_len


def prefill(query_len: int, *, past_len: int = 0, batch: int = 1) -> Scenario:
    """Process ``query_len`` prompt tokens; with ``past_len``, a later chunk of a chunked prefill."""
    return Scenario(stage="prefill", batch=batch, query_len=query_len, past_len=past_len)


def decode(past_len: int, *, query_len: int = 1, batch: int = 1) -> Scenario:
    """Generate the next token with ``past_len`` tokens cached; ``query_len`` > 1 is speculative decode."""
    return Scenario(stage="decode", batch=batch, query_len=query_len, past_len=past_len)


def _size(name: str, value: object, at_least: int) -> int:
    """``value`` as an int in [at_least, LARGEST_SIZE], or a ScenarioError that names it."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ScenarioError(f"{name} must be a whole number, not {value!r}") from None
    if number < at_least:
        raise ScenarioError(f"{name} must be at least {at_least}, not {number}")
    if number > LARGEST_SIZE:
        raise ScenarioError(f"{name} is {number}; the largest accepted is {LARGEST_SIZE:,}")
    return number
