"""A capacity report as plain JSON data."""

from __future__ import annotations

from dataclasses import asdict

from fxmeter.annotators.documents.head import conventions_of, head, model_of
from fxmeter.annotators.documents.tables.sweep import sizes_of
from fxmeter.annotators.documents.times import figures
from fxmeter.annotators.studies.planning.capacity import Capacity, Fit, Need, OnDevice
from fxmeter.annotators.studies.planning.memory import Memory
from fxmeter.annotators.studies.planning.rates import Rates
from fxmeter.models.names import Document


def to_json(capacity: Capacity) -> Document:
    """The report as plain JSON data, schema version 2."""
    return {
        **head(),
        "model": {**model_of(capacity.model), "max_positions": capacity.model.max_positions},
        "config_sha256": capacity.model.config_sha256,
        "conventions": {**conventions_of(capacity.model, capacity.conventions), "attention": capacity.attention},
        "warnings": list(capacity.warnings),
        "ttft_s": capacity.ttft_s,
        "tpot_s": capacity.tpot_s,
        "memory_bytes": capacity.memory_bytes,
        "max_batched_tokens": capacity.demand.max_batched_tokens,
        "requests_per_s_asked": capacity.demand.rate,
        "price_per_h": {device.name: capacity.demand.price_of(device) for device in capacity.demand.devices},
        "uncosted": capacity.uncosted,
        "recorded": list(capacity.recorded),
        "shapes": [_need(need) for need in capacity.needs],
        "utilisation": [asdict(used) for used in capacity.utilisation],
    }


def _need(need: Need) -> Document:
    return {
        **sizes_of(need.point),
        "ttft": None if need.ttft is None else _rates(need.ttft),
        "tpot": _rates(need.tpot),
        "memory": _memory(need.memory),
        "fit": None if need.fit is None else _fit(need.fit),
        "devices": [_on(one) for one in need.on],
    }


def _on(one: OnDevice) -> Document:
    """What a device reaches and serves; ``served`` is None where no batch that fits meets the target."""
    found = one.reached
    return {
        "device": found.device.name,
        "ttft": None if found.ttft is None else figures(found.ttft),
        "tpot": figures(found.tpot),
        "fit": _fit(one.fit),
        "served": None if found.served is None else asdict(found.served),
        "extrapolated": list(found.extrapolated),
        "efficiency_source": found.device.efficiency.source,
    }


def _memory(memory: Memory) -> Document:
    fields = {name: value for name, value in asdict(memory).items() if name != "batch"}
    return {**fields, "total_bytes": memory.total_bytes}


def _fit(fit: Fit) -> Document:
    return {
        "largest_batch": fit.largest_batch,
        "longest_context": fit.longest_context,
        "shortfalls": [
            {**sizes_of(short.point), "memory": _memory(short.memory), "missing_bytes": short.missing_bytes}
            for short in fit.shortfalls
        ],
    }


def _rates(rates: Rates) -> dict[str, float]:
    return {name if name == "seconds" else f"required_{name}": value for name, value in asdict(rates).items()}
