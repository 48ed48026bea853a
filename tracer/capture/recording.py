"""What a recording is once the pass has ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from fxmeter.models.errors import TraceError
from fxmeter.models.stage_cost import Size
from fxmeter.tracer.capture.folding import CannotFoldError
from fxmeter.tracer.capture.recorder import Recorder
from fxmeter.tracer.graph.instances import Instance
from fxmeter.tracer.graph.nodes import changed_specs, meta_of, spec_of
from fxmeter.tracer.graph.schema import changed_arguments
from fxmeter.tracer.graph.spec import Spec, Storage
from fxmeter.tracer.graph.values import AnyCache
from fxmeter.tracer.operators.ops import cache_append
from fxmeter.tracer.private import OpOverload, storage_key
from fxmeter.tracer.state.cache import cache_counters, cache_tensors
from fxmeter.tracer.state.tree import derived, named_tensors

_CAT = torch.ops.aten.cat.default


@dataclass(frozen=True, slots=True)
class Paging:
    """Pages of ``size`` tokens, which lie along dimension ``dim``. A window that has lost tokens (``slides``) begins
    anywhere in a page and takes one more, as vLLM's ``SlidingWindowSpec`` reserves it."""

    size: int
    dim: int
    slides: bool

    def elements(self, shape: tuple[Size, ...]) -> Size:
        """Elements that whole pages have room for."""
        pages = (shape[self.dim] + self.size - 1) // self.size + int(self.slides)
        other = math.prod(n for dim, n in enumerate(shape) if dim != self.dim)
        return other * pages * self.size


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A tensor resident in the cache after the pass; each of ``layers`` holds an identical one.

    ``node`` is the name of the graph node that last wrote it, or else works on the same layer's cache; None where the
    pass left the layer alone. ``paging`` says how a paged cache allots it; None: token by token, or no tokens.
    """

    layers: tuple[int, ...]
    kind: str
    name: str
    spec: Spec
    node: str | None
    paging: Paging | None = None

    @property
    def nbytes(self) -> Size:
        """What it takes, in whole pages of every sequence where it is paged."""
        return self.spec.nbytes if self.paging is None else self.spec.bytes_of(self.paging.elements(self.spec.shape))


@dataclass(frozen=True, slots=True)
class Weight:
    """A parameter, once however often it is tied; ``path`` is where the model registers it first.

    Of one that lies partly over another, the part that nobody else has.
    """

    path: str
    numel: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Recording:
    """A forward pass as a graph. Each node carries a :class:`~fxmeter.tracer.graph.nodes.NodeMeta`.

    ``graph`` is complete, and can be executed, when nothing was folded; a folded one leaves out the layers that its
    instances stand for. ``assumptions`` say in words what had to be taken for granted about data, and ``training``
    whether a module was in training mode. ``shared`` are rows of which the rank has a part, rounded up, and how many
    ranks share them.
    """

    graph: fx.Graph
    storages: tuple[Storage, ...]
    cache: tuple[CacheEntry, ...]
    weights: tuple[Weight, ...]
    classes: Mapping[str, str]
    aliases: Mapping[str, str]
    calls: Mapping[str, int]
    constants: Mapping[str, Tensor] = field(repr=False)
    assumptions: tuple[str, ...] = ()
    training: bool = False
    seconds: float = 0.0
    shared: tuple[Size, int] | None = None

    def graph_module(self, root: nn.Module) -> fx.GraphModule:
        """The graph with ``root``'s tensors behind it, ready for ``fx.Interpreter``."""
        for name, tensor in self.constants.items():
            if not hasattr(root, name):
                root.register_buffer(name, tensor, persistent=False)
        try:
            return fx.GraphModule(root, self.graph)
        finally:
            for name in self.constants:
                root._buffers.pop(name, None)

    def instances(self) -> tuple[Instance, ...]:
        """The recorded calls that stand for others too."""
        seen = {id(i): i for node in self.graph.nodes for i in meta_of(node).instances}
        return tuple(instance for instance in seen.values() if len(instance.paths) > 1)

    def folds(self) -> Mapping[str, str]:
        """Path of each module instance that was not recorded → path of the one that stands for it."""
        return {path: instance.paths[0] for instance in self.instances() for path in instance.paths[1:]}

    def multiplicity(self) -> Multiplicity:
        """How many identical instances each module has."""
        return Multiplicity(self.instances())


class Multiplicity:
    """Module path → identical instances in the model, that one included."""

    def __init__(self, instances: tuple[Instance, ...]) -> None:
        self._times = {"": 1} | {instance.paths[0]: instance.times for instance in instances}

    def of(self, path: str) -> int:
        """Instances of a recorded module: of the innermost around it that has several."""
        if path not in self._times:
            self._times[path] = self.of(path.rpartition(".")[0])
        return self._times[path]


def settle_cache(recorder: Recorder, cache: AnyCache) -> tuple[CacheEntry, ...]:
    """Mark the storages that the cache holds, and show every concatenation that extends it as an append.

    A dynamic cache grows by ``cat([cache, new])``, which copies everything; a serving cache writes the new entries in
    place, and that is the operation whose cost is wanted.
    """
    for counter in cache_counters(cache):
        storage = recorder.storage_of(counter)
        if storage is not None:
            storage.counts = True
    resident = []
    for entry in cache_tensors(cache):
        node = recorder.node_of(entry.tensor)
        storage = recorder.storage_of(entry.tensor)
        if storage is not None:
            storage.role = "cache"
        resident.append((entry, node))
    writer: dict[int, fx.Node] = {}
    for node in reversed(recorder.graph.nodes):
        if node.op != "call_function":
            continue
        spec = meta_of(node).spec
        for changed in changed_specs(node):
            writer.setdefault(changed.storage.id, node)
        if not isinstance(spec, Spec):
            continue
        if spec.storage.role == "cache":
            if node.target is _CAT:
                _as_append(node, spec)
            if spec.storage.id not in writer and _writes(node, spec):
                writer[spec.storage.id] = node
    entries = []
    nodes = _nodes_of(resident, writer)
    for entry, node in resident:
        spec = spec_of(node) if node is not None else _spec_of(recorder, entry.tensor)
        last = writer.get(spec.storage.id)
        by = last or nodes.get((entry.layer, entry.kind)) or nodes.get((entry.layer, None))
        instances = meta_of(by).instances if by is not None else ()
        for instance in instances:
            if any(spec.storage in skip.given for skip in instance.skips):
                raise CannotFoldError(instance.paths[0], "several layers keep what they remember in one tensor")
        layers = _layers(entry.layer, meta_of(by).module if by is not None else "", instances)
        entries.append(CacheEntry(layers, entry.kind, entry.name, spec, by.name if by else None))
    return tuple(entries)


def _nodes_of(
    resident: list[tuple[Any, fx.Node | None]], writer: Mapping[int, fx.Node]
) -> dict[tuple[int, str | None], fx.Node]:
    """For each layer (and each kind of cache in it) a node that works on its cache: entries that the pass does not
    write are put down to it."""
    found: dict[tuple[int, str | None], fx.Node] = {}
    for entry, node in resident:
        if node is not None:
            last = writer.get(spec_of(node).storage.id) or next(iter(node.users), None)
            if last is not None:
                found.setdefault((entry.layer, entry.kind), last)
                found.setdefault((entry.layer, None), last)
    return found


def _layers(layer: int, module: str, instances: tuple[Instance, ...]) -> tuple[int, ...]:
    """The layers whose cache a recorded one, written in ``module``, stands for: as many steps on as the modules are in
    their lists."""
    layers = [layer]
    for instance in instances:
        positions = [int(path.rpartition(".")[2]) for path in instance.paths]
        step = instance.step_of(module)
        layers = [base + step * (position - positions[0]) for base in layers for position in positions]
    return tuple(layers)


def _as_append(node: fx.Node, spec: Spec) -> None:
    parts, dim = node.args[0], node.args[1] if len(node.args) > 1 else 0
    if not isinstance(parts, (list, tuple)):
        raise TraceError(f"{node} concatenates {parts!r}, which is no list of tensors")
    full = [part for part in parts if isinstance(part, fx.Node) and spec_of(part).numel > 0]
    if len(full) == 1:
        past, new = None, full[0]
    elif len(full) == 2 and _may_be_cache(full[0]):
        past, new = full
        spec_of(past).storage.role = "cache"
    else:
        return
    node.target = cache_append
    node.args = (past, new, dim)


def _may_be_cache(node: fx.Node) -> bool:
    """Whether the first operand of an append is the cache so far: it is, or it was itself put together by one."""
    storage = spec_of(node).storage
    if storage.role == "cache":
        return True
    return node.op == "call_function" and node.target is _CAT and storage.role == "activation"


def _writes(node: fx.Node, spec: Spec) -> bool:
    """Whether ``node`` made its output or changed it in place, rather than viewing it."""
    target = node.target
    if isinstance(target, OpOverload) and changed_arguments(target):
        return True
    operands = (meta_of(source).spec for source in node.all_input_nodes)
    return not any(isinstance(operand, Spec) and operand.storage is spec.storage for operand in operands)


def _spec_of(recorder: Recorder, tensor: Tensor) -> Spec:
    storage = recorder.storage_of(tensor)
    if storage is None:
        storage = Storage(-1, tensor.untyped_storage().nbytes(), "cache")
    return Spec(tuple(tensor.shape), tensor.dtype, tensor.stride(), int(tensor.storage_offset()), storage)


def resident_weights(root: nn.Module) -> tuple[Weight, ...]:
    """Every parameter of ``root`` once, and of those over one storage every byte."""
    return derived(root, _weights)


def _weights(root: nn.Module) -> tuple[Weight, ...]:
    weights, taken = [], dict[int, list[tuple[int, int]]]()
    for path, parameter in named_tensors(root, "_parameters"):
        begin, others = (
            int(parameter.storage_offset()) * parameter.itemsize,
            taken.setdefault(storage_key(parameter), []),
        )
        last = sum((size - 1) * step for size, step in zip(parameter.shape, parameter.stride(), strict=True))
        end = begin + (last + 1) * parameter.itemsize if parameter.numel() else begin
        nbytes = min(parameter.nbytes, end - begin - _covered(begin, end, others))
        others.append((begin, end))
        if nbytes > 0 or not parameter.numel():
            weights.append(Weight(path, nbytes // parameter.itemsize, nbytes))
    return tuple(weights)


def _covered(begin: int, end: int, others: list[tuple[int, int]]) -> int:
    """How many of the bytes from ``begin`` to ``end`` lie in ``others``."""
    covered, at = 0, begin
    for low, high in sorted(others):
        low, high = max(low, at), min(high, end)
        if low < high:
            covered, at = covered + high - low, high
    return covered
