"""Times as plain JSON data: of a stage, and of many sizes on devices."""

from __future__ import annotations

from dataclasses import asdict

from fxmeter.annotators.documents.head import conventions_of, head, model_of
from fxmeter.annotators.studies.planning.latency import ENGINES, Latencies
from fxmeter.annotators.studies.times import StageTiming
from fxmeter.annotators.timing.roofline import ROOFS
from fxmeter.annotators.timing.stage_time import Time
from fxmeter.models.model_info import ModelInfo
from fxmeter.models.names import Document


def time_of(timing: StageTiming) -> Document:
    """Seconds of the stage and of one instance of each module; ``tokens_per_s`` of all sequences."""
    time = timing.time
    return {
        "device": time.device.name,
        **figures(time.total),
        "steps": time.steps,
        "tokens_per_s": timing.tokens_per_s,
        "flop_per_byte": timing.intensity,
        "ridge_flop_per_byte": timing.ridge,
        "extrapolated": list(time.extrapolated),
        "efficiency_source": time.device.efficiency.source,
        "modules": [{"path": path, **figures(part)} for path, part in time.modules.items()],
    }


def figures(time: Time) -> Document:
    """What a time is made of; ``roofs_s`` has the seconds of the kernels that each roof binds."""
    return {
        "bound_s": time.bound_s,
        "estimate_s": time.estimate_s,
        "launch_s": time.launch_s,
        "bound_by": time.bound_by,
        "roofs_s": dict(zip(ROOFS, time.roofs_s, strict=True)),
    }


def latencies_of(found: Latencies, model: ModelInfo) -> Document:
    """Latencies of a model on devices, schema version 2."""
    return {
        **head(),
        "model": model_of(model),
        "conventions": conventions_of(model, ENGINES),
        "cached": found.prompt.past_len,
        "chunk": found.prompt.chunk,
        "query_len": found.step.query_len,
        "tokens_per_step": found.step.tokens_per_step,
        "times": [asdict(row) for row in found.rows],
        "decode_turns_compute_bound": [asdict(turn) for turn in found.turns],
        "cache_traffic_equals_weights": [asdict(crossing) for crossing in found.crossings],
        "efficiency_sources": dict(found.sources),
    }
