"""A recording taken apart: what its sizes are, and what is left when they are taken out.

Two recordings of one model with the same structure differ in nothing but a list of whole numbers: shapes, strides,
offsets, storage sizes, and the integers among the ops' arguments. Putting other numbers in their place, or
polynomials, gives the recording for other sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, TypeAlias

from torch import fx

from fxmeter.models.stage_cost import Size
from fxmeter.tracer.capture.recording import Recording
from fxmeter.tracer.graph.instances import Instance
from fxmeter.tracer.graph.nodes import meta_of
from fxmeter.tracer.graph.spec import Spec, Storage

Structure: TypeAlias = tuple[object, ...]
Sizes: TypeAlias = Sequence[int]

_STORAGE_FACTS = tuple(field.name for field in fields(Storage) if field.name not in ("id", "nbytes"))


def take_apart(recording: Recording) -> tuple[Structure, Sizes]:
    """(structure, sizes). Structures compare equal where recordings differ in sizes alone.

    Where ranks share rows, the last of the structure is how many ranks (else None), and the last size how many rows.
    """
    walk = _Walk(iter(int, 1), keep=True)
    walk.recording(recording)
    return tuple(walk.structure), walk.sizes


def put_together(recording: Recording, sizes: Sequence[Size]) -> Recording:
    """``recording`` with other sizes, in the order of :func:`take_apart`. Its graph is changed in place."""
    rest = iter(sizes)
    resized = _Walk(rest, keep=False).recording(recording)
    if next(rest, None) is not None:
        raise ValueError("more sizes than the recording has")
    return resized


class _Walk:
    """Visits every size of a recording in a fixed order: collects it, or puts the next replacement in its place."""

    def __init__(self, replacements: Iterator[Size], *, keep: bool) -> None:
        self.structure: list[object] = []
        self.sizes: list[int] = []
        self._replacements = replacements
        self._keep = keep
        self._storages: dict[int, Storage] = {}
        self._places: dict[fx.Node, int] = {}
        self._instances: dict[int, int] = {}

    def recording(self, recording: Recording) -> Recording:
        storages = tuple(self._storage(storage) for storage in recording.storages)
        for place, node in enumerate(recording.graph.nodes):
            self._places[node] = place
            meta = meta_of(node)
            instances = tuple(map(self._instance, meta.instances))
            facts = (meta.module, meta.calls, meta.span, meta.is_weight, instances)
            self.structure.append((node.op, node.target, node.name, *facts))
            args, kwargs = self._value(node.args), self._value(dict(node.kwargs))
            spec = self._value(meta.spec)
            if not self._keep:
                node.args, node.kwargs, meta.spec = args, kwargs, spec
        entries = []
        for entry in recording.cache:
            self.structure.append((entry.layers, entry.kind, entry.name, entry.node, entry.paging))
            entries.append(replace(entry, spec=self._value(entry.spec)))
        self.structure.append(tuple(recording.calls.items()))
        shared = recording.shared
        self.structure.append(None if shared is None else shared[1])
        if shared is not None:
            shared = self._size(shared[0]), shared[1]
        return replace(recording, storages=storages, cache=tuple(entries), shared=shared)

    def _instance(self, instance: Instance) -> int:
        """Its place among the instances; what it is, when it is met first."""
        if id(instance) not in self._instances:
            self._instances[id(instance)] = len(self._instances)
            skips = tuple((skip.moment, _ids(skip.given)) for skip in instance.skips)
            returned = tuple((index, _ids((storage,))) for index, storage in instance.returned)
            moments = (instance.began, instance.ended)
            self.structure.append((tuple(instance.paths), moments, _ids(instance.given), returned, skips))
        return self._instances[id(instance)]

    def _size(self, number: Size) -> Size:
        if self._keep:
            self.sizes.append(number)
            return number
        return next(self._replacements)

    def _storage(self, storage: Storage) -> Storage:
        if id(storage) not in self._storages:
            self.structure.append(tuple(getattr(storage, name) for name in _STORAGE_FACTS))
            size = self._size(storage.nbytes)
            self._storages[id(storage)] = storage if self._keep else replace(storage, nbytes=size)
        return self._storages[id(storage)]

    def _value(self, value: Any) -> Any:
        kind = type(value)
        if kind is int:
            self.structure.append(int)
            return self._size(value)
        if kind is Spec:
            return self._spec(value)
        if isinstance(value, fx.Node):
            self.structure.append(("node", self._places[value]))
            return value
        if isinstance(value, (tuple, list)):
            self.structure.append((tuple if isinstance(value, tuple) else list, len(value)))
            items = [self._value(item) for item in value]
            return tuple(items) if isinstance(value, tuple) else items
        if isinstance(value, dict):
            self.structure.append((dict, *value))
            return {key: self._value(item) for key, item in value.items()}
        if isinstance(value, slice):
            return slice(*(self._value(part) for part in (value.start, value.stop, value.step)))
        self.structure.append(value if isinstance(value, (bool, float, str, type(None))) else repr(value))
        return value

    def _spec(self, spec: Spec) -> Spec:
        storage = self._storage(spec.storage)
        broadcast = tuple(stride == 0 for stride in spec.strides)
        self.structure.append((spec.dtype, storage.id, broadcast))
        shape = tuple(map(self._size, spec.shape))
        strides = tuple(map(self._size, spec.strides))
        offset = self._size(spec.offset)
        return spec if self._keep else Spec(shape, spec.dtype, strides, offset, storage)


def _ids(storages: tuple[Storage | None, ...]) -> tuple[int | None, ...]:
    return tuple(None if storage is None else storage.id for storage in storages)


def interned(columns: Iterable[tuple[int, ...]], make: Callable[[tuple[int, ...]], Size]) -> Sequence[Size]:
    """``make`` of each column, equal columns sharing one result."""
    results: dict[tuple[int, ...], Size] = {}
    return [results[c] if c in results else results.setdefault(c, make(c)) for c in columns]
