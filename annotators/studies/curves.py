"""What pictures of time show: kernels against the roofs, time by part of a layer, latency and throughput as curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fxmeter.annotators.closed.form import ClosedForm
from fxmeter.annotators.studies.times import StageTiming
from fxmeter.models.devices import Device

SMOOTH = 96
"""Points of a curve."""
MOST_SEQUENCES = 1024
"""The largest batch of a throughput curve."""
LEAST_PART = 0.01
"""Shares of a bar below this are counted together."""
HOST, OTHER = "engine, for a prompt", "other"


@dataclass(frozen=True, slots=True)
class Dot:
    """Kernels alike: FLOP per byte, FLOP per second (in the estimate), and the share of the stage's time."""

    stage: str
    intensity: float
    flops_per_s: float
    share: float


@dataclass(frozen=True, slots=True)
class LatencyCurve:
    """Seconds of a prefill over its tokens."""

    device: str
    tokens: np.ndarray
    estimate_s: np.ndarray
    bound_s: np.ndarray


@dataclass(frozen=True, slots=True)
class ThroughputCurve:
    """Tokens a second of one sequence and of the device as the batch grows; ``fits`` where the memory holds it."""

    device: str
    context: int
    batch: np.ndarray
    each: np.ndarray
    whole: np.ndarray
    fits: np.ndarray


def dots(timings: Sequence[StageTiming]) -> list[Dot]:
    """The kernels of stages that do arithmetic and move something, alike ones as one; of a generation, its last
    step's."""
    found: dict[tuple[int, float, float], float] = {}
    for place, timing in enumerate(timings):
        time = timing.time.last or timing.time
        for item in time.kernels:
            flops = float(item.kernel.matmul_flops + item.kernel.vector_flops)
            nbytes = float(item.kernel.nbytes)
            if flops and nbytes:
                key = (place, flops / nbytes, flops / item.one.estimate_s)
                found[key] = found.get(key, 0.0) + time.share_of(item.all)
    return [Dot(stage_of(timings[place]), intensity, rate, share) for (place, intensity, rate), share in found.items()]


def stage_of(timing: StageTiming) -> str:
    """Which stage it is; "" for a module alone."""
    scenario = timing.stage.scenario
    return "" if scenario is None else scenario.stage


def parts(timing: StageTiming) -> dict[str, float]:
    """Seconds by part of a layer, or by module outside of the layers, the longest first; small ones as OTHER."""
    found: dict[str, float] = {}
    for item in timing.time.kernels:
        part = _part(item.kernel.module)
        found[part] = found.get(part, 0.0) + item.all.estimate_s
    host = timing.time.estimate_s - sum(found.values())
    if host > 1e-9 * timing.time.estimate_s:
        found[HOST] = host
    seconds = dict(sorted(found.items(), key=lambda item: -item[1]))
    kept = {name: value for name, value in seconds.items() if value >= LEAST_PART * timing.time.estimate_s}
    rest = sum(value for name, value in seconds.items() if name not in kept)
    return {**kept, OTHER: rest} if rest else kept


def _part(path: str) -> str:
    """ "model.layers.0.mlp.gate_proj" → "mlp", "lm_head" → "lm_head"."""
    names = path.split(".")
    index = next((place for place, name in enumerate(names) if name.isdigit()), None)
    inside = names[-1:] if index is None else names[index + 1 : index + 2]
    return inside[0] if inside and inside[0] else "the model itself" if index is None else "the layer itself"


def latency_curves(form: ClosedForm, devices: Sequence[Device], prompts: Sequence[int]) -> list[LatencyCurve]:
    """TTFT between the shortest and the longest prompt, of one sequence."""
    tokens = spread(min(prompts), max(prompts))
    curves = []
    for device in devices:
        time = form.time(device, query_len=tokens)
        curves.append(LatencyCurve(device.name, tokens, time.estimate_s, time.bound_s))
    return curves


def throughput_curves(form: ClosedForm, devices: Sequence[Device], context: int) -> list[ThroughputCurve]:
    """Decode at a context, from one sequence to MOST_SEQUENCES."""
    batch = spread(1, MOST_SEQUENCES)
    costs = form.evaluate(batch=batch, past_len=context, fields=("kv_bytes", "weight_bytes"))
    resident = (costs["kv_bytes"] + costs["weight_bytes"]).astype(float)
    curves = []
    for device in devices:
        step = form.time(device, batch=batch, past_len=context).estimate_s
        curves.append(
            ThroughputCurve(device.name, context, batch, 1 / step, batch / step, resident <= device.memory_bytes)
        )
    return curves


def spread(first: int, last: int, count: int = SMOOTH) -> np.ndarray:
    """Whole numbers from ``first`` to ``last``, about evenly far apart on a logarithmic axis, powers of two among
    them."""
    powers = [2**k for k in range(math.ceil(math.log2(max(1, first))), math.floor(math.log2(max(1, last))) + 1)]
    between = np.rint(np.geomspace(max(1, first), max(1, last), count)).astype(np.int64)
    return np.unique(np.concatenate([between, np.array(powers, dtype=np.int64), [first, last]]))
