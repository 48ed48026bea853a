"""Chunked prefill: prompts in passes of at most so many tokens, as serving engines do it.

    prompts no longer than M tokens    ⌊M / S⌋ whole prompts in a pass
    longer prompts                     one after another, each in passes of M tokens after what is cached, and a rest

An engine also fills the rest of a pass with the beginning of the next prompt; that is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import mul

import numpy as np

from fxmeter.annotators.closed.form import ClosedForm
from fxmeter.annotators.timing.stage_time import Time
from fxmeter.models.devices import Device
from fxmeter.models.names import Document
from fxmeter.models.stage_cost import FIELDS, FIGURES, StageCost

ENGINE_TOKENS = 8192
"""Tokens of a pass at most, as vLLM (``max_num_batched_tokens``) and SGLang (``chunked_prefill_size``) have it on
devices with 80 GB."""

SUMS, LARGEST = ([name for name in FIELDS if FIGURES[name].over_steps == how] for how in ("sum", "max"))


@dataclass(frozen=True, slots=True)
class Passes:
    """The passes that a prefill is made of, as columns: how many of each, sequences, new tokens, tokens cached.

    The last two have the most of everything that is alive at one moment: the last whole chunk, and the rest.
    """

    times: np.ndarray
    batch: np.ndarray
    query_len: np.ndarray
    past_len: np.ndarray

    def sizes(self, part: slice = slice(None)) -> Document:
        """As a closed form takes them."""
        return {"batch": self.batch[part], "query_len": self.query_len[part], "past_len": self.past_len[part]}


def passes(batch: int, prompt: int, most: int | None, *, last: bool = False) -> Passes:
    """Those of ``batch`` prompts of ``prompt`` tokens, each of at most ``most`` tokens; None: all in one. With
    ``last`` only the last two."""
    if most is None or batch * prompt <= most:
        rows = [(1, batch, prompt, 0)]
    elif prompt <= most:
        together = most // prompt
        whole, rest = divmod(batch, together)
        rows = [(whole, together, prompt, 0), (1, rest, prompt, 0)][: 2 if rest else 1]
    else:
        whole, rest = divmod(prompt, most)
        count = whole + bool(rest)
        past = np.arange(max(0, count - 2) if last else 0, count, dtype=np.int64) * most
        query = np.minimum(prompt - past, most)
        return Passes(np.full_like(past, batch), np.ones_like(past), query, past)
    return Passes(*np.array(rows, dtype=np.int64).T)


def cost_of_passes(form: ClosedForm, whole: StageCost, split: Passes, *, sums: bool = True) -> StageCost:
    """What a prefill costs in passes, from what it costs in one (``whole``): FLOPs and traffic added up, activations
    and peaks of the largest pass; cache and weights as they are. Without ``sums`` memory alone is right."""
    if len(split.times) == 1 and split.times[0] == 1:
        return whole
    largest = form.evaluate(**split.sizes(slice(-2, None)), fields=LARGEST)
    changed = {name: max(map(int, array)) for name, array in largest.items()}
    if sums:
        columns = form.evaluate(**split.sizes(), fields=SUMS)
        changed |= {n: sum(map(mul, split.times.tolist(), array.tolist())) for n, array in columns.items()}
    return replace(whole, **changed)


def time_of_passes(form: ClosedForm, device: Device, split: Passes) -> Time:
    """How long they take, one after another."""
    return (form.time(device, **split.sizes()) * split.times).summed()


MOST_STEPS = 64
"""Steps of a generation that are timed; of more, so many evenly spread ones."""


def time_of_step(form: ClosedForm, device: Device, *, batch: int, past_len: int, steps: int) -> Time:
    """The mean of the steps of a generation."""
    past = np.unique(np.linspace(past_len, past_len + steps - 1, min(steps, MOST_STEPS)).astype(np.int64))
    return form.time(device, batch=batch, past_len=past).summed() * (1 / len(past))
