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

What ``fxmeter calibrate`` measured of a machine sharpens three terms: η_c by the number of rows of a product and by how
it lies in memory; β, for kernels between products whose tensors fit into a cache, is the cache's; and a tensor too
large to be allocated from memory that the process already has costs what the system takes to hand out its pages.

Everything works on numbers and, element by element, on numpy arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fxmeter.annotators.timing.kernel import Kernel
from fxmeter.annotators.timing.links import sending_s
from fxmeter.models.devices.device import Device, Efficiency

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
    measured = _share_of_rows(reached, dtype, kernel)
    real = (ideal[0] / (share if measured is None else measured), ideal[1] / reached.vector, memory[1])
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


def _share_of_rows(reached: Efficiency, dtype: str, kernel: Kernel) -> Any | None:
    """The measured share of the matrix peak of a product of so many rows; None where none was measured.

    Between two measured numbers of rows it is interpolated in the logarithms of both, beyond all of them it is that of
    the nearest.
    """
    shares = reached.by_rows.get(dtype, {}).get(kernel.form)
    if not shares:
        return None
    measured = sorted(shares)
    known = np.log([shares[count] for count in measured])
    return np.exp(np.interp(np.log(np.maximum(kernel.rows, 1)), np.log(measured), known))


def _memory(kernel: Kernel, device: Device) -> tuple[Any, Any]:
    """Seconds that the bytes of a kernel take at least, and as they are moved."""
    reached = device.efficiency
    between = kernel.kind == "elementwise"
    bound = kernel.nbytes / device.bandwidth_bytes_per_s
    real = bound / (reached.elementwise if between else reached.bandwidth)
    if not between or kernel.form == "cache" or device.cache_bytes is None or device.cache_bytes_per_s is None:
        return bound, real
    cached = kernel.nbytes <= device.cache_bytes
    within = kernel.nbytes / device.cache_bytes_per_s
    return np.where(cached, within, bound), np.where(cached, within, real)


def _fresh_s(kernel: Kernel, reached: Efficiency) -> Any:
    """Seconds that the system takes to hand out the pages of what a kernel allocates."""
    if reached.fresh_from_bytes is None or reached.fresh_bytes_per_s is None:
        return 0.0
    return kernel.made_bytes / reached.fresh_bytes_per_s if kernel.made_bytes >= reached.fresh_from_bytes else 0.0
