"""Devices on the console. No arithmetic but the choice of a unit."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from fxmeter.annotators.units import four_digits, in_unit, quantity
from fxmeter.annotators.views.console import Cell, Grid, names, numbers
from fxmeter.annotators.views.words import Line
from fxmeter.models.devices import Device
from fxmeter.models.figures import Unit

MARK = "?"
SHARES = (
    ("any_matrix", "matrix, others"),
    ("attention", "attention cores"),
    ("bandwidth", "bandwidth"),
    ("elementwise", "bandwidth, elementwise"),
    ("vector", "vector units"),
    ("network", "link"),
)


def devices_view(devices: Sequence[Device]) -> RenderableType:
    """All devices, a line each."""
    rows: list[list[Cell]] = [
        [
            device.name,
            _matrix(device, "bf16", "fp16"),
            _matrix(device, "fp8"),
            _in_unit(device, "bandwidth_bytes_per_s", "TB"),
            _in_unit(device, "memory_bytes", "GB"),
            _in_unit(device, "link_bytes_per_s", "GB"),
            "–" if device.power_w is None else _marked(device, "power_w", f"{device.power_w:g}"),
        ]
        for device in devices
    ]
    columns = [*names("device"), *numbers("TFLOP/s\n16 bit", "TFLOP/s\nfp8", "TB/s", "memory\nGB", "link\nGB/s", "W")]
    legend = f"Dense peaks of the matrix units; a link is one direction. {MARK} is unconfirmed."
    return Group(Grid("", columns, rows), "", Line(legend, style="dim"))


def _matrix(device: Device, *dtypes: str) -> str:
    rates = device.matrix_flops_per_s
    dtype = next((dtype for dtype in dtypes if dtype in rates), None)
    return "–" if dtype is None else _marked(device, f"matrix_flops_per_s.{dtype}", in_unit(rates[dtype], "TFLOP"))


def _in_unit(device: Device, label: str, unit: str) -> str:
    amount = getattr(device, label)
    return "–" if amount is None else _marked(device, label, in_unit(amount, unit))


def device_view(device: Device) -> RenderableType:
    """One device in full."""
    aliases = f"  also {', '.join(device.aliases)}" if device.aliases else ""
    parts: list[RenderableType] = [Text.assemble((device.name, "bold"), f"  {device.vendor}{aliases}"), ""]
    parts += [_numbers(device), "", _efficiency(device), ""]
    if device.sources:
        parts.append(Grid("Sources", names("key", ""), [[key, text] for key, text in device.sources.items()]))
    if device.unconfirmed:
        parts += ["", Line(f"{MARK} unconfirmed: {', '.join(device.unconfirmed)}", style="yellow")]
    if device.notes:
        parts += ["", Line(device.notes, style="dim")]
    return Group(*parts)


def _numbers(device: Device) -> Grid:
    rows: list[list[Cell]] = []
    for label, what in (("matrix_flops_per_s", "matrix"), ("vector_flops_per_s", "vector")):
        for dtype, rate in getattr(device, label).items():
            rows.append([f"{what} {dtype}", *_row(device, f"{label}.{dtype}", _rate(device, f"{label}.{dtype}", rate))])
    for label, what, cell in (
        (
            "bandwidth_bytes_per_s",
            "bandwidth",
            _rate(device, "bandwidth_bytes_per_s", device.bandwidth_bytes_per_s, "byte"),
        ),
        ("memory_bytes", "memory", _amount(device, "memory_bytes", device.memory_bytes, "byte")),
        ("l2_bytes", "L2", _amount(device, "l2_bytes", device.l2_bytes, "byte")),
        ("link_bytes_per_s", "link, one direction", _rate(device, "link_bytes_per_s", device.link_bytes_per_s, "byte")),
        ("power_w", "power", _power(device)),
    ):
        rows.append([what, *_row(device, label, cell)])
    return Grid("Peaks (dense) and sizes", [*names(""), *numbers("value"), *names("sources")], rows)


def _row(device: Device, label: str, cell: str) -> list[Cell]:
    return [cell, ", ".join(device.cited.get(label, ()))]


def _efficiency(device: Device) -> Grid:
    reached = device.efficiency
    rows: list[list[Cell]] = []
    for dtype, share in reached.matrix.items():
        rows.append([f"matrix {dtype}", quantity(share, "share"), _from(device, f"matrix.{dtype}")])
    for label, what in SHARES:
        rows.append([what, quantity(getattr(reached, label), "share"), _from(device, label)])
    rows.append(["launch", f"{four_digits(reached.launch_us)} us", _from(device, "launch_us")])
    rows.append(["collective", f"{four_digits(reached.collective_us)} us", _from(device, "collective_us")])
    rows.append(["host, a prompt", f"{four_digits(reached.prefill_host_us)} us", _from(device, "prefill_host_us")])
    return Grid("What real kernels reach", [*names(""), *numbers("of the peak"), *names("from")], rows)


def _from(device: Device, label: str) -> str:
    return ", ".join(device.cited.get(f"efficiency.{label}", ())) or "a default: not measured on this device"


def _marked(device: Device, label: str, text: str) -> str:
    return text + MARK if label in device.unconfirmed else text


def _rate(device: Device, label: str, rate: float | None, unit: Unit = "flop") -> str:
    return "–" if rate is None else _marked(device, label, f"{quantity(rate, unit)}/s")


def _amount(device: Device, label: str, amount: float | None, unit: Unit) -> str:
    return "–" if amount is None else _marked(device, label, quantity(amount, unit))


def _power(device: Device) -> str:
    return "–" if device.power_w is None else _marked(device, "power_w", f"{device.power_w:g} W")
