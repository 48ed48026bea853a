"""The calls of a trace as trees: modules' ranges and ops, each with what it called, from what began and ended when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from fxmeter.annotators.studies.measured.traces.reading import LAUNCH, RANGE, Shapes, Trace


@dataclass(slots=True)
class Call:
    """A call of an op, of a kernel or of a range.

    Attributes:
        is_range: whether it is the range of a module, or another that somebody named.
        name: as in the trace.
        shapes: of an op's tensors; None where the trace has none.
        start, end: ns.
        own_ns: time that counts and is not that of ``calls``: of an op on the CPU its duration without theirs, of a
            launch that of its kernels on the device.
        calls: what it called, in order.
        ns: ``own_ns`` and that of all it called.
    """

    is_range: bool
    name: str
    shapes: Shapes | None
    start: int
    end: int
    own_ns: int = 0
    calls: list[Call] = field(default_factory=list)
    ns: int = 0


def trees_of(trace: Trace) -> Iterator[Call]:
    """The outermost calls, thread by thread and in order, each once it is complete."""
    kind, start = np.frombuffer(trace.kind, np.int8), np.frombuffer(trace.start, np.int64)
    duration, threads = np.frombuffer(trace.duration, np.int64), np.frombuffer(trace.thread, np.int64)
    order = np.lexsort((kind != RANGE, -duration, start, threads))
    around: list[Call] = []
    thread = -1
    unseen = dict(trace.kernel_ns)
    for index in map(int, order):
        call = _call(trace, index, unseen)
        if call is None:
            continue
        while around and (call.start >= around[-1].end or trace.thread[index] != thread):
            yield from _closed(around, trace)
        thread = trace.thread[index]
        if around:
            call.end = min(call.end, around[-1].end)  # two clocks that differ by a tick
            around[-1].calls.append(call)
        around.append(call)
    while around:
        yield from _closed(around, trace)


def _call(trace: Trace, index: int, unseen: dict[int, int]) -> Call | None:
    """The call of a row; None for a launch of nothing, or of what was launched before."""
    kind, began = trace.kind[index], trace.start[index]
    end = began + trace.duration[index]
    if kind == LAUNCH:
        launch = trace.launch[index]
        if launch not in unseen:
            return None
        return Call(False, trace.names.values[trace.kernel_names[launch]], None, began, end, unseen.pop(launch))
    name, shapes = trace.names.values[trace.name[index]], trace.sizes.values[trace.shapes[index]]
    return Call(kind == RANGE, name, shapes, began, end)


def _closed(around: list[Call], trace: Trace) -> Iterator[Call]:
    """Take the innermost call off, its time settled; yields it where it is an outermost one."""
    call = around.pop()
    inside = sum(inner.ns for inner in call.calls)
    if not call.is_range and not trace.on_device:
        call.own_ns = call.end - call.start - inside
    call.ns = call.own_ns + inside
    if not around:
        yield call
