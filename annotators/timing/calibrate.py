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

Timed = list[list[tuple[Product, Measurement]]]
"""By what each row is multiplied by, then by rows."""
Products = dict[str, dict[str, Timed]]
"""By dtype and layout."""
FRESH = tuple(2**power for power in range(20, 25))
"""Elements of allocations among which the size is looked for from which on pages are fresh each time: 4 to 64 MiB."""
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
    sizes = benchmarks.STREAMED[device]
    benchmarks.settle()
    slot = seconds / (len(dtypes) * (benchmarks.products(device) + len(sizes)) + 20)
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
            "tiny": measure(benchmarks.tiny(device), device, slot),
        }
        streams = {
            name: {
                3 * dtype.itemsize * count: measure(benchmarks.elementwise(device, count, dtype), device, slot)
                for count in sizes
            }
            for name, dtype in dtypes.items()
        }
        fresh = {} if device == "cuda" else {count: _fresh(count, slot) for count in FRESH}
        host = {} if device == "cuda" else dict(_host(width, slot) for width in benchmarks.HOST_WIDTHS)
    return _file(device, products, single, streams, fresh, host)


def _products(form: str, dtype: torch.dtype, device: str, slot: float, name: str, say: Callable[[str], None]) -> Timed:
    """Each with more rows up to where a single product takes longer than several shares of the time."""
    timed: Timed = []
    for by_rows in FORMS[form](form, dtype, device):
        timed.append([])
        for product in by_rows:
            say(f"products of {product.rows} rows in {name}")
            timed[-1].append((product, measure(product.run, device, slot)))
            if timed[-1][-1][1].best_s > 2 * slot:
                break
    return timed


def _fresh(count: int, slot: float) -> tuple[Measurement, Measurement]:
    """A chain of elementwise kernels that allocate their results, and one of them that does not."""
    allocating, writing = benchmarks.allocating(count), benchmarks.elementwise("cpu", count)
    return measure(allocating, "cpu", slot), measure(writing, "cpu", slot)


def _host(width: int, slot: float) -> tuple[int, float]:
    """The bytes that a step reads for each op, and the microseconds of the host for each."""
    host = benchmarks.host_step(width)
    steps, products = (measure(run, "cpu", 3 * slot).best_s for run in (host.step, host.products))
    return host.bytes_per_op, max(steps - products, products / 1e3) / host.ops * 1e6


def _file(
    device: str,
    products: Products,
    single: Mapping[str, Measurement],
    streams: Mapping[str, Mapping[int, Measurement]],
    fresh: Mapping[int, tuple[Measurement, Measurement]],
    host: Mapping[int, float],
) -> Document:
    flat = {
        name: [pair for timed in by_form.values() for rows in timed for pair in rows]
        for name, by_form in products.items()
    }
    weights = [pair for by_form in products.values() for rows in by_form["mm_t"] for pair in rows]
    peaks = {name: max(product.flops / timed.best_s for product, timed in pairs) for name, pairs in flat.items()}
    waiting = single["tiny"].usual_s
    gemv = max(product.nbytes / _less(timed.usual_s, waiting) for product, timed in weights)
    mixed = 3 * (benchmarks.STREAM // 2) * 4 / single["elementwise"].usual_s
    bandwidth = max(
        gemv,
        *(product.nbytes / timed.best_s for product, timed in weights),
        2 * benchmarks.STREAM * 4 / single["bandwidth"].best_s,
        3 * (benchmarks.STREAM // 2) * 4 / single["elementwise"].best_s,
    )
    rates = {
        name: {form: _rates(timed, waiting, peaks[name]) for form, timed in by_form.items()}
        for name, by_form in products.items()
    }
    within = {
        name: {str(nbytes): round(nbytes / _less(timed.usual_s, waiting)) for nbytes, timed in by_size.items()}
        for name, by_size in streams.items()
    }
    functions = math.prod(benchmarks.VECTOR) * FUNCTIONS_FLOPS / single["functions"].usual_s
    vector = max(peaks["fp32"], benchmarks.STREAM // 2 / single["elementwise"].best_s)
    return {
        "name": platform.node() or "this machine",
        "vendor": _vendor(device),
        "matrix_flops_per_s": {name: _number(peak) for name, peak in peaks.items()},
        "vector_flops_per_s": {"fp32": _number(vector)},
        "bandwidth_bytes_per_s": _number(bandwidth),
        "memory_bytes": _number(_memory(device)),
        "efficiency": {
            "bandwidth": _share(gemv, bandwidth),
            "matrix": {name: _share(_most(rates[name]["mm_t"]), peak) for name, peak in peaks.items()},
            "attention": _share(_most(rates["fp32"]["attention"]), peaks["fp32"]),
            "elementwise": _share(mixed, bandwidth),
            "vector": _share(functions, vector),
            "product_flops_per_s": rates,
            "elementwise_bytes_per_s": within,
            **_pages(fresh),
            **({"host_us": {str(nbytes): round(each, 3) for nbytes, each in host.items()}} if host else {}),
            "launch_us": {"value": min(host.values(), default=waiting * 1e6), "source": SOURCE},
            "prefill_host_us": {"value": 0, "source": "no server on the machine itself"},
            "source": f"{SOURCE} on {date.today().isoformat()}",
        },
        "sources": {"measured": SOURCE},
        "notes": f"{platform.platform()}; {torch.get_num_threads()} threads; peaks are the best that was measured",
        "measured": {
            "date": date.today().isoformat(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "spread": {
                **{
                    f"{form} {name} {product.elements} {product.rows}": timed.spread
                    for name, by_form in products.items()
                    for form, by_size in by_form.items()
                    for rows in by_size
                    for product, timed in rows
                },
                **{what: timed.spread for what, timed in single.items()},
            },
        },
    }


def _rates(timed: Timed, waiting: float, peak: float) -> dict[str, dict[str, int]]:
    """FLOPs a second by elements and rows, without what of the time is the launch's own."""
    return {
        str(rows[0][0].elements): {
            str(product.rows): round(min(peak, product.flops / _less(one.usual_s, waiting))) for product, one in rows
        }
        for rows in timed
    }


def _less(seconds: float, waiting: float) -> float:
    """Without the launch, which no short kernel is all of."""
    return seconds - min(waiting, seconds / 2)


def _most(rates: Mapping[str, Mapping[str, int]]) -> int:
    """The best of the most elements."""
    return max(rates[max(rates, key=int)].values())


def _pages(fresh: Mapping[int, tuple[Measurement, Measurement]]) -> Document:
    """The size from which on allocating costs as much again as writing, and how fast pages come; nothing if none."""
    links = benchmarks.CHAIN
    slow = [count for count, (new, old) in fresh.items() if new.usual_s > 2 * links * old.usual_s]
    if not slow:
        return {}
    new, old = fresh[max(slow)]
    rate = links * 4 * max(slow) / (new.usual_s - links * old.usual_s)
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
