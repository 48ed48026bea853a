"""A trace as passes of the model, each a sequence of ops as the prediction has them.

PyTorch runs many ops as others (``linear`` as ``t``, ``view`` and ``mm``; ``mm`` as ``resolve_conj`` and a kernel).
Which of them are the ones to compare is said by the recording: what it recorded is taken whole; what torch only takes
apart is taken apart; anything else, a kernel of somebody's own, is one op that the recording does not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fxmeter.annotators.studies.measured.expected import Expected, Key, key_of, name_in_trace
from fxmeter.annotators.studies.measured.traces.calls import Call, trees_of
from fxmeter.annotators.studies.measured.traces.paths import Paths
from fxmeter.annotators.studies.measured.traces.reading import Shapes, Trace
from fxmeter.tracer.private import taken_apart


@dataclass(slots=True)
class Ran:
    """An op of a pass: the time that counts of it, and the module that it ran in; None where no range says one."""

    name: str
    shapes: Shapes | None
    module: str | None
    ns: int
    start: int
    end: int


@dataclass(slots=True)
class Pass:
    """The ops of one pass, when it began and ended, and what the range around it is called; ``whole`` unless they are
    what ran outside of any pass."""

    ops: list[Ran]
    start: int
    end: int
    name: str = ""
    whole: bool = True

    @property
    def ns(self) -> int:
        """The time of its ops."""
        return sum(op.ns for op in self.ops)


class Flattening:
    """Calls as the ops that are compared. ``known`` are the names of those that were recorded."""

    def __init__(self, paths: Paths, known: frozenset[str]) -> None:
        self._paths, self._known = paths, known

    def ops_of(self, call: Call, module: str | None) -> list[Ran]:
        """The ops that ``call``, made in ``module``, is taken as, in order. Their times add up to that of the call:
        what is nobody's but the call's own goes to the longest of them."""
        if call.is_range:
            module = self._paths.path_of(call, module)
            self._paths.enter(call, module or "")
        elif not self._is_taken_apart(call):
            return [Ran(name_in_trace(call.name), call.shapes, module, call.ns, call.start, call.end)]
        found = [op for inner in call.calls for op in self.ops_of(inner, module)]
        if call.own_ns and found:
            max(found, key=lambda op: op.ns).ns += call.own_ns
        return found

    def _is_taken_apart(self, call: Call) -> bool:
        return bool(call.calls) and name_in_trace(call.name) not in self._known and taken_apart(call.name)


def passes_of(trace: Trace, expected: Sequence[Expected], paths: Paths) -> Iterator[Pass]:
    """The passes of a trace, and what ran outside of them. A pass is a call of the whole model where ranges say so;
    otherwise it begins with the first op that the recording has only once."""
    flattening = Flattening(paths, frozenset(op.name for op in expected))
    if any(map(paths.is_root, trace.names.values)):
        for tree in trees_of(trace):
            yield from _in_roots(tree, flattening, paths)
    else:
        ops = (op for tree in trees_of(trace) for op in flattening.ops_of(tree, None))
        yield from _between_anchors(ops, _anchor(expected))


def _in_roots(call: Call, flattening: Flattening, paths: Paths) -> Iterator[Pass]:
    if call.is_range and paths.is_root(call.name):
        yield Pass(flattening.ops_of(call, ""), call.start, call.end, call.name)
    elif call.is_range:
        for inner in call.calls:
            yield from _in_roots(inner, flattening, paths)
    else:
        yield Pass(flattening.ops_of(call, None), call.start, call.end, whole=False)


def _anchor(expected: Sequence[Expected]) -> Expected | None:
    """The first op that is recorded once with its shapes."""
    times: dict[Key, int] = {}
    for op in expected:
        times[op.key] = times.get(op.key, 0) + 1
    return next((op for op in expected if times[op.key] == 1 and op.shapes), None)


def _between_anchors(ops: Iterable[Ran], anchor: Expected | None) -> Iterator[Pass]:
    found: list[Ran] = []
    begun = anchor is None
    for op in ops:
        if anchor is not None and key_of(op.name, op.shapes) in (anchor.key, (anchor.name, None)):
            if found:
                yield _pass(found, begun)
            found, begun = [], True
        found.append(op)
    if found:
        yield _pass(found, begun)


def _pass(ops: list[Ran], whole: bool) -> Pass:
    return Pass(ops, ops[0].start, max(op.end for op in ops), whole=whole)
