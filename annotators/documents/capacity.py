"""A capacity report as plain JSON data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fxmeter.annotators.documents.head import conventions_of, head, model_of
from fxmeter.annotators.documents.sweep import sizes_of
from fxmeter.annotators.studies.capacity import Capacity, Need
from fxmeter.annotators.studies.rates import Rates


def to_json(found: Capacity) -> dict[str, Any]:
    """The report as plain JSON data, schema version 1."""
    return {
        **head(),
        "model": {**model_of(found.model), "max_positions": found.model.max_positions},
        "config_sha256": found.config_sha256,
        "conventions": {**conventions_of(found.model, found.conventions), "attention": found.attention},
        "ttft_s": found.ttft_s,
        "tpot_s": found.tpot_s,
        "memory_bytes": found.memory_bytes,
        "uncosted": found.uncosted,
        "recorded": list(found.recorded),
        "shapes": [_need(need) for need in found.needs],
        "utilisation": [asdict(used) for used in found.utilisation],
    }


def _need(need: Need) -> dict[str, Any]:
    memory = {name: value for name, value in asdict(need.memory).items() if name != "batch"}
    return {
        **sizes_of(need.point),
        "ttft": None if need.ttft is None else _rates(need.ttft),
        "tpot": _rates(need.tpot),
        "memory": {**memory, "total_bytes": need.memory.total_bytes},
        "fit": None if need.fit is None else asdict(need.fit),
    }


def _rates(rates: Rates) -> dict[str, float]:
    return {name if name == "seconds" else f"required_{name}": value for name, value in asdict(rates).items()}
