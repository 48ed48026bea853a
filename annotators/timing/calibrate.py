"""Measuring the machine that this runs on, into a device file: what its kernels reach, with repeats and their spread.

Peaks here are the best that was measured, not a datasheet's, so that nothing runs faster than ``bound_s`` says; shares
are what a quarter of the repeats reach of them, since other work on the machine is no property of it.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Mapping
from datetime import date

import torch

from fxmeter.annotators.timing import benchmarks
from fxmeter.annotators.timing.benchmarks import FORMS, Measurement, Product, measure
from fxmeter.models.errors import DeviceError
from fxmeter.models.names import Document

Products = dict[str, dict[str, dict[int, tuple[Product, Measurement]]]]
"""By dtype, layout and rows."""
FRESH = tuple(2**power for power in range(21, 25))
"""Elements of allocations among which the size is looked for from which on pages are fresh each time: 8 to 64 MiB."""
FUNCTIONS_FLOPS = 10
"""FLOPs of a softmax (5) and of an activation (5) for one element, as their rules have it."""


def calibrate(device: str = "cpu", *, seconds: float = 30.0, say: Callable[[str], None] = lambda _: None) -> Document:
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
    slot = seconds / (len(dtypes) * sum(len(benchmarks.counts(form)) for form in FORMS) + 20)
    with torch.inference_mode():
        products: Products = {
            name: {form: _products(form, dtype, device, slot, name, say) for form in FORMS}
            for name, dtype in dtypes.items()
        }
        say("bandwidth, elementwise kernels, launches")
        single = {
            "bandwidth": measure(benchmarks.copy(device), device, 2 * slot),
            "elementwise": measure(benchmarks.elementwise(device, benchmarks.STREAM // 2), device, 2 * slot),
            "functions": measure(benchmarks.functions(device), device, slot),
        }
        cached = {
            count: measure(benchmarks.elementwise(device, count), device, slot / 2) for count in benchmarks.CACHED
        }
        fresh = {} if device == "cuda" else {count: _fresh(count, slot) for count in FRESH}
        if device == "cuda":
            single["launch"] = measure(benchmarks.tiny(device), device, slot)
        else:
            step, ops = benchmarks.host_step()
            taken = measure(step, device, 4 * slot)
            single["launch"] = Measurement(taken.best_s / ops, taken.usual_s / ops, taken.median_s / ops)
    return _file(device, products, single, cached, fresh)


def _products(
    form: str, dtype: torch.dtype, device: str, slot: float, name: str, say: Callable[[str], None]
) -> dict[int, tuple[Product, Measurement]]:
    """By rows, up to where a single product takes longer than its share of the time."""
    timed: dict[int, tuple[Product, Measurement]] = {}
    for rows in benchmarks.counts(form):
        say(f"products of {rows} rows in {name}")
        product = FORMS[form][0](form, rows, dtype, device)
        timed[rows] = product, measure(product.run, device, slot)
        if timed[rows][1].best_s > slot / 2:
            break
    return timed


def _fresh(count: int, slot: float) -> tuple[Measurement, Measurement]:
    """An elementwise kernel that allocates its result, and one that does not."""
    allocating, writing = benchmarks.allocating(count), benchmarks.elementwise("cpu", count)
    return measure(allocating, "cpu", slot), measure(writing, "cpu", slot)


def _file(
    device: str,
    products: Products,
    single: Mapping[str, Measurement],
    cached: Mapping[int, Measurement],
    fresh: Mapping[int, tuple[Measurement, Measurement]],
) -> Document:
    weights = {name: by_form["mm_t"] for name, by_form in products.items()}
    peaks = {
        name: max(product.flops / timed.best_s for rows in by_form.values() for product, timed in rows.values())
        for name, by_form in products.items()
    }
    waiting = single["launch"].usual_s if device == "cuda" else 0.0
    gemv = max(
        product.nbytes / (timed.usual_s - min(waiting, timed.usual_s / 2))
        for rows in weights.values()
        for product, timed in rows.values()
    )
    mixed = 3 * (benchmarks.STREAM // 2) * 4 / single["elementwise"].usual_s
    bandwidth = max(
        gemv,
        *(product.nbytes / timed.best_s for rows in weights.values() for product, timed in rows.values()),
        2 * benchmarks.STREAM * 4 / single["bandwidth"].best_s,
        3 * (benchmarks.STREAM // 2) * 4 / single["elementwise"].best_s,
    )
    by_rows = {
        name: {form: _shares(rows, peaks[name], gemv, waiting) for form, rows in by_form.items()}
        for name, by_form in products.items()
    }
    large = {name: _last(by_rows[name]["mm_t"])["value"] for name in peaks}
    within = {count: 12 * count / timed.usual_s for count, timed in cached.items()}
    functions = math.prod(benchmarks.VECTOR) * FUNCTIONS_FLOPS / single["functions"].usual_s
    vector = max(peaks["fp32"], benchmarks.STREAM // 2 / single["elementwise"].best_s)
    return {
        "name": platform.node() or "this machine",
        "vendor": _vendor(device),
        "matrix_flops_per_s": {name: _number(peak) for name, peak in peaks.items()},
        "vector_flops_per_s": {"fp32": _number(vector)},
        "bandwidth_bytes_per_s": _number(bandwidth),
        "memory_bytes": _number(_memory(device)),
        **_cache(within, bandwidth),
        "efficiency": {
            "bandwidth": _share(gemv, bandwidth),
            "matrix": {name: _share(share, 1.0) for name, share in large.items()},
            "attention": _last(by_rows["fp32"]["attention"]),
            "elementwise": _share(mixed, bandwidth),
            "vector": _share(functions, vector),
            "by_rows": by_rows,
            **_pages(fresh),
            "launch_us": {"value": single["launch"].usual_s * 1e6, "source": SOURCE},
            "prefill_host_us": {"value": 0, "source": "no server on the machine itself"},
            "source": f"{SOURCE} on {date.today().isoformat()}",
        },
        "sources": {"measured": SOURCE},
        "notes": f"{platform.platform()}; {torch.get_num_threads()} threads; peaks are the best that was measured",
        "measured": {
            "date": date.today().isoformat(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "products": {
                name: {
                    form: {str(count): product.flops / timed.best_s for count, (product, timed) in rows.items()}
                    for form, rows in by_form.items()
                }
                for name, by_form in products.items()
            },
            "spread": {
                **{
                    f"{form} {name} {count}": timed.spread
                    for name, by_form in products.items()
                    for form, rows in by_form.items()
                    for count, (_, timed) in rows.items()
                },
                **{what: timed.spread for what, timed in single.items()},
            },
        },
    }


def _shares(
    rows: Mapping[int, tuple[Product, Measurement]], peak: float, stream: float, waiting: float = 0.0
) -> dict[str, Document]:
    """The share of the peak by rows: what, joined with the bytes by the 2-norm, gives the time that was measured,
    less what of it is ``waiting`` for the launch (on a CPU next to nothing: the host's work is around an op)."""
    shares = {}
    for count, (product, timed) in rows.items():
        ideal = product.flops / peak
        left = math.sqrt(max(max(timed.usual_s - waiting, 0.0) ** 2 - (product.nbytes / stream) ** 2, ideal**2))
        shares[str(count)] = _share(ideal, left)
    return shares


def _last(shares: Mapping[str, Document]) -> Document:
    """That of the most rows."""
    return shares[max(shares, key=int)]


def _cache(within: Mapping[int, float], bandwidth: float) -> Document:
    """The cache that elementwise kernels see: its rate, and the bytes up to which they run nearer to that rate than to
    that of memory. Nothing where there is no such thing."""
    rate = max(within.values())
    near = [count for count, reached in within.items() if reached**2 > rate * bandwidth]
    if rate <= bandwidth or not near:
        return {}
    return {"cache_bytes": _number(12 * max(near)), "cache_bytes_per_s": _number(rate)}


def _pages(fresh: Mapping[int, tuple[Measurement, Measurement]]) -> Document:
    """The size from which on allocating costs as much again as writing, and how fast pages come; nothing if none."""
    slow = [count for count, (new, old) in fresh.items() if new.usual_s > 2 * old.usual_s]
    if not slow:
        return {}
    new, old = fresh[max(slow)]
    rate = 4 * max(slow) / (new.usual_s - old.usual_s)
    return {
        "fresh_from_bytes": {"value": 4 * min(slow), "source": SOURCE},
        "fresh_bytes_per_s": {"value": round(rate), "source": SOURCE},
    }


SOURCE = "measured by fxmeter calibrate"


def _number(value: float) -> Document:
    return {"value": round(value), "sources": ["measured"]}


def _share(rate: float, peak: float) -> Document:
    return {"value": min(1.0, rate / peak), "source": SOURCE}


def _vendor(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()


def _memory(device: str) -> int:
    if device == "cuda":
        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
