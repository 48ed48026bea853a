"""One forward pass, described by what is in it: the only place a sequence length is ever written down."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from fxmeter.models.errors import ScenarioError
from fxmeter.models.sizes import grid_of_crops, whole_number

__all__ = ["Scenario", "Stage", "VisionScenario", "decode", "encode", "generation", "prefill", "vision"]

Stage = Literal["encode", "prefill", "decode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One forward pass of ``batch`` sequences: ``query_len`` new tokens each, after ``past_len`` cached ones.

    ``kv_len``, what attention sees, is their sum: a token attends to itself. With ``steps`` > 1 (decode only) the pass
    is repeated, each one with the new tokens of those before it in the cache.

    ``encoder_len``, S_enc, is what the decoder of an encoder-decoder model attends to beside its own tokens: positions
    of its encoder's output. None where there is no encoder, or where the model's config alone says how many. The pass
    of the encoder itself, "encode", has them as its ``query_len``: they attend to each other, and none is cached.

    With ``chunk`` (prefill only) the ``query_len`` tokens are processed in passes of so many, the last of the rest.
    ``acceptance`` (decode only) is the probability that a drafted token, one of the ``query_len - 1`` that a step
    checks, is accepted.
    """

    stage: Stage
    batch: int
    query_len: int
    past_len: int
    steps: int = 1
    encoder_len: int | None = None
    chunk: int | None = None
    acceptance: float | None = None

    def __post_init__(self) -> None:
        for name, at_least in (("batch", 1), ("query_len", 1), ("past_len", 0), ("steps", 1)):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), at_least))
        if self.encoder_len is not None:
            object.__setattr__(self, "encoder_len", whole_number("encoder_len", self.encoder_len, 1))
        if self.stage == "encode" and (self.past_len, self.steps, self.encoder_len) != (0, 1, None):
            raise ScenarioError("the encoder's own pass has a batch and a query_len, nothing cached before it")
        if self.chunk is not None:
            object.__setattr__(self, "chunk", whole_number("chunk", self.chunk, 1))
            if self.stage != "prefill":
                raise ScenarioError(f"chunk is for a prefill, not for {self.stage}")
        if self.acceptance is not None and not (self.stage == "decode" and 0 <= self.acceptance <= 1):
            raise ScenarioError(f"acceptance is a probability, of drafted tokens in decode, not {self.acceptance!r}")

    @property
    def kv_len(self) -> int:
        """Tokens that the (first) pass attends to, in the cache when it ends: S_kv = C + S_q."""
        return self.past_len + self.query_len

    @property
    def final_kv_len(self) -> int:
        """Tokens in the cache when the last step ends."""
        return self.past_len + self.steps * self.query_len

    @property
    def passes(self) -> tuple[Scenario, ...]:
        """The single passes that it is made of, one after another: chunks of a prompt, or steps of a generation."""
        if self.chunk is None:
            return tuple(self.step(index) for index in range(self.steps))
        ends = (*self.starts[1:], self.query_len)
        return tuple(
            replace(self, query_len=end - start, past_len=self.past_len + start, chunk=None)
            for start, end in zip(self.starts, ends, strict=True)
        )

    @property
    def starts(self) -> range:
        """Where the chunks of a prompt begin, in its ``query_len`` tokens; 0 alone where it is processed whole."""
        return range(0, self.query_len, self.chunk or self.query_len)

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a sequence has more after each step.

        Of K drafted ones, each accepted with probability α and the first that is not ending them, and the one that the
        model itself adds: (1 − α^(K+1)) / (1 − α) are expected (Leviathan et al., 2023, arXiv:2211.17192, equation 1).
        Without ``acceptance`` all of them.
        """
        if self.acceptance is None or self.acceptance == 1:
            return self.query_len
        return (1 - self.acceptance**self.query_len) / (1 - self.acceptance)

    @property
    def encoder_positions(self) -> int | None:
        """The positions of the encoder in a pass, be it the encoder's own or one that attends to its output."""
        return self.query_len if self.stage == "encode" else self.encoder_len

    def step(self, index: int) -> Scenario:
        """The single pass that step ``index`` (from 0) is."""
        return replace(self, past_len=self.past_len + index * self.query_len, steps=1)


def encode(encoder_len: int, *, batch: int = 1) -> Scenario:
    """Run the encoder of an encoder-decoder model: once for a request, before the prefill.

    Args:
        encoder_len: positions that the encoder works on, S_enc: tokens of a text; of a recording what its frames
            become, of a picture its patches.
        batch: sequences, B.

    Returns:
        One pass, in which every position attends to all.

    Raises:
        ScenarioError: a size that is no whole number, or too small.
    """
    return Scenario(stage="encode", batch=batch, query_len=encoder_len, past_len=0)


def prefill(
    query_len: int,
    *,
    past_len: int = 0,
    batch: int = 1,
    encoder_len: int | None = None,
    chunk: int | None = None,
) -> Scenario:
    """Process a prompt, or a chunk of one, or one in chunks.

    Args:
        query_len: tokens of the prompt, S_q.
        past_len: tokens cached before them, C: not 0 for a later chunk of a chunked prefill, or where the cache of
            another request has the prompt's beginning.
        batch: sequences, B.
        encoder_len: of an encoder-decoder model, the positions of its encoder's output, S_enc; None for what its
            config fixes.
        chunk: tokens of a pass, as in the chunked prefill of serving engines (Sarathi, arXiv:2308.16369); None for all
            in one.

    Returns:
        One pass, in which S_kv = C + S_q; with ``chunk`` ⌈S_q / chunk⌉ passes, each after the tokens of those before.
        Its cost is the sum of theirs, memory that of the largest or last. With logits of the last position alone only
        the last chunk has any. With ``causal="exact"`` matmul FLOPs are those of the prompt in one pass (latent
        attention expands what is cached once more in each chunk); with "full" they are fewer, since a chunk's queries
        are not paired with the keys of chunks after it.

    Raises:
        ScenarioError: a size that is no whole number, or too small.
    """
    return Scenario(
        stage="prefill", batch=batch, query_len=query_len, past_len=past_len, encoder_len=encoder_len, chunk=chunk
    )


def decode(
    past_len: int,
    *,
    query_len: int = 1,
    batch: int = 1,
    encoder_len: int | None = None,
    acceptance: float | None = None,
) -> Scenario:
    """Generate the next token.

    Args:
        past_len: tokens cached before it, C.
        query_len: new tokens, S_q: more than 1 for multi-token decode, and for speculative decode, in which one pass
            checks K drafted tokens and adds one, S_q = K + 1. What drafts them is no part of it.
        batch: sequences, B.
        encoder_len: as for :func:`prefill`. What the decoder needs of it is cached, unless no token is.
        acceptance: probability that a drafted token is accepted, for ``tokens_per_step``.

    Returns:
        One pass. A new token attends to itself too: S_kv = C + S_q.

    Raises:
        ScenarioError: as for :func:`prefill`.
    """
    return Scenario(
        stage="decode",
        batch=batch,
        query_len=query_len,
        past_len=past_len,
        encoder_len=encoder_len,
        acceptance=acceptance,
    )


def generation(past_len: int, *, steps: int, batch: int = 1, encoder_len: int | None = None) -> Scenario:
    """Generate tokens, one at a time.

    Args:
        past_len: tokens cached before the first, C.
        steps: tokens to generate, K.
        batch: sequences, B.
        encoder_len: as for :func:`decode`.

    Returns:
        K passes, of which step j (from 0) attends to C + j + 1 tokens. FLOPs and traffic are sums over the steps;
        activations and peaks are those of the largest step, the KV cache that of the last; weights are resident once.

    Raises:
        ScenarioError: as for :func:`prefill`.
    """
    return Scenario(stage="decode", batch=batch, query_len=1, past_len=past_len, steps=steps, encoder_len=encoder_len)


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


def agreed_encoder_len(name: str, asked: int | None, fixed: int | None, *, option: str, how: str) -> int:
    """The positions of an encoder: those asked for by ``option``, or the ones that its config fixes.

    Raises ScenarioError where nobody says how many there are (``how`` it is said), or both do and differ.
    """
    if asked is not None and fixed is not None and asked != fixed:
        raise ScenarioError(f"{name}'s encoder always has {fixed:,} positions; {option} is {asked:,}")
    agreed = asked or fixed
    if agreed is None:
        raise ScenarioError(
            f"{name} attends to what its encoder read, and nothing says how long that is: give {how}, in positions of "
            "the encoder"
        )
    return agreed
