"""A pass that serving engines run: sequences that decode beside a chunk of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fxmeter.models.errors import ScenarioError
from fxmeter.models.scenario import Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedStep:
    """One pass in which sequences that decode share the weights with a chunk of a prompt: ``decodes`` are steps, each
    of a batch with a context of its own, ``prefill`` is the chunk."""

    decodes: tuple[Scenario, ...]
    prefill: Scenario

    def __post_init__(self) -> None:
        object.__setattr__(self, "decodes", tuple(self.decodes))
        steps = all(one.stage == "decode" and one.steps == 1 for one in self.decodes)
        if not (self.decodes and steps and self.prefill.stage == "prefill" and self.prefill.chunk is None):
            raise ScenarioError(
                "a mixed step is mixed([decode(C, batch=B), ...], prefill(S, past_len=P)), single passes"
            )
        if any(one.encoder_len is not None for one in self.parts):
            raise ScenarioError("a mixed step is of a decoder alone: leave encoder_len out")

    @property
    def stage(self) -> Literal["mixed"]:
        """Always "mixed"."""
        return "mixed"

    @property
    def parts(self) -> tuple[Scenario, ...]:
        """The passes that it joins, the chunk first."""
        return (self.prefill, *self.decodes)

    @property
    def batch(self) -> int:
        """Sequences, B."""
        return sum(one.batch for one in self.parts)

    @property
    def tokens(self) -> int:
        """New tokens of all sequences: as many rows has every product with a weight."""
        return sum(one.batch * one.query_len for one in self.parts)

    @property
    def joint(self) -> Scenario:
        """A pass of one sequence with as many new tokens: it reads the weights that the mixed step does, of routed
        experts those that so many tokens are expected to choose."""
        return replace(self.prefill, batch=1, query_len=self.tokens)


def mixed(decodes: Sequence[Scenario], prefill: Scenario) -> MixedStep:
    """Decode and process a chunk of a prompt in one pass, as serving engines do to keep decode going (Sarathi,
    arXiv:2308.16369; piggybacked decodes).

    Args:
        decodes: steps, such as ``[decode(4096, batch=31), decode(100)]``: one for each context.
        prefill: the chunk, such as ``prefill(512, past_len=1024)``.

    Returns:
        One pass. It costs what its parts cost, but reads each weight once; of routed experts as many as the tokens of
        all parts together are expected to choose. Peaks are the sums of the parts', which the pass does not exceed.

    Raises:
        ScenarioError: parts of another kind, or of several passes.
    """
    return MixedStep(decodes=tuple(decodes), prefill=prefill)
