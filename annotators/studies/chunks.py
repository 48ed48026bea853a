"""Prompts from closed forms, whole or in chunks, and how an engine packs a batch of them into passes.

    prompts no longer than M tokens    ⌊M / S⌋ whole prompts in a pass
    longer prompts                     one after another, each in chunks of M tokens

What the chunks of a prompt are, :attr:`fxmeter.models.scenario.Scenario.starts` says. An engine also fills the rest of
a pass with the beginning of the next prompt; that is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np

from fxmeter.annotators.closed.form import ClosedForm, ModuleForm
from fxmeter.annotators.timing.stage_time import ZERO, Time, host_time
from fxmeter.models.devices import Device
from fxmeter.models.names import Document
from fxmeter.models.scenario import Scenario
from fxmeter.models.stage_cost import FIELDS, FIGURES, StageCost

ENGINE_TOKENS = 8192
"""Tokens of a pass at most, as vLLM (``max_num_batched_tokens``) and SGLang (``chunked_prefill_size``) have it on
devices with 80 GB."""

SUMS, LARGEST = ([name for name in FIELDS if FIGURES[name].over_steps == how] for how in ("sum", "max"))
KEPT = ("kv_bytes", "kv_storage_bytes")
"""What each prompt leaves behind it."""

Packed = Sequence[tuple[int, Scenario]]
"""Prompts of a batch, as they follow one another: so many times the same, each whole or in chunks."""


def packed(prompts: Scenario, most: int | None) -> Packed:
    """A batch of prompts in passes of at most ``most`` tokens; None: all in one."""
    batch, length = prompts.batch, prompts.query_len
    if most is None or batch * length <= most:
        return ((1, prompts),)
    if length > most:
        return ((batch, replace(prompts, batch=1, chunk=most)),)
    together = most // length
    whole, rest = divmod(batch, together)
    last = ((1, replace(prompts, batch=rest)),) if rest else ()
    return ((whole, replace(prompts, batch=together)), *last)


@dataclass(frozen=True, slots=True)
class PromptForms:
    """The closed form of a prefill, ``last``, and of the same without logits, ``before``: that of the chunks before the
    last one of a prompt. It is asked for where there are any. ``place`` is that of the pipeline stage that they are
    of, None for all."""

    last: ClosedForm
    before: Callable[[], ClosedForm]
    place: int | None = None

    @property
    def stages(self) -> tuple[PromptForms, ...]:
        """Those of each pipeline stage."""
        count = len(self.last.stages)
        return tuple(replace(self, place=place) for place in range(count)) if count > 1 else (self,)

    def cost(self, prompts: Scenario, whole: StageCost, most: int | None = None, *, sums: bool = True) -> StageCost:
        """What prompts cost in passes of at most ``most`` tokens, from what they cost in one, ``whole``: FLOPs and
        traffic added up, activations and peaks of the largest pass, the cache that the last pass of each prompt leaves;
        weights as they are. Without ``sums`` memory alone is right."""
        rounds = packed(prompts, most)
        if rounds == ((1, prompts),) and prompts.chunk is None:
            return whole
        added, largest = dict.fromkeys([*KEPT, *(SUMS if sums else ())], 0), dict.fromkeys(LARGEST, 0)
        for times, one in rounds:
            for form, sizes in self._passes(one, ends=True):
                found = form.evaluate(**sizes, fields=[*LARGEST, *KEPT])
                largest = {name: max(most, *map(int, found[name])) for name, most in largest.items()}
            added |= {name: added[name] + times * int(found[name][-1]) for name in KEPT}
            for form, sizes in self._passes(one) if sums else ():
                for name, array in form.evaluate(**sizes, fields=SUMS).items():
                    added[name] += times * sum(map(int, array))
        return replace(whole, **largest, **added)

    def time(self, device: Device, prompts: Scenario, most: int | None = None) -> Time:
        """How long they take, one after another; in pipeline stages, from the first to the last."""
        if self.place is None and len(self.stages) > 1:
            passes = sum(times * len(one.starts) for times, one in packed(prompts, most))
            parts = (stage.time(device, prompts, most) for stage in self.stages)
            return reduce(add, parts) + host_time(device, "prefill") * passes
        found = ZERO
        for times, one in packed(prompts, most):
            for form, sizes in self._passes(one):
                found += form.time(device, **sizes).summed() * times
        return found

    def in_stream(self, device: Device, prompts: Scenario, most: int | None = None) -> Time:
        """The same with as many such passes in flight as there are pipeline stages."""
        return in_stream([stage.time(device, prompts, most) for stage in self.stages])

    def _passes(self, prompts: Scenario, *, ends: bool = False) -> Iterator[tuple[ModuleForm, Document]]:
        """The passes of a prompt as sizes that a form takes. With ``ends`` only the two that have the most of
        everything that is alive at one moment: the last whole chunk, and the rest."""
        before, end = prompts.starts[-2 if ends else 0 : -1], prompts.starts[-1]
        if before:
            past = prompts.past_len + np.arange(before.start, before.stop, before.step, dtype=np.int64)
            yield self._of(self.before()), {"batch": prompts.batch, "query_len": prompts.chunk, "past_len": past}
        last = {"query_len": np.array([prompts.query_len - end]), "past_len": np.array([prompts.past_len + end])}
        yield self._of(self.last), {"batch": prompts.batch, **last}

    def _of(self, form: ClosedForm) -> ModuleForm:
        return form if self.place is None else form.stages[self.place]


def in_stream(parts: Sequence[Time]) -> Time:
    """How long passes take that follow one another through pipeline stages, one in each of them: all move on when the
    slowest stage is done."""
    return max(parts, key=lambda part: float(part.estimate_s)) * len(parts)


MOST_STEPS = 64
"""Steps of a generation that are timed; of more, so many evenly spread ones."""


def time_of_step(form: ClosedForm, device: Device, *, batch: int, past_len: int, steps: int) -> Time:
    """The mean of the steps of a generation; in pipeline stages, with as many passes in flight as there are."""
    past = np.unique(np.linspace(past_len, past_len + steps - 1, min(steps, MOST_STEPS)).astype(np.int64))
    times = [part.time(device, batch=batch, past_len=past).summed() * (1 / len(past)) for part in form.stages]
    return in_stream(times)
