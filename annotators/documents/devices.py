"""A device as the plain data of a device file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fxmeter.models.devices import Device
from fxmeter.models.devices.device import FRESH, TABLES
from fxmeter.models.names import Document

OPTIONAL = ("l2_bytes", "link_bytes_per_s", "power_w")


def to_json(device: Device) -> Document:
    """The fields of the device's file: written to one, they make the same device again."""
    reached = device.efficiency

    def number(label: str, value: float) -> Document:
        key = "source" if label.startswith("efficiency.") else "sources"
        cited = device.cited.get(label, ())
        found: Document = {"value": value}
        if cited:
            found[key] = cited[0] if key == "source" else list(cited)
        return {**found, "unconfirmed": True} if label in device.unconfirmed else found

    def rates(label: str) -> Document:
        return {dtype: number(f"{label}.{dtype}", rate) for dtype, rate in getattr(device, label).items()}

    shares = ("bandwidth", "any_matrix", "attention", "elementwise", "vector", "network")
    return {
        "name": device.name,
        "vendor": device.vendor,
        "aliases": list(device.aliases),
        "matrix_flops_per_s": rates("matrix_flops_per_s"),
        "vector_flops_per_s": rates("vector_flops_per_s"),
        "bandwidth_bytes_per_s": number("bandwidth_bytes_per_s", device.bandwidth_bytes_per_s),
        "memory_bytes": number("memory_bytes", device.memory_bytes),
        **{label: number(label, getattr(device, label)) for label in OPTIONAL if getattr(device, label) is not None},
        "efficiency": {
            **{share: number(f"efficiency.{share}", getattr(reached, share)) for share in shares},
            "matrix": {dtype: number(f"efficiency.matrix.{dtype}", share) for dtype, share in reached.matrix.items()},
            **{label: _table(getattr(reached, label)) for label in TABLES if getattr(reached, label)},
            **{
                label: number(f"efficiency.{label}", getattr(reached, label))
                for label in FRESH
                if getattr(reached, label) is not None
            },
            "launch_us": number("efficiency.launch_us", reached.launch_us),
            "collective_us": number("efficiency.collective_us", reached.collective_us),
            "prefill_host_us": number("efficiency.prefill_host_us", reached.prefill_host_us),
            "source": reached.source,
        },
        "sources": dict(device.sources),
        "notes": device.notes,
    }


def _table(rates: Mapping[Any, Any]) -> Document:
    """A table of rates, with words as keys."""
    return {str(key): _table(each) if isinstance(each, Mapping) else each for key, each in rates.items()}
