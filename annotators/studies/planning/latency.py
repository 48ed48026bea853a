"""How long requests take on devices: time to first token, time per output token, and where what binds them changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fxmeter.annotators.closed.form import ClosedForm
from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.studies.chunks import PromptForms
from fxmeter.annotators.studies.planning.search import largest_that_fits
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
    ``extrapolated`` says why the estimate was not held to measurements.
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
            rows += _rows(encoder, "encode", device, [encoder.sheet.subject.encoder_len or 0], batch, {})
        if prefill:
            rows += _prompt_rows(prompts, device, prefill, batch, prompt)
        if decode:
            rows += _rows(steps, "decode", device, decode, batch, {"query_len": step.query_len}, step.tokens_per_step)
    new = step.query_len
    turns = [Turn(device.name, context, _turn(steps, device, context, new)) for device in devices for context in decode]
    crossings = [Crossing(size, _crossing(steps, size, new)) for size in batch] if decode else []
    sources = tuple((device.name, device.efficiency.source) for device in devices)
    return Latencies(tuple(rows), tuple(turns), tuple(crossings), sources, prompt, step)


def _prompt_rows(
    prompts: PromptForms, device: Device, lengths: Sequence[int], batches: Sequence[int], prompt: Scenario
) -> list[Latency]:
    rows = _rows(prompts.last, "prefill", device, lengths, batches, {"past_len": prompt.past_len})
    if prompt.chunk is None:
        return rows
    for place, row in enumerate(rows):
        time = prompts.time(device, replace(prompt, batch=row.batch, query_len=row.length))
        more = row.estimate_s / time.estimate_s
        rows[place] = replace(
            row,
            bound_s=time.bound_s,
            estimate_s=time.estimate_s,
            bound_by=time.bound_by,
            tokens_per_s=row.tokens_per_s * more,
            tokens_per_s_each=row.tokens_per_s_each * more,
        )
    return rows


def _rows(
    form: ClosedForm,
    stage: StageName,
    device: Device,
    lengths: Sequence[int],
    batches: Sequence[int],
    other: Mapping[str, int],
    tokens: float = 1,
) -> list[Latency]:
    column = np.array(lengths)[:, None]
    axis = "past_len" if stage == "decode" else "query_len"
    sizes: Kwargs = {axis: column, **other}
    found = form.time(device, batch=np.array(batches), **sizes)
    groups = int(form.sheet.subject.deployment.get("dp", 1))
    rows = []
    for (i, length), (j, size) in ((a, b) for a in enumerate(lengths) for b in enumerate(batches)):
        estimate = float(found.estimate_s[i, j])
        each = (tokens if stage == "decode" else length) / estimate
        bound, by = float(found.bound_s[i, j]), str(found.bound_by[i, j])
        reasons = form.extrapolated(device, batch=size, **{**sizes, axis: length})
        rows.append(Latency(device.name, stage, size, length, bound, estimate, by, each * size * groups, each, reasons))
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
