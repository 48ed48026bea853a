"""The time of a kernel: the roofs that nothing beats, and what real kernels make of them.

For FLOPs F, vector FLOPs V, bytes m and network bytes n of one launch on a device with peaks P (of the dtype that
multiplies), P_v, bandwidth β and link λ:

    bound    = max(F / P, V / P_v, m / β, n / λ)
    estimate = ‖ F / (η_c P), V / (η_v P_v), m / (η_b β) ‖₂ + n / (η_n λ) + τ

The 2-norm joins the roofs as measured kernels do: where two are equally high, neither hides the other. On 4,260 public
fp16 products (A100, H100, A40; M from 1 to 4,096) it has a median error of 4 to 5 %, and the 90th percentile is 13 to
16 %, against 18 to 20 % for their maximum. η are shares of the peaks that large kernels reach and τ is what a launch
costs (3 to 5 µs): a device's own, as its file says, else those of :class:`fxmeter.models.devices.device.Efficiency`.
A collective waits for its kernel before and after, so its time adds up, and its τ is that of a collective.

What ``fxmeter calibrate`` measured of a machine stands in for three terms: the time of a product, or of an attention
core, is its FLOPs over the rate that was measured for its dtype and layout, its rows, and the elements that each row is
multiplied by; β, for kernels between products, is the rate at which an elementwise kernel in their dtype moves so many
bytes, a cache's as far as they fit into one; and a tensor too large to be allocated from memory that the process
already has costs what the system takes to hand out its pages. Op by op τ is the host's work around an op, by the bytes
that the pass moves for each (:func:`op_by_op`).

Everything works on numbers and, element by element, on numpy arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fxmeter.annotators.timing.kernel import Kernel
from fxmeter.annotators.timing.links import sending_s
from fxmeter.models.devices.device import Device, Efficiency

BYTES = {"fp64": 8, "fp32": 4, "fp8": 1, "int8": 1}
"""Of an element in a dtype that is not of two bytes."""
ROOFS = ("compute", "vector", "memory", "network", "launch")
"""What a kernel's time can be spent on."""


@dataclass(frozen=True, slots=True)
class KernelTime:
    """Seconds of one launch: the bound, the estimate, the part of it outside of the roofs, and how high each roof is in
    the estimate (in the order of :data:`ROOFS`)."""

    bound_s: Any
    estimate_s: Any
    launch_s: Any
    roofs_s: tuple[Any, ...]

    @property
    def highest(self) -> Any:
        """The number of the highest roof in :data:`ROOFS`; of arrays, an array."""
        return np.argmax(np.stack(np.broadcast_arrays(*self.roofs_s)), axis=0)

    @property
    def bound_by(self) -> str:
        """The highest roof. Of one number only."""
        return ROOFS[int(self.highest)]


def kernel_time(kernel: Kernel, device: Device) -> KernelTime:
    """The time of one launch of ``kernel`` on ``device``; its amounts are numbers, or arrays."""
    reached = device.efficiency
    dtype, peak = device.matrix(kernel.dtype)
    vector_peak = device.vector(kernel.dtype)
    memory = _memory(kernel, device)
    ideal = (kernel.matmul_flops / peak, kernel.vector_flops / vector_peak, memory[0])
    share = {"attention": reached.attention, "product": reached.of_matrix(dtype)}.get(kernel.kind, 1.0)
    real = (ideal[0] / share, ideal[1] / reached.vector, memory[1])
    rate = _rate_of_product(reached, dtype, kernel)
    if rate is not None:  # it has its operands' traffic in it
        taken = np.maximum(kernel.matmul_flops / rate, np.maximum(ideal[0], ideal[2]))
        computes = ideal[0] >= ideal[2]
        real = (np.where(computes, taken, 0.0), real[1], np.where(computes, 0.0, taken))
    sent = sending_s(kernel, device)
    sending = sent / reached.network
    launch = reached.collective_s if kernel.kind == "collective" else reached.launch_s
    fresh = _fresh_s(kernel, reached)
    norm = np.sqrt(real[0] * real[0] + real[1] * real[1] + real[2] * real[2])
    return KernelTime(
        bound_s=np.maximum.reduce([*np.broadcast_arrays(*ideal, sent)]),
        estimate_s=norm + sending + launch + fresh,
        launch_s=launch,
        roofs_s=(*real[:2], real[2] + fresh, sending, launch),
    )


def op_by_op(kernels: Sequence[Kernel], device: Device) -> Device:
    """``device`` as it runs ``kernels`` from Python, one op after the other: with the host's work as launch."""
    table = device.efficiency.host_us
    launches = sum(kernel.times for kernel in kernels)
    if not table or not launches:
        return device
    each = sum(kernel.nbytes * kernel.times for kernel in kernels) / launches
    return replace(device, efficiency=replace(device.efficiency, launch_s=float(between(table, each)) / 1e6))


def _rate_of_product(reached: Efficiency, dtype: str, kernel: Kernel) -> Any | None:
    """The measured FLOPs a second of a product like this one; None where none was measured.

    Between measured rows, and between measured elements that a row is multiplied by (F / 2 rows, but no more than it
    reads: heads that share their keys find them in a cache), it is interpolated in logarithms; beyond the most of
    either it stays, and with fewer elements than the least the time stays.
    """
    table = reached.product_flops_per_s.get(dtype, {}).get(kernel.form)
    if not table:
        return None
    rows = np.maximum(kernel.rows, 1)
    multiplied = np.asarray(kernel.matmul_flops, dtype=float) / (2 * rows)
    elements = np.maximum(np.minimum(multiplied, kernel.nbytes / BYTES.get(kernel.dtype, 2)), 1.0)
    sizes = sorted(table)
    lines = [between(table[size], rows) for size in sizes]
    place = np.interp(np.log(elements), np.log(sizes), np.arange(len(sizes)))
    weights = [np.maximum(0.0, 1 - np.abs(place - index)) for index in range(len(sizes))]
    found = sum(weight * np.log(line) for weight, line in zip(weights, lines, strict=True))
    return np.exp(found) * np.minimum(1.0, elements / sizes[0])


def between(measured: Mapping[int, float], size: Any) -> Any:
    """Interpolated in the logarithms of both; that of the nearest beyond all that were measured."""
    known = sorted(measured)
    logarithms = np.log([measured[each] for each in known])
    return np.exp(np.interp(np.log(np.maximum(np.asarray(size, dtype=float), 1.0)), np.log(known), logarithms))


def _memory(kernel: Kernel, device: Device) -> tuple[Any, Any]:
    """Seconds that the bytes of a kernel take at least, and as they are moved.

    Weights and a cache come from memory; everything else may still be in a cache, and nothing beats its fastest rate.
    """
    reached, nbytes = device.efficiency, kernel.nbytes
    elementwise = kernel.kind == "elementwise"
    bound = nbytes / device.bandwidth_bytes_per_s
    real = bound / (reached.elementwise if elementwise else reached.bandwidth)
    fastest = device.fastest_stream
    if fastest is None or kernel.form in ("mm", "mm_t", "cache"):
        return bound, real
    return nbytes / fastest, nbytes / between(device.streams_of(kernel.dtype), nbytes) if elementwise else real


def _fresh_s(kernel: Kernel, reached: Efficiency) -> Any:
    """Seconds that the system takes to hand out the pages of what a kernel allocates."""
    if reached.fresh_from_bytes is None or reached.fresh_bytes_per_s is None:
        return 0.0
    return kernel.made_bytes / reached.fresh_bytes_per_s if kernel.made_bytes >= reached.fresh_from_bytes else 0.0
