"""The time of a stage: the sum over its kernels, by module and by op."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from fxmeter.annotators.timing.kernel import Kernel
from fxmeter.annotators.timing.limits import beyond
from fxmeter.annotators.timing.roofline import ROOFS, KernelTime, kernel_time, op_by_op
from fxmeter.models.devices import device as device_named
from fxmeter.models.devices.device import Device
from fxmeter.models.scenario import Scenario, VisionScenario


@dataclass(frozen=True, slots=True)
class Time:
    """Seconds of a part of a pass. Times add up: kernels run one after another.

    ``roofs_s`` has for each of :data:`fxmeter.annotators.timing.roofline.ROOFS` the seconds of those kernels that are
    bound by it; their sum is ``estimate_s``. Of a closed form at arrays of sizes, all of these are arrays, and
    ``bound_by`` is one of words.
    """

    bound_s: Any = 0.0
    estimate_s: Any = 0.0
    launch_s: Any = 0.0
    roofs_s: tuple[Any, ...] = (0.0,) * len(ROOFS)

    def __add__(self, other: Time) -> Time:
        roofs = tuple(map(add, self.roofs_s, other.roofs_s))
        return Time(
            self.bound_s + other.bound_s, self.estimate_s + other.estimate_s, self.launch_s + other.launch_s, roofs
        )

    def __mul__(self, times: float) -> Time:
        roofs = tuple(roof * times for roof in self.roofs_s)
        return Time(self.bound_s * times, self.estimate_s * times, self.launch_s * times, roofs)

    @property
    def bound_by(self) -> Any:
        """What most of the estimate is bound by: "compute", "vector", "memory", "network" or "launch"."""
        words = np.array(ROOFS)[np.argmax(np.stack(np.broadcast_arrays(*self.roofs_s)), axis=0)]
        return words if np.ndim(words) else str(words)

    @classmethod
    def of(cls, timed: KernelTime) -> Time:
        """One launch."""
        highest = timed.highest
        roofs = tuple(np.where(highest == index, timed.estimate_s, 0.0) for index in range(len(ROOFS)))
        return cls(timed.bound_s, timed.estimate_s, timed.launch_s, roofs)

    def summed(self) -> Time:
        """Of arrays, the sum over all of their sizes; numbers stay what they are, as plain floats."""
        roofs = tuple(float(np.sum(roof)) for roof in self.roofs_s)
        return Time(float(np.sum(self.bound_s)), float(np.sum(self.estimate_s)), float(np.sum(self.launch_s)), roofs)


ZERO = Time()


@dataclass(frozen=True, slots=True)
class TimedKernel:
    """A kernel, one launch of it, and all of them, in ``steps`` passes."""

    kernel: Kernel
    one: Time
    all: Time
    steps: int = 1

    @property
    def launches(self) -> int:
        """How often it is launched in all passes."""
        return self.kernel.times * self.steps


@dataclass(frozen=True, slots=True)
class StageTime:
    """How long a stage takes on a device: see :mod:`fxmeter.annotators.timing.roofline` for the three numbers.

    ``modules`` maps a module's path to the time of everything inside it (one instance), ``kernels`` are all kernels.
    ``steps`` passes are in the totals. Of a prefill the total has an engine's work for a prompt too; what else a server
    spends outside of the device is in no figure here. ``extrapolated`` has the reasons why the estimate was not held to
    measurements, none where it was. ``last`` is the last of several steps by itself.
    """

    device: Device
    total: Time
    modules: Mapping[str, Time] = field(repr=False)
    kernels: tuple[TimedKernel, ...] = field(repr=False)
    steps: int = 1
    extrapolated: tuple[str, ...] = ()
    last: StageTime | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        told = ("bound_s", "estimate_s", "launch_s", "bound_by")
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in told)
        return f"StageTime({self.device.name}, {values}, steps={self.steps}, extrapolated={self.extrapolated})"

    @property
    def bound_s(self) -> float:
        """Nothing runs faster."""
        return self.total.bound_s

    @property
    def estimate_s(self) -> float:
        """What to expect."""
        return self.total.estimate_s

    @property
    def launch_s(self) -> float:
        """What the estimate spends outside of the roofs."""
        return self.total.launch_s

    @property
    def bound_by(self) -> str:
        """What most of the estimate is bound by."""
        return self.total.bound_by

    @property
    def dtype(self) -> str:
        """What most of its FLOPs are computed in."""
        most = max(self.kernels, key=lambda item: item.all.estimate_s, default=None)
        products = [item for item in self.kernels if item.kernel.kind in ("product", "attention")]
        most = max(products, key=lambda item: item.all.estimate_s, default=most)
        return most.kernel.dtype if most else "fp32"

    def share_of(self, part: Time) -> float:
        """A part's share of the estimate."""
        return part.estimate_s / self.estimate_s if self.estimate_s else 0.0


def stage_time(
    kernels: Iterable[Kernel],
    device: str | Path | Device,
    times_of_module: Mapping[str, int],
    scenario: Scenario | VisionScenario | None = None,
    fused: bool = True,
) -> StageTime:
    """Sum up the kernels of a stage, each an op where it is not ``fused``. ``times_of_module`` has how many instances a
    recorded module stands for."""
    chosen = device_named(device)
    kernels = tuple(kernels)
    running = chosen if fused else op_by_op(kernels, chosen)
    timed = []
    for kernel in kernels:
        one = Time.of(kernel_time(kernel, running)).summed()
        timed.append(TimedKernel(kernel, one, one * kernel.times))
    modules = by_module(((item.kernel, item.one) for item in timed), times_of_module)
    total = reduce(add, (item.all for item in timed), host_time(chosen, scenario.stage if scenario else None))
    reasons = beyond(kernels, chosen, scenario)
    return StageTime(chosen, total, {**modules, "": total}, tuple(timed), extrapolated=reasons)


def host_time(device: Device, stage: str | None) -> Time:
    """What an engine spends on a pass outside of the device."""
    if stage != "prefill":
        return ZERO
    host = device.efficiency.prefill_host_s
    return Time(0.0, host, host, tuple(host if roof == "launch" else 0.0 for roof in ROOFS))


def by_module(timed: Iterable[tuple[Kernel, Time]], times_of_module: Mapping[str, int]) -> dict[str, Time]:
    """Path → the time of everything inside one instance of the module, from that of one launch of each kernel."""
    modules: dict[str, Time] = {}
    for kernel, one in timed:
        path = kernel.module
        while True:
            inside = kernel.times // times_of_module.get(path, 1)
            modules[path] = modules.get(path, ZERO) + one * inside
            if not path:
                break
            path = path.rpartition(".")[0]
    return modules


def joined(device: Device, times: Sequence[StageTime]) -> StageTime:
    """Passes that follow one another as one; ``kernels`` are those of all of them."""
    modules: dict[str, Time] = {}
    for passed in times:
        for path, time in passed.modules.items():
            modules[path] = modules.get(path, ZERO) + time
    return StageTime(
        device,
        reduce(add, (passed.total for passed in times), ZERO),
        modules,
        tuple(item for passed in times for item in passed.kernels),
        sum(passed.steps for passed in times),
        tuple(dict.fromkeys(reason for passed in times for reason in passed.extrapolated)),
        times[-1].last or times[-1],
    )
