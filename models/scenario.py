"""One forward pass, described by what is in it: the only place a sequence length is ever written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fxmeter.models.sizes import grid_of_crops, whole_number

__all__ = ["Scenario", "Stage", "VisionScenario", "decode", "generation", "prefill", "vision"]

Stage = Literal["prefill", "decode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One forward pass of ``batch`` sequences: ``query_len`` new tokens each, after ``past_len`` cached ones.

    ``kv_len``, what attention sees, is their sum: a token attends to itself. With ``steps`` > 1 (decode only) the pass
    is repeated, each one with the new tokens of those before it in the cache.
    """

    stage: Stage
    batch: int
    query_len: int
    past_len: int
    steps: int = 1

    def __post_init__(self) -> None:
        for name, at_least in (("batch", 1), ("query_len", 1), ("past_len", 0), ("steps", 1)):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), at_least))

    @property
    def kv_len(self) -> int:
        """Tokens that the (first) pass attends to, in the cache when it ends: S_kv = C + S_q."""
        return self.past_len + self.query_len

    @property
    def final_kv_len(self) -> int:
        """Tokens in the cache when the last step ends."""
        return self.past_len + self.steps * self.query_len

    def step(self, index: int) -> Scenario:
        """The single pass that step ``index`` (from 0) is."""
        past = self.past_len + index * self.query_len
        return Scenario(stage=self.stage, batch=self.batch, query_len=self.query_len, past_len=past)


def prefill(query_len: int, *, past_len: int = 0, batch: int = 1) -> Scenario:
    """Process a prompt, or a chunk of one.

    Args:
        query_len: tokens of the prompt, S_q.
        past_len: tokens cached before them, C: not 0 for a later chunk of a chunked prefill.
        batch: sequences, B.

    Returns:
        One pass, in which S_kv = C + S_q.

    Raises:
        ScenarioError: a size that is no whole number, or too small.
    """
    return Scenario(stage="prefill", batch=batch, query_len=query_len, past_len=past_len)


def decode(past_len: int, *, query_len: int = 1, batch: int = 1) -> Scenario:
    """Generate the next token.

    Args:
        past_len: tokens cached before it, C.
        query_len: new tokens, S_q: more than 1 for speculative or multi-token decode.
        batch: sequences, B.

    Returns:
        One pass. A new token attends to itself too: S_kv = C + S_q.

    Raises:
        ScenarioError: as for :func:`prefill`.
    """
    return Scenario(stage="decode", batch=batch, query_len=query_len, past_len=past_len)


def generation(past_len: int, *, steps: int, batch: int = 1) -> Scenario:
    """Generate tokens, one at a time.

    Args:
        past_len: tokens cached before the first, C.
        steps: tokens to generate, K.
        batch: sequences, B.

    Returns:
        K passes, of which step j (from 0) attends to C + j + 1 tokens. FLOPs and traffic are sums over the steps;
        activations and peaks are those of the largest step, the KV cache that of the last; weights are resident once.

    Raises:
        ScenarioError: as for :func:`prefill`.
    """
    return Scenario(stage="decode", batch=batch, query_len=1, past_len=past_len, steps=steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionScenario:
    """One pass of a vision tower over ``batch`` pages: a global view each, and (rows, columns) of ``crops``."""

    crops: tuple[int, int]
    batch: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "crops", grid_of_crops(self.crops))
        object.__setattr__(self, "batch", whole_number("batch", self.batch, 1))

    @property
    def stage(self) -> Literal["vision"]:
        """Always "vision"."""
        return "vision"


def vision(*, crops: tuple[int, int] = (0, 0), batch: int = 1) -> VisionScenario:
    """Look at pages.

    Args:
        crops: (rows, columns) of crops beside each page's global view; (0, 0) for none.
        batch: pages, B.

    Returns:
        One pass of a vision tower.

    Raises:
        ScenarioError: as for :func:`prefill`.
    """
    return VisionScenario(crops=crops, batch=batch)
