"""The ideal peak: what a planner would need that frees every tensor right after its last use.

A tensor's last use depends on all that follows, so the layer calls that folding left out are written out again here,
op by op: each call runs the recorded one's ops on tensors of its own, what it was given in the place of what the
recorded call was given, and hands on what it returned.
"""

from __future__ import annotations

import operator
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx

from annotators.polynomial import largest
from annotators.registry import specs_in
from tracer.folding import Instance, Skip
from tracer.recording import Recording
from tracer.spec import Storage


def ideal_peaks(recording: Recording) -> Mapping[str, int]:
    """Node name → the most activation bytes alive while it runs, over all calls, if storages die at their last use."""
    schedule = _Schedule(recording)
    names: Names = {}
    schedule.run(0, len(schedule.items), names)
    return schedule.peaks(names[s.id] for s in _returned(recording) if s.id in names)


@dataclass(frozen=True, slots=True)
class _Op:
    """A node, the storages that it uses, and those that it makes with their sizes."""

    name: str
    uses: tuple[int, ...]
    makes: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class _Call:
    """A call that was not recorded."""

    instance: Instance
    skip: Skip


Names = dict[int, int]
"""Storage id in the recording → the tensor that stands there now."""


class _Schedule:
    def __init__(self, recording: Recording) -> None:
        timed: list[tuple[int, _Op | _Call]] = []
        instances: dict[int, Instance] = {}
        for node in recording.graph.nodes:
            if node.op == "call_function" and node.target is not operator.getitem:
                timed.append((node.meta["ran"][0], _op(node)))
                instances.update({id(instance): instance for instance in node.meta["instances"]})
        for instance in instances.values():
            timed += [(skip.moment, _Call(instance, skip)) for skip in instance.skips]
        timed.sort(key=operator.itemgetter(0))
        self.items = [item for _, item in timed]
        moments = [moment for moment, _ in timed]
        self._bodies = {
            id(i): (bisect_left(moments, i.began), bisect_left(moments, i.ended)) for i in instances.values()
        }
        self._executed: list[str] = []
        self._sizes: list[int] = []
        self._born: list[int] = []
        self._last: list[int] = []

    def run(self, low: int, high: int, names: Names) -> None:
        """Execute items ``low`` to ``high`` on the tensors in ``names``, which is brought up to date."""
        for item in self.items[low:high]:
            if isinstance(item, _Op):
                self._execute(item, names)
            else:
                self._call(item, names)

    def _execute(self, op: _Op, names: Names) -> None:
        now = len(self._executed)
        for storage, size in op.makes:
            names[storage] = len(self._sizes)
            self._sizes.append(size)
            self._born.append(now)
            self._last.append(now)
        for storage in op.uses:
            tensor = names.get(storage)
            if tensor is not None:
                self._last[tensor] = now
        self._executed.append(op.name)

    def _call(self, call: _Call, names: Names) -> None:
        inside = dict(names)
        for recorded, given in zip(call.instance.given, call.skip.given, strict=True):
            if recorded is not None and given is not None and given.id in names:
                inside[recorded.id] = names[given.id]
        self.run(*self._bodies[id(call.instance)], inside)
        for index, returned in call.instance.returned:
            given = call.skip.given[index]
            if given is not None and returned is not None and returned.id in inside:
                names[given.id] = inside[returned.id]

    def peaks(self, returned: Iterable[int]) -> Mapping[str, int]:
        """The sweep: bytes alive during every op executed, the largest by node. What is ``returned`` stays."""
        end = len(self._executed)
        for tensor in returned:
            self._last[tensor] = end
        change = [0] * (end + 2)
        for size, born, last in zip(self._sizes, self._born, self._last, strict=True):
            change[born] += size
            change[last + 1] -= size
        found: dict[str, set[int]] = {}
        alive = 0
        for now, name in enumerate(self._executed):
            alive += change[now]
            found.setdefault(name, set()).add(alive)
        return {name: largest(levels) for name, levels in found.items()}


def _op(node: fx.Node) -> _Op:
    uses = {spec.storage.id for source in node.all_input_nodes for spec in specs_in(source.meta["spec"])}
    began, ended = node.meta["ran"]
    made = {
        spec.storage.id: spec.storage.nbytes
        for spec in specs_in(node.meta["spec"])
        if is_activation(spec.storage) and began < spec.storage.born < ended
    }
    return _Op(node.name, tuple(uses - made.keys()), tuple(made.items()))


def _returned(recording: Recording) -> list[Storage]:
    output: Any = next(node for node in reversed(recording.graph.nodes) if node.op == "output")
    return [spec.storage for node in output.all_input_nodes for spec in specs_in(node.meta["spec"])]


def is_activation(storage: Storage) -> bool:
    """Whether the pass made it, and not for the cache."""
    return storage.role == "activation" and not storage.counts and storage.nbytes > 0
