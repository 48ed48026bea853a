"""The ideal peak: what a planner would need that frees every tensor right after its last use.

A tensor's last use depends on all that follows, so the calls of folded layers that were not recorded count here too. A
pass is a block of steps, ops and layer calls; the body of a call is a block of its own. Within a block a tensor lives
from the step that made it to the last one that uses it; a call accounts itself for what it makes and for what it is the
last to use. Calls of one body that are alike in that have one profile of bytes alive, on top of what is alive around
them: a model of a hundred equal layers takes the time of three.
"""

from __future__ import annotations

import operator
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from torch import fx

from fxmeter.annotators.symbolic import largest
from fxmeter.models.stage_cost import Size
from fxmeter.tracer.capture.recording import Recording
from fxmeter.tracer.graph.instances import Instance, Skip
from fxmeter.tracer.graph.nodes import executed, made_by, meta_of, output_of, specs_of
from fxmeter.tracer.graph.spec import Storage

Tensors = frozenset[int]
Profile = Mapping[str, Size]
"""Node name → bytes alive while it runs, of those that its block accounts for."""


def ideal_peaks(recording: Recording) -> Mapping[str, int]:
    """Node name → the most activation bytes alive while it runs, over all calls, if storages die at their last use."""
    block = _Blocks(recording).whole
    returned = {block.names[s.id] for s in _returned(recording) if s.id in block.names}
    return block.profile(frozenset(), frozenset(returned))


@dataclass(slots=True)
class _Op:
    """A node, the storages that it uses, and those that it makes with their sizes."""

    name: str
    uses: tuple[int, ...]
    makes: tuple[tuple[int, int], ...]
    instances: tuple[Instance, ...]


@dataclass(slots=True)
class _Call:
    """A call as a step: its body, the tensor here behind each of the body's inputs, and here behind what it made."""

    body: _Block
    inputs: Mapping[int, int]
    made: Mapping[int, int]


class _Block:
    """Steps in order, on tensors numbered from 0. ``inputs`` are those made outside, by storage; ``names`` says which
    tensor a storage's name stands for when the block ends."""

    def __init__(self, sizes: Mapping[int, Size]) -> None:
        self.names: dict[int, int] = {}
        self.inputs: dict[int, int] = {}
        self._sizes = sizes
        self._steps: list[_Op | _Call] = []
        self._bytes: list[Size] = []
        self._born: list[int] = []
        self._last: list[int] = []
        self._profiles: dict[tuple[frozenset[Tensors], Tensors], Profile] = {}

    def execute(self, op: _Op) -> None:
        """Append an op."""
        for storage, _ in op.makes:
            self.names[storage] = self._new(storage)
        for storage in op.uses:
            self._use(storage)
        self._steps.append(op)

    def call(self, body: _Block, instance: Instance, skip: Skip | None) -> None:
        """Append a call: the recorded one, or with ``skip`` one that was not run."""
        stands = {}
        if skip is not None:
            pairs = zip(instance.given, skip.given, strict=True)
            stands = {recorded.id: own.id if own else None for recorded, own in pairs if recorded is not None}
        inputs = {}
        for storage, tensor in body.inputs.items():
            here = self._use(stands.get(storage, storage))
            if here is not None:
                inputs[tensor] = here
        here_of: dict[int, int] = {}

        def bind(name: int, inside: int) -> None:
            if inside in inputs:
                self.names[name] = inputs[inside]
            elif inside not in body.inputs.values():
                if inside not in here_of:
                    here_of[inside] = self._new(None, body._bytes[inside])
                self.names[name] = here_of[inside]

        if skip is None:
            for name, inside in body.names.items():
                bind(name, inside)
        else:
            for index, returned in instance.returned:
                own = skip.given[index]
                if own is not None and returned is not None and returned.id in body.names:
                    bind(own.id, body.names[returned.id])
        self._steps.append(_Call(body, inputs, here_of))

    def _new(self, storage: int | None, size: Size | None = None) -> int:
        self._bytes.append(self._sizes[storage] if storage is not None else size)
        self._born.append(len(self._steps))
        self._last.append(len(self._steps))
        return len(self._bytes) - 1

    def _use(self, storage: int | None) -> int | None:
        """The tensor behind a storage's name, used by the step that comes next; None for what is no activation."""
        if storage is None or storage not in self._sizes:
            return None
        if storage not in self.names:
            self.names[storage] = self.inputs[storage] = self._new(storage)
            self._born[-1] = -1
        tensor = self.names[storage]
        self._last[tensor] = len(self._steps)
        return tensor

    def profile(self, dying: frozenset[Tensors], staying: Tensors) -> Profile:
        """Bytes alive at every op in the block and in its calls.

        ``dying`` are the inputs that nobody uses after the block (those that are one tensor together), ``staying``
        the tensors made here that somebody does.
        """
        key = (dying, staying)
        if key not in self._profiles:
            self._profiles[key] = self._profile(dying, staying)
        return self._profiles[key]

    def _profile(self, dying: frozenset[Tensors], staying: Tensors) -> Profile:
        end = len(self._steps)
        mine = set(range(len(self._bytes))) - set(self.inputs.values())
        last = {tensor: end if tensor in staying else self._last[tensor] for tensor in mine}
        for together in dying:
            first, *others = sorted(together)
            last[first] = max(self._last[tensor] for tensor in together)
            last.update(dict.fromkeys(others, -2))  # the same bytes
        change: list[Size] = [0] * (end + 2)
        for tensor, final in last.items():
            born = self._born[tensor]
            begins = born + 1 if born >= 0 and isinstance(self._steps[born], _Call) else max(born, 0)
            ends = final - 1 if final < end and isinstance(self._steps[final], _Call) else final
            if begins <= ends:
                change[begins] += self._bytes[tensor]
                change[ends + 1] -= self._bytes[tensor]
        alive_at: dict[str, list[Size]] = {}
        around: dict[tuple[int, frozenset[Tensors], Tensors], _Alike] = {}
        for place, (step, alive) in enumerate(zip(self._steps, accumulate(change), strict=False)):
            if isinstance(step, _Op):
                alive_at.setdefault(step.name, []).append(alive)
                continue
            ending: dict[int, set[int]] = {}
            for inside, here in step.inputs.items():
                if last.get(here, end) == place or any(here in t and last[min(t)] == place for t in dying):
                    ending.setdefault(here, set()).add(inside)
            groups = frozenset(frozenset(inside) for inside in ending.values())
            kept = frozenset(inside for inside, here in step.made.items() if last[here] > place)
            around.setdefault((id(step.body), groups, kept), _Alike(step.body)).alive.append(alive)
        for (_, groups, kept), alike in around.items():
            most = largest(alike.alive)
            for name, inside in alike.body.profile(groups, kept).items():
                alive_at.setdefault(name, []).append(most + inside)
        return {name: values[0] if len(values) == 1 else largest(values) for name, values in alive_at.items()}


@dataclass(frozen=True, slots=True)
class _Alike:
    """Calls of one body with the same profile: what is alive around each."""

    body: _Block
    alive: list[Size] = field(default_factory=list)


class _Blocks:
    """The blocks of a recording; ``whole`` is the pass."""

    def __init__(self, recording: Recording) -> None:
        timed: list[tuple[int, _Op | tuple[Instance, Skip]]] = []
        instances: dict[int, Instance] = {}
        for node in executed(recording.graph):
            timed.append((meta_of(node).span[0], _op(node)))
            instances.update({id(instance): instance for instance in meta_of(node).instances})
        for instance in instances.values():
            timed += [(skip.moment, (instance, skip)) for skip in instance.skips]
        timed.sort(key=operator.itemgetter(0))
        self._moments = [moment for moment, _ in timed]
        self._items = [item for _, item in timed]
        self._sizes = {storage: size for item in self._items if isinstance(item, _Op) for storage, size in item.makes}
        self._bodies: dict[int, _Block] = {}
        self.whole = self._block(0, len(self._items), 0)

    def _block(self, low: int, high: int, depth: int) -> _Block:
        block = _Block(self._sizes)
        place = low
        while place < high:
            item = self._items[place]
            if isinstance(item, _Op) and len(item.instances) == depth:
                block.execute(item)
                place += 1
                continue
            instance, skip = (item.instances[depth], None) if isinstance(item, _Op) else item
            if id(instance) not in self._bodies:
                begins, ends = (bisect_left(self._moments, moment) for moment in (instance.began, instance.ended))
                self._bodies[id(instance)] = self._block(begins, ends, depth + 1)
            if skip is None:
                place = bisect_left(self._moments, instance.ended)
            else:
                place += 1
            block.call(self._bodies[id(instance)], instance, skip)
        return block


def _op(node: fx.Node) -> _Op:
    uses = {spec.storage.id for source in node.all_input_nodes for spec in specs_of(source)}
    made = {storage.id: storage.nbytes for storage in made_by(node)}
    return _Op(node.name, tuple(uses - made.keys()), tuple(made.items()), meta_of(node).instances)


def _returned(recording: Recording) -> Sequence[Storage]:
    return [spec.storage for node in output_of(recording.graph).all_input_nodes for spec in specs_of(node)]
