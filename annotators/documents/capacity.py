"""A capacity report as plain JSON data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fxmeter.annotators.studies.capacity import Capacity, Need, Rates
from fxmeter.annotators.studies.report import conventions_of, versions
from fxmeter.models.version import ANALYTIC_MODEL_VERSION

SCHEMA_VERSION = 1


def to_json(found: Capacity) -> dict[str, Any]:
    """The report as plain JSON data, schema version 1."""
    model, chosen = found.model, found.conventions
    return {
        "schema_version": SCHEMA_VERSION,
        "analytic_model_version": ANALYTIC_MODEL_VERSION,
        "versions": versions(),
        "model": {
            "name": model.name,
            "model_type": model.model_type,
            "parameters": model.parameters,
            "vision_parameters": model.vision_parameters,
            "weight_bytes": model.weight_bytes,
            "max_positions": model.max_positions,
        },
        "config_sha256": found.config_sha256,
        "conventions": {**conventions_of(model, chosen), "attention": found.attention},
        "ttft_s": found.ttft_s,
        "tpot_s": found.tpot_s,
        "memory_bytes": found.memory_bytes,
        "uncosted": found.uncosted,
        "recorded": list(found.recorded),
        "shapes": [_need_json(need) for need in found.needs],
        "utilisation": [asdict(used) for used in found.utilisation],
    }


def _need_json(need: Need) -> dict[str, Any]:
    point, memory, fit = need.point, need.memory, need.fit
    return {
        "batch": point.batch,
        "crops": None if point.crops is None else list(point.crops),
        "image_tokens": point.image_tokens,
        "prefill": point.prefill,
        "decode": point.decode,
        "steps": point.steps,
        "ttft": None if need.ttft is None else _rates_json(need.ttft),
        "tpot": _rates_json(need.tpot),
        "memory": {
            "weight_bytes": memory.weight_bytes,
            "kv_after_prefill_bytes": memory.kv_after_prefill_bytes,
            "kv_bytes": memory.kv_bytes,
            "peak_activation_bytes": memory.peak_activation_bytes,
            "peak_stage": memory.peak_stage,
            "total_bytes": memory.total_bytes,
        },
        "fit": None if fit is None else {"largest_batch": fit.largest_batch, "longest_context": fit.longest_context},
    }


def _rates_json(rates: Rates) -> dict[str, float]:
    return {
        "seconds": rates.seconds,
        "required_tflops": rates.tflops,
        "required_tbps": rates.tbps,
        "required_fused_tbps": rates.fused_tbps,
    }
