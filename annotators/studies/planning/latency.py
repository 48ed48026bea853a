"""How long requests take on devices: time to first token, time per output token, and where what binds them changes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np

from fxmeter.annotators.closed.form import ClosedForm
from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.studies.chunks import PromptForms
from fxmeter.annotators.studies.planning.search import largest_that_fits
from fxmeter.annotators.timing.stage_time import Time
from fxmeter.models.choices import StageName
from fxmeter.models.devices import Device
from fxmeter.models.names import Kwargs
from fxmeter.models.scenario import Scenario, prefill
from fxmeter.models.scenario import decode as one_token

ENGINES = Conventions(causal="exact", logits="last")
"""What engines do: cores compute what their masks let through, and logits are of the last position."""

ONE_PROMPT, ONE_TOKEN = prefill(1), one_token(0)
"""A prompt with nothing cached before it, processed at once, and a decode step without drafted tokens."""

MOST_BATCH = 4096
"""The largest batch that is tried for where decode turns compute-bound."""
MOST_CONTEXT = 2**24
"""The longest context that is tried for where the cache's traffic equals the weights'."""


@dataclass(frozen=True, slots=True)
class Latency:
    """One pass on one device: ``length`` is its prompt (prefill), its cached tokens (decode), or the positions of the
    encoder (encode).

    ``tokens_per_s`` is of all sequences, those of all data-parallel groups, and ``tokens_per_s_each`` of one.
    ``extrapolated`` says why the estimate was not held to measurements. Of several pipeline stages the one at
    ``slowest`` takes ``slowest_s``, which is the pace of passes that follow one another: ``tokens_per_s`` is theirs.
    """

    device: str
    stage: StageName
    batch: int
    length: int
    bound_s: float
    estimate_s: float
    bound_by: str
    tokens_per_s: float
    tokens_per_s_each: float
    extrapolated: tuple[str, ...] = ()
    slowest: int | None = None
    slowest_s: float | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """The least batch at which decode at ``context`` is bound by compute on ``device``; None: not up to MOST_BATCH."""

    device: str
    context: int
    batch: int | None


@dataclass(frozen=True, slots=True)
class Crossing:
    """The least context at which a step of ``batch`` sequences reads as much cache as weights; None: not up to
    MOST_CONTEXT."""

    batch: int
    context: int | None


@dataclass(frozen=True, slots=True)
class Latencies:
    """Every length and batch on every device, and the places where what binds them changes.

    Prompts are like ``prompt``, but for their length: tokens cached before them, chunks. Of ``step`` are the new tokens
    of a decode step, drafted ones too.
    """

    rows: tuple[Latency, ...]
    turns: tuple[Turn, ...]
    crossings: tuple[Crossing, ...]
    sources: tuple[tuple[str, str], ...]
    prompt: Scenario = ONE_PROMPT
    step: Scenario = ONE_TOKEN

    @property
    def encoder_len(self) -> int | None:
        """The positions of the encoder, where there is one."""
        return next((row.length for row in self.rows if row.stage == "encode"), None)


def latencies(
    prompts: PromptForms,
    steps: ClosedForm,
    devices: Sequence[Device],
    *,
    prefill: Sequence[int],
    decode: Sequence[int],
    batch: Sequence[int],
    prompt: Scenario = ONE_PROMPT,
    step: Scenario = ONE_TOKEN,
    encoder: ClosedForm | None = None,
) -> Latencies:
    """The times of ``prompts`` (a prefill's forms) and ``steps`` (a decode's) at all lengths and batches.

    Prompts are like ``prompt``, and a decode step has the new tokens of ``step``; ``encoder`` is the form of the
    encoder's pass before a prompt.

    Returns:
        Rows by device, stage, length and batch; where decode turns compute-bound, for each device and context; where
        cache traffic equals that of the weights, for each batch.
    """
    rows: list[Latency] = []
    for device in devices:
        if prefill and encoder is not None:
            rows += _rows(_passes(encoder), device, [encoder.sheet.subject.encoder_len or 0], batch)
        if prefill:
            rows += _rows(_prompts(prompts, prompt), device, prefill, batch)
        if decode:
            rows += _rows(_passes(steps, step), device, decode, batch)
    new = step.query_len
    turns = [Turn(device.name, context, _turn(steps, device, context, new)) for device in devices for context in decode]
    crossings = [Crossing(size, _crossing(steps, size, new)) for size in batch] if decode else []
    sources = tuple((device.name, device.efficiency.source) for device in devices)
    return Latencies(tuple(rows), tuple(turns), tuple(crossings), sources, prompt, step)


@dataclass(frozen=True, slots=True)
class _Timed:
    """What is timed at lengths and batches: tokens of a pass of so many, sizes as the form takes them, and how long it
    takes, in all and in each pipeline stage."""

    form: ClosedForm
    tokens: Callable[[int], float]
    sizes: Callable[[int, int], Kwargs]
    time: Callable[[Device, int, int], tuple[Time, Sequence[Time]]]


def _passes(form: ClosedForm, step: Scenario | None = None) -> _Timed:
    """Decode steps, or passes of an encoder."""

    def sizes(length: int, batch: int) -> Kwargs:
        own = {"query_len": length} if step is None else {"query_len": step.query_len, "past_len": length}
        return {"batch": batch, **own}

    def time(device: Device, length: int, batch: int) -> tuple[Time, Sequence[Time]]:
        parts = [part.time(device, **sizes(length, batch)).summed() for part in form.stages]
        return reduce(add, parts), parts

    return _Timed(form, lambda length: length if step is None else step.tokens_per_step, sizes, time)


def _prompts(forms: PromptForms, prompt: Scenario) -> _Timed:
    def sizes(length: int, batch: int) -> Kwargs:
        return {"batch": batch, "query_len": length, "past_len": prompt.past_len}

    def time(device: Device, length: int, batch: int) -> tuple[Time, Sequence[Time]]:
        whole = replace(prompt, batch=batch, query_len=length)
        return forms.time(device, whole), [stage.time(device, whole) for stage in forms.stages]

    return _Timed(forms.last, float, sizes, time)


def _rows(timed: _Timed, device: Device, lengths: Sequence[int], batches: Sequence[int]) -> list[Latency]:
    groups = int(timed.form.sheet.subject.deployment.get("dp", 1))
    rows = []
    for length, size in itertools.product(lengths, batches):
        whole, parts = timed.time(device, length, size)
        slowest = max(range(len(parts)), key=lambda place: parts[place].estimate_s)
        paced_s = parts[slowest].estimate_s if len(parts) > 1 else whole.estimate_s
        tokens = timed.tokens(length)
        row = Latency(
            device=device.name,
            stage=timed.form.sheet.stage,
            batch=size,
            length=length,
            bound_s=whole.bound_s,
            estimate_s=whole.estimate_s,
            bound_by=whole.bound_by,
            tokens_per_s=tokens / paced_s * size * groups,
            tokens_per_s_each=tokens / whole.estimate_s,
            extrapolated=timed.form.extrapolated(device, **timed.sizes(length, size)),
            slowest=slowest if len(parts) > 1 else None,
            slowest_s=paced_s if len(parts) > 1 else None,
        )
        rows.append(row)
    return rows


def _turn(steps: ClosedForm, device: Device, context: int, new: int) -> int | None:
    batches = np.arange(1, MOST_BATCH + 1)
    bound_by = steps.time(device, batch=batches, query_len=new, past_len=context).bound_by
    others = np.flatnonzero(bound_by != "compute")  # as more products turn, it may go back and forth between two
    turn = int(others[-1]) + 2 if len(others) else 1
    return turn if turn <= MOST_BATCH else None


def _crossing(steps: ClosedForm, batch: int, new: int) -> int | None:
    def weights_are_more(context: int) -> bool:
        cost = steps.at(batch=batch, query_len=new, past_len=context)
        return cost.kv_read_bytes < cost.weight_read_bytes

    last = largest_that_fits(weights_are_more, start=MOST_CONTEXT, most=MOST_CONTEXT)
    return None if last == MOST_CONTEXT else last + 1
