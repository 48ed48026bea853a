"""What devices do for a model: the latencies that they reach, and what they serve, at which price.

    batch        the most sequences that fit, and whose decode step takes no longer than the target
    decode       batch / TPOT, tokens/s while nothing is prefilled
    requests/s   batch / (prefill of the batch + steps · TPOT): every sequence is prefilled once and decodes its tokens
    tokens/s     steps · requests/s, new tokens; those of decode where there are no requests
    devices      ⌈rate / requests/s⌉
    price        price per hour / (3600 · tokens/s)
    energy       the device's power / (tokens/s): as if it drew all of it all the time, so an upper figure

No scheduler, no network and no idle time: what the device itself can do. Where n devices share a model, the batch is
that of each data-parallel group, and devices, price and energy are those of all n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fxmeter.annotators.sheets.times import time_of_pass
from fxmeter.annotators.studies.axes import SweepPoint
from fxmeter.annotators.studies.chunks import time_of_step
from fxmeter.annotators.studies.planning.search import largest_that_fits
from fxmeter.annotators.studies.sweep import StageForms
from fxmeter.annotators.timing.stage_time import Time
from fxmeter.annotators.units import duration, duration_as_typed
from fxmeter.models.choices import Attention, StageName
from fxmeter.models.devices import Device
from fxmeter.models.errors import ScenarioError
from fxmeter.models.figures import TERA
from fxmeter.models.scenario import prefill


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What is asked of devices: decode steps of at most ``tpot_s``, prefill in passes of ``max_batched_tokens``,
    ``rate`` requests a second, for ``price_per_h`` of each device (one for all of them, or one of each)."""

    devices: tuple[Device, ...] = ()
    max_batched_tokens: int | None = None
    rate: float | None = None
    price_per_h: tuple[float, ...] = ()

    def price_of(self, device: Device) -> float | None:
        """What an hour of a device costs."""
        if not self.price_per_h:
            return None
        return self.price_per_h[0 if len(self.price_per_h) == 1 else self.devices.index(device)]


NOTHING_ASKED = Demand()


@dataclass(frozen=True, slots=True)
class Served:
    """What one device serves, or all that share the model: ``batch`` sequences in each data-parallel group.

    ``requests_per_s`` is None where there is no prompt, or no output to speak of (one step). Tokens are new ones, of
    all sequences.
    """

    batch: int
    tpot_s: float
    decode_tokens_per_s: float
    tokens_per_s: float
    requests_per_s: float | None
    devices: int | None
    price_per_million_tokens: float | None
    joules_per_token: float | None


@dataclass(frozen=True, slots=True)
class Reached:
    """One input shape on one device; ``served`` at the batch that suits best, None where none meets the target."""

    device: Device
    ttft: Time | None
    tpot: Time
    served: Served | None
    extrapolated: tuple[str, ...] = ()


def reached(
    forms: StageForms, attention: Attention, point: SweepPoint, device: Device, most: int, demand: Demand, tpot_s: float
) -> Reached:
    """The latencies of a point on a device, and what it serves of such requests, of which ``most`` fit at once."""
    tpot = step_on(forms, attention, point, device, point.batch)
    ttft = prompts_on(forms, attention, point, device, demand, point.batch)
    served = _served(forms, attention, point, device, most, demand, tpot_s)
    largest = max(point.batch, served.batch if served else 0)
    reasons = forms.of("decode", attention).extrapolated(device, batch=largest, past_len=point.decode or 0)
    if point.prefill is not None:
        prompts = forms.of("prefill", attention)
        reasons += prompts.extrapolated(device, batch=point.batch, query_len=point.prefill)
    return Reached(device, ttft, tpot, served, tuple(dict.fromkeys(reasons)))


def step_on(forms: StageForms, attention: Attention, point: SweepPoint, device: Device, batch: int) -> Time:
    """One decode step of ``batch`` sequences, the mean of the point's steps."""
    form = forms.of("decode", attention)
    return time_of_step(form, device, batch=batch, past_len=point.decode or 0, steps=point.steps)


def prompts_on(
    forms: StageForms,
    attention: Attention,
    point: SweepPoint,
    device: Device,
    demand: Demand,
    batch: int,
    *,
    stream: bool = False,
) -> Time | None:
    """Vision or encoder, and prefill, of ``batch`` requests; None without a prompt. In pipeline stages it is from the
    first to the last; with ``stream`` the pace of as many such batches, one in each."""
    if point.prefill is None:
        return None
    whole = prefill(point.prefill, batch=batch)
    found = forms.prompts(attention)
    prompts = (found.in_stream if stream else found.time)(device, whole, demand.max_batched_tokens)
    if point.encoder_len is not None:
        return forms.of("encode", attention).time(device, batch=batch).summed() + prompts
    if point.crops is None:
        return prompts
    return forms.of("vision", attention).time(device, batch=batch, crops=point.crops).summed() + prompts


def peaks_on(
    forms: StageForms, attention: Attention, point: SweepPoint, stage: StageName, seconds: float, demand: Demand
) -> tuple[float, float]:
    """TFLOP/s, of the dtype that most of the stage's products compute in, and TB/s that the first device has.

    Raises ScenarioError where ``seconds`` of the stage are fewer than its bound there.
    """
    device, form = demand.devices[0], forms.of(stage, attention)
    if stage == "prefill":
        whole = prefill(point.prefill or 0, batch=point.batch)
        time = forms.prompts(attention).time(device, whole, demand.max_batched_tokens)
        sizes = (point.batch, point.prefill or 0, 0)
    else:
        time = step_on(forms, attention, point, device, point.batch)
        sizes = (point.batch, 1, point.decode or 0)
    if seconds < time.bound_s:
        raise ScenarioError(
            f"a {stage} of {duration_as_typed(seconds)} is faster than {device.name} can be: it takes at least "
            f"{duration(time.bound_s)} there, bound by {time.bound_by}; check the time, the device and the lengths"
        )
    dtype = time_of_pass(form.sheet, sizes, device).dtype
    return device.matrix(dtype)[1] / TERA, device.bandwidth_bytes_per_s / TERA


def _served(
    forms: StageForms, attention: Attention, point: SweepPoint, device: Device, most: int, demand: Demand, tpot_s: float
) -> Served | None:
    def step_s(size: int) -> float:
        return step_on(forms, attention, point, device, size).estimate_s

    batch = largest_that_fits(lambda size: step_s(size) <= tpot_s, start=most, most=most) if most else 0
    if not batch:
        return None
    step = step_s(batch)
    prompts = prompts_on(forms, attention, point, device, demand, batch, stream=True) if point.steps > 1 else None
    devices, sequences = forms.deployment.devices, batch * forms.deployment.dp * forms.deployment.pp
    requests = None if prompts is None else sequences / (prompts.estimate_s + point.steps * step)
    tokens = sequences / step if requests is None else point.steps * requests
    price = demand.price_of(device)
    return Served(
        batch=batch,
        tpot_s=step,
        decode_tokens_per_s=sequences / step,
        tokens_per_s=tokens,
        requests_per_s=requests,
        devices=None if demand.rate is None or requests is None else devices * math.ceil(demand.rate / requests),
        price_per_million_tokens=None if price is None else devices * price / 3600 / tokens * 1e6,
        joules_per_token=None if device.power_w is None else devices * device.power_w / tokens,
    )
