"""Laying a trace over a priced pass: matched, added up by op and by module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.annotators.studies.measured.comparison import Comparison, MeasuredOp, Part, RanOp, Unmatched
from fxmeter.annotators.studies.measured.doubts import doubts_of
from fxmeter.annotators.studies.measured.expected import Expected, expected_ops
from fxmeter.annotators.studies.measured.matching import has_shapes_of, match
from fxmeter.annotators.studies.measured.traces.passes import Pass, Ran, passes_of
from fxmeter.annotators.studies.measured.traces.paths import Paths
from fxmeter.annotators.studies.measured.traces.ranges import sizes_in, sizes_of
from fxmeter.annotators.studies.measured.traces.reading import Trace, read_trace
from fxmeter.annotators.timing.stage_time import StageTime
from fxmeter.models.devices.device import Device
from fxmeter.models.errors import ScenarioError, TraceFileError

LEAST_FOUND = 0.8
"""A pass in which less of the prediction (bytes and FLOPs) ran with the shapes that were recorded is one of other
sizes, or of another model. Time says less: in a short pass one op that the machine held up may take most of it."""


def lay_over(stage: AnnotatedStage, trace: str | Path | Trace, device: str | Path | Device | None = None) -> Comparison:
    """What a profiler's trace says of a priced pass.

    Args:
        stage: one pass priced with ``fold=False``, as it was run: attention, batch and lengths.
        trace: the file, or what :func:`fxmeter.annotators.studies.measured.traces.reading.read_trace` makes of it.
        device: where it ran, a name of ``fxmeter devices`` or a device file: adds bound, estimate, share of the roof.

    Raises:
        TraceFileError: the file cannot be read, or no pass in it is of this model and these sizes.
        ScenarioError: a folded stage.
        DeviceError: no such device.
    """
    if any(module.times > 1 for module in stage.modules.values()):
        raise ScenarioError("a trace has every layer: price the pass with annotate(..., fold=False)")
    given = trace if isinstance(trace, Trace) else read_trace(trace)
    expected = expected_ops(stage)
    paths = Paths(stage.modules, [op.node.module for op in expected])
    sums = _Sums(expected, stage.scenario)
    for one in passes_of(given, expected, paths):
        sums.add(one)
    if not sums.passes:
        raise TraceFileError(_other(given, sums))
    timed = None if device is None else stage.time(device, fused=False)
    return _comparison(stage, given, sums, timed)


@dataclass(slots=True)
class _Sums:
    """Times in ns of passes: by the place of what was recorded, and of what was not by (name, module, shapes).

    ``reshaped`` is the time of ops that ran with other shapes than recorded, by place; ``closest`` the largest share of
    the prediction that was found in a pass left out.
    """

    expected: Sequence[Expected]
    scenario: object
    passes: int = 0
    outside_ns: int = 0
    by_op: Counter[int] = field(default_factory=Counter)
    reshaped: Counter[int] = field(default_factory=Counter)
    unmatched: dict[tuple[str, str, str], tuple[int, int]] = field(default_factory=dict)
    spans: list[tuple[int, int]] = field(default_factory=list)
    first: tuple[RanOp, ...] = ()
    closest: float = 0.0

    def add(self, one: Pass) -> None:
        """Take in a pass, or leave it outside where it is none of this prediction."""
        sizes = sizes_in(one.name)
        if not one.whole or (sizes is not None and not sizes.are_of(self.scenario)):
            self.outside_ns += one.ns
            return
        found = match(self.expected, one.ops)
        ran: dict[int, list[Ran]] = {}
        for op, place in zip(one.ops, found, strict=True):
            if place is not None:
                ran.setdefault(place, []).append(op)
        times = Counter({place: sum(op.ns for op in ops) for place, ops in ran.items()})
        reshaped = {place: ns for place, ns in times.items() if not has_shapes_of(self.expected[place], ran[place])}
        share = self.share_of(ran.keys() - reshaped.keys())
        if share < LEAST_FOUND:
            self.closest = max(self.closest, share)
            self.outside_ns += one.ns
            return
        self.passes += 1
        self.spans.append((one.start, one.end))
        self.first = self.first or tuple(_as_ran(one))
        self.by_op.update(times)
        self.reshaped.update(reshaped)
        for op, place in zip(one.ops, found, strict=True):
            if place is None:
                self._leave(op)

    def share_of(self, places: Iterable[int]) -> float:
        """The share of the prediction's bytes and FLOPs that these places have."""

        def cost(place: int) -> int:
            return self.expected[place].node.cost.flops + self.expected[place].node.cost.io_bytes

        return sum(map(cost, places)) / max(sum(map(cost, range(len(self.expected)))), 1)

    def _leave(self, op: Ran) -> None:
        shapes = "" if op.shapes is None else ", ".join(str(list(shape)) for shape in op.shapes)
        key = (op.name, op.module or "", shapes)
        count, ns = self.unmatched.get(key, (0, 0))
        self.unmatched[key] = count + 1, ns + op.ns


def _as_ran(one: Pass) -> Iterator[RanOp]:
    for op in one.ops:
        yield RanOp(op.name, op.module or "", op.start - one.start, op.end - one.start)


def _comparison(stage: AnnotatedStage, trace: Trace, sums: _Sums, timed: StageTime | None) -> Comparison:
    ops, missing = _measured(sums, timed)
    unmatched = [Unmatched(*key, *found) for key, found in sums.unmatched.items()]
    own = _own(stage.modules, ops, unmatched, sums.passes)
    inside = sum(part.ns for part in own.values())
    total = trace.kernels_ns if trace.on_device else inside + sums.outside_ns
    return Comparison(
        stage=stage,
        device=None if timed is None else timed.device,
        on_device=trace.on_device,
        passes=sums.passes,
        wall_ns=sum(end - start for start, end in sums.spans),
        total_ns=total,
        outside_ns=total - inside,
        modules=_with_inner(own),
        own=own,
        ops=tuple(ops),
        unmatched=tuple(sorted(unmatched, key=lambda item: -item.ns)),
        missing=tuple(missing),
        ideal_s=_ideal_s(timed),
        peak_bytes=_peak(trace, sums.spans),
        warnings=tuple(
            doubts_of(
                stage,
                trace,
                reshaped=sums.reshaped.total() / max(inside, 1),
                unmatched=sum(item.ns for item in unmatched) / max(inside, 1),
                missing=1 - sums.share_of(sums.by_op),
            )
        ),
        first_pass=sums.first,
    )


def _measured(sums: _Sums, timed: StageTime | None) -> tuple[list[MeasuredOp], list[MeasuredOp]]:
    """What was recorded and ran, and what was recorded, costs something and did not."""
    ops, missing = [], []
    times = {} if timed is None else {item.kernel.name: item.one for item in timed.kernels}
    for place, op in enumerate(sums.expected):
        node, time = op.node, times.get(op.node.name)
        part = Part(sums.by_op[place], sums.passes, node.cost.flops, node.cost.matmul_flops, node.cost.io_bytes)
        if time is not None:
            part = replace(part, bound_s=time.bound_s, estimate_s=time.estimate_s)
        measured = MeasuredOp(node.name, node.op, node.module, node.inputs, part, place)
        if place in sums.by_op:
            ops.append(measured)
        elif part.flops or part.io_bytes:
            missing.append(measured)
    return ops, missing


def _own(
    modules: Iterable[str], ops: Iterable[MeasuredOp], unmatched: Iterable[Unmatched], passes: int
) -> dict[str, Part]:
    own = {path: Part(passes=passes) for path in modules}
    for op in ops:
        own[op.module] += op.part
    for item in unmatched:
        own[item.module] += Part(item.ns, passes)
    return own


def _with_inner(own: Mapping[str, Part]) -> dict[str, Part]:
    """Each module with all those inside of it."""
    whole = dict(own)
    for path, part in own.items():
        while path:
            path = path.rpartition(".")[0]
            if path in whole:
                whole[path] += part
    return whole


def _ideal_s(timed: StageTime | None) -> float:
    """The time of all matrix products at the device's peak."""
    if timed is None:
        return 0.0
    kernels = (item.kernel for item in timed.kernels)
    return float(sum(one.matmul_flops * one.times / timed.device.matrix(one.dtype)[1] for one in kernels))


def _peak(trace: Trace, spans: Sequence[tuple[int, int]]) -> int | None:
    """The most bytes that a pass allocated beyond what was there when it began."""
    events = sorted(trace.memory.get(trace.on_device, ()))
    if not events:
        return None
    most = 0
    for start, end in spans:
        held = 0
        for moment, nbytes in events:
            if start <= moment < end:
                held += nbytes
                most = max(most, held)
    return most


def _other(trace: Trace, sums: _Sums) -> str:
    """That no pass is of the prediction, and what can be seen of those that there are."""
    known = "; ".join(map(str, sizes_of(trace)[:3]))
    seen = f"it has {known}" if known else f"at best {sums.closest:.0%} of the prediction is found in one"
    return f"{trace.path}: no pass in it is of this model with these sizes and this attention ({seen})"
