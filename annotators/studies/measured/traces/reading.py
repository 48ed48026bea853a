"""What is kept of a profiler's trace: ops, the ranges of modules around them, and what they launched on a device.

An event is kept as a few numbers in columns (49 bytes), its name and shapes once for all that have the same; calls of
Python functions, most of a trace with stacks, are dropped but for those of modules.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fxmeter.annotators.studies.measured.traces.events import Event, events_of
from fxmeter.models.errors import TraceFileError
from fxmeter.models.names import Fields

OP, RANGE, LAUNCH = range(3)
_KINDS = {
    "cpu_op": OP,
    "Operator": OP,
    "user_annotation": RANGE,
    "python_function": RANGE,
    "cuda_runtime": LAUNCH,
    "cuda_driver": LAUNCH,
    "Runtime": LAUNCH,
}
_ON_DEVICE = ("kernel", "Kernel", "gpu_memcpy", "Memcpy", "gpu_memset", "Memset")
_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm")
OWN = "fxmeter: "
"""What ranges of our own begin with."""
MODULE = "nn.Module: "
"""What torch.profiler calls the call of a module, where it keeps stacks."""

Shapes = tuple[tuple[int, ...], ...]


def _column() -> array[int]:
    return array("q")


class Numbers:
    """Every distinct value once, with a number."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def of(self, value: Any) -> int:
        """The number of ``value``."""
        number = self._numbers.setdefault(value, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number


@dataclass(slots=True)
class Trace:
    """What is kept of a file. Times are in ns.

    Attributes:
        kind, thread, start, duration, name, shapes, launch: a column each of the events kept; threads, names and shapes
            (None where none were recorded) as numbers of ``threads``, ``names`` and ``sizes``, and what correlates a
            launch with the kernels that it launched.
        kernel_ns: of a launch, the time on the device of what it launched.
        kernel_names: of a launch, the number in ``names`` of what it launched.
        memory: allocations, by whether they are on a device and not the CPU: (time, bytes; below 0 what is freed).
        dtypes: types of what matrix products multiply, each with how often.
    """

    path: str
    kind: array[int] = field(default_factory=lambda: array("b"))
    thread: array[int] = field(default_factory=_column)
    start: array[int] = field(default_factory=_column)
    duration: array[int] = field(default_factory=_column)
    name: array[int] = field(default_factory=_column)
    shapes: array[int] = field(default_factory=_column)
    launch: array[int] = field(default_factory=_column)
    threads: Numbers = field(default_factory=Numbers)
    names: Numbers = field(default_factory=Numbers)
    sizes: Numbers = field(default_factory=Numbers)
    kernel_ns: dict[int, int] = field(default_factory=dict)
    kernel_names: dict[int, int] = field(default_factory=dict)
    memory: dict[bool, list[tuple[int, int]]] = field(default_factory=dict)
    dtypes: Counter[str] = field(default_factory=Counter)

    @property
    def on_device(self) -> bool:
        """Whether a device ran kernels: then their time counts, and not that of the CPU, which launched them."""
        return bool(self.kernel_ns)

    @property
    def kernels_ns(self) -> int:
        """The time of all kernels that are in the file."""
        return sum(self.kernel_ns.values())


def read_trace(path: str | Path) -> Trace:
    """Read what ``torch.profiler.profile.export_chrome_trace`` writes, compressed by gzip or not.

    Raises:
        TraceFileError: no such file, no trace, one without ops, or one that is cut off.
    """
    trace = trace_of(events_of(Path(path)), str(path))
    if OP not in trace.kind:
        raise TraceFileError(f"{path}: is a trace without ops; profile with ProfilerActivity.CPU, and CUDA for a GPU")
    return trace


def trace_of(events: Iterable[Event], path: str) -> Trace:
    """What is kept of ``events``. Raises TraceFileError for one that no profiler writes."""
    trace = Trace(path)
    for event in events:
        try:
            _keep(trace, event)
        except (KeyError, TypeError, ValueError) as error:
            name = str(event.get("name"))
            raise TraceFileError(f"{path}: the event {name!r:.60} is none of a profiler ({error!r:.80})") from None
    return trace


def _keep(trace: Trace, event: Event) -> None:
    kind = _KINDS.get(event.get("cat", ""))
    if event.get("ph") == "i" and event.get("name") == "[memory]":
        _keep_memory(trace, event["ts"], event["args"])
    elif event.get("ph") != "X":
        return
    elif kind is not None:
        if event["cat"] != "python_function" or event["name"].startswith(MODULE):
            _keep_call(trace, kind, event, event.get("args", {}))
    elif event.get("cat") in _ON_DEVICE:
        launch = int(event.get("args", {}).get("correlation", 0))
        trace.kernel_ns[launch] = trace.kernel_ns.get(launch, 0) + _ns(event["dur"])
        trace.kernel_names[launch] = trace.names.of(event["name"])


def _keep_call(trace: Trace, kind: int, event: Event, args: Fields) -> None:
    dims = args.get("Input Dims", args.get("Input dims")) if kind == OP else None
    trace.kind.append(kind)
    trace.thread.append(trace.threads.of((event.get("pid"), event.get("tid"))))
    trace.start.append(_ns(event["ts"]))
    trace.duration.append(_ns(event["dur"]))
    trace.name.append(trace.names.of(event["name"]))
    trace.shapes.append(trace.sizes.of(None if dims is None else tuple(_shapes(dims))))
    trace.launch.append(int(args.get("correlation", 0)) if kind == LAUNCH else 0)
    if event["name"] in _PRODUCTS and (types := args.get("Input type")):
        trace.dtypes[str(types[-1] or types[0])] += 1


def _keep_memory(trace: Trace, moment: str | int, args: Fields) -> None:
    on_device = int(args.get("Device Type", 0)) != 0
    trace.memory.setdefault(on_device, []).append((_ns(moment), int(args["Bytes"])))


def _shapes(dims: Any) -> Shapes:
    """Shapes of the tensors among arguments, those of lists too; a scalar's, and what is no tensor, is left out."""
    found: list[tuple[int, ...]] = []
    for item in dims:
        if isinstance(item, list) and item:
            found.extend(_shapes(item) if isinstance(item[0], list) else [tuple(map(int, item))])
    return tuple(found)


def _ns(microseconds: str | int) -> int:
    """ns of a time in us, exactly: a float would lose what a nesting depends on."""
    whole, point, part = str(microseconds).partition(".")
    if not point or not part.isdigit():
        return round(float(microseconds) * 1000)
    return int(whole) * 1000 + int(part[:3].ljust(3, "0"))
