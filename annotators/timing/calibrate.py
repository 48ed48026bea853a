"""Measuring the machine that this runs on, into a device file: what its kernels reach, with repeats and their spread.

Peaks here are the best that was measured, not a datasheet's, so that nothing runs faster than ``bound_s`` says; shares
are what kernels of the sizes of a language model reach of them.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import torch

from fxmeter.models.errors import DeviceError

ROWS = (1, 16, 128, 512, 2048)
WIDTH = 2048
"""Products are [rows, 2048] @ [2048, 2048], as a small decoder's projections are."""
STREAM = 2**24
"""Elements of the tensors that bandwidth is measured on: 64 MiB in float32, beyond the caches of a core."""
ATTENTION = (1, 16, 1024, 64)
"""Batch, heads, tokens and head size of the attention core."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Seconds of one thing, repeated. ``spread`` is the median's distance from the best, as a share of it."""

    best_s: float
    median_s: float

    @property
    def spread(self) -> float:
        """How much the machine wavered."""
        return self.median_s / self.best_s - 1


def calibrate(
    device: str = "cpu", *, seconds: float = 30.0, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """The device file of this machine, as plain data.

    Args:
        device: "cpu", or "cuda" for the current GPU.
        seconds: what all measurements may take together, about.
        say: told what is measured.

    Returns:
        The fields of a device file (:mod:`fxmeter.models.devices`), each number with its source, and ``measured``:
        date, versions and the spread of every measurement.

    Raises:
        DeviceError: no such device here.
    """
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise DeviceError(f"cannot measure {device!r} here; cpu always works, cuda where torch sees a GPU")
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, **({"fp16": torch.float16} if device == "cuda" else {})}
    slot = seconds / (len(ROWS) * len(dtypes) + 5)
    with torch.inference_mode():
        products = {name: _products(dtype, device, slot, name, say) for name, dtype in dtypes.items()}
        say("bandwidth")
        stream = _measure(_copy(device), device, slot)
        say("elementwise kernels")
        mixed = _measure(_elementwise(device), device, slot)
        say("launches")
        launch = _measure(_tiny(device), device, slot)
        say("attention")
        attention = _measure(_attention(dtypes["fp32"], device), device, slot)
    return _file(device, products, stream, mixed, launch, attention)


def _products(
    dtype: torch.dtype, device: str, slot: float, name: str, say: Callable[[str], None]
) -> dict[int, Measurement]:
    weight = torch.randn(WIDTH, WIDTH, device=device).to(dtype)
    timed = {}
    for rows in ROWS:
        say(f"products of {rows} rows in {name}")
        x = torch.randn(rows, WIDTH, device=device).to(dtype)
        timed[rows] = _measure(lambda x=x: x @ weight, device, slot)  # type: ignore[misc]
    return timed


def _copy(device: str) -> Callable[[], Any]:
    source, target = torch.zeros(STREAM, device=device), torch.zeros(STREAM, device=device)
    return lambda: target.copy_(source)


def _elementwise(device: str) -> Callable[[], Any]:
    a, b, out = (torch.zeros(STREAM // 2, device=device) for _ in range(3))
    return lambda: torch.mul(a, b, out=out)


def _tiny(device: str) -> Callable[[], Any]:
    x = torch.zeros(16, device=device)
    return lambda: x.add_(1.0)


def _attention(dtype: torch.dtype, device: str) -> Callable[[], Any]:
    query, key, value = (torch.randn(ATTENTION, device=device).to(dtype) for _ in range(3))
    return lambda: torch.nn.functional.scaled_dot_product_attention(query, key, value)


def _measure(run: Callable[[], Any], device: str, slot: float) -> Measurement:
    """Time ``run`` again and again for about ``slot`` seconds; many calls at once where one is too short to time."""
    wait: Callable[[], None] = torch.cuda.synchronize if device == "cuda" else lambda: None
    run()
    wait()
    started = time.perf_counter()
    run()
    wait()
    once = max(time.perf_counter() - started, 1e-7)
    calls = max(1, round(min(0.01, slot / 10) / once))
    times: list[float] = []
    until = time.perf_counter() + slot
    while len(times) < 5 or time.perf_counter() < until:
        started = time.perf_counter()
        for _ in range(calls):
            run()
        wait()
        times.append((time.perf_counter() - started) / calls)
    return Measurement(min(times), statistics.median(times))


def _flops(rows: int) -> int:
    """Of a product of that many rows."""
    return 2 * rows * WIDTH * WIDTH


def _file(
    device: str,
    products: Mapping[str, Mapping[int, Measurement]],
    stream: Measurement,
    mixed: Measurement,
    launch: Measurement,
    attention: Measurement,
) -> dict[str, Any]:
    rates = {
        name: {rows: _flops(rows) / timed.best_s for rows, timed in by_rows.items()}
        for name, by_rows in products.items()
    }
    peaks = {name: max(by_rows.values()) for name, by_rows in rates.items()}
    usual = {
        name: statistics.median(_flops(rows) / products[name][rows].median_s for rows in ROWS if rows >= 128)
        for name in rates
    }
    weights = {name: WIDTH * WIDTH * (4 if name == "fp32" else 2) / products[name][1].median_s for name in rates}
    copied = 2 * STREAM * 4 / stream.best_s
    mixed_rate = 3 * (STREAM // 2) * 4 / mixed.median_s
    bandwidth = max(copied, mixed_rate, weights["fp32"])
    batch, heads, tokens, size = ATTENTION
    attended = 4 * batch * heads * tokens * tokens * size / attention.median_s
    vector = STREAM // 2 / mixed.best_s
    return {
        "name": platform.node() or "this machine",
        "vendor": _vendor(device),
        "matrix_flops_per_s": {name: _number(peak) for name, peak in peaks.items()},
        "vector_flops_per_s": {"fp32": _number(max(vector, peaks["fp32"]))},
        "bandwidth_bytes_per_s": _number(bandwidth),
        "memory_bytes": _number(_memory(device)),
        "efficiency": {
            "bandwidth": _share(statistics.median([2 * STREAM * 4 / stream.median_s, *weights.values()]), bandwidth),
            "matrix": {name: _share(usual[name], peaks[name]) for name in peaks},
            "attention": _share(attended, peaks["fp32"]),
            "elementwise": _share(mixed_rate, bandwidth),
            "launch_us": {"value": launch.median_s * 1e6, "source": SOURCE},
            "prefill_host_us": {"value": 0, "source": "no server on the machine itself"},
            "source": f"{SOURCE} on {date.today().isoformat()}",
        },
        "sources": {"measured": SOURCE},
        "notes": f"{platform.platform()}; {torch.get_num_threads()} threads; peaks are the best that was measured",
        "measured": {
            "date": date.today().isoformat(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "products": {name: {str(r): rate for r, rate in by_rows.items()} for name, by_rows in rates.items()},
            "spread": {
                **{f"product {name} {r}": t.spread for name, rows in products.items() for r, t in rows.items()},
                "bandwidth": stream.spread,
                "elementwise": mixed.spread,
                "launch": launch.spread,
                "attention": attention.spread,
            },
        },
    }


SOURCE = "measured by fxmeter calibrate"


def _number(value: float) -> dict[str, Any]:
    return {"value": round(value), "sources": ["measured"]}


def _share(rate: float, peak: float) -> dict[str, Any]:
    return {"value": min(1.0, rate / peak), "source": SOURCE}


def _vendor(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()


def _memory(device: str) -> int:
    if device == "cuda":
        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
