"""Memory over a pass: every allocation from its birth to its death, the modules and ops that ran meanwhile.

Time is the order of events: the recorder's clock ticks once for each tensor made, tensor let go of, op begun and op
ended. The pass has to be recorded in full (``fold=False``), so that every layer is there.

Activations are told apart by the op that made them: matrix products, attention cores, reductions (normalisations and
softmax too), other arithmetic, and copies (what moves or selects data: casts, concatenations, lookups). The cache is
what a serving cache would have: an append grows it by the new entries, in place. Weights are there all along.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from torch import fx

from fxmeter.annotators.pricing.graph import PricedNode, priced_node
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.annotators.studies.report import title_of
from fxmeter.models.stage_cost import Size
from fxmeter.tracer.capture.recording import Recording
from fxmeter.tracer.graph.nodes import executed, made_by, meta_of, spec_of, specs_of
from fxmeter.tracer.operators.define import NAMESPACE
from fxmeter.tracer.operators.ops import cache_append
from fxmeter.tracer.private import OpOverload

ACTIVATIONS = ("matrix products", "attention cores", "reductions", "other arithmetic", "copies")
"""Kinds of activations, by the op that made them."""
RESIDENT = ("inputs", "KV cache", "weights")
"""Kinds of what is there before the pass."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """``bytes`` of one kind in use from moment ``born`` until moment ``died``.

    ``tensor``, its dtype and shape, and the ``op`` and ``module`` that made it are empty for what no op made.
    """

    born: int
    died: int
    kind: str
    bytes: int
    tensor: str = ""
    op: str = ""
    module: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """A call of a module (its path is ``name``) or an op, from moment ``began`` to moment ``ended``.

    ``flops`` and ``io_bytes`` are those of an op, 0 for a module.
    """

    began: int
    ended: int
    depth: int
    name: str
    op: bool
    flops: int = 0
    io_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Timeline:
    """One pass. ``spans`` are in the order in which they begin, an outer one before what is in it.

    ``peak_bytes`` of activations are in use at moment ``peak``; the pass ends at moment ``end``.
    """

    title: str
    attention: str
    allocations: tuple[Allocation, ...]
    spans: tuple[Span, ...]
    peak: int
    peak_bytes: int
    end: int

    def live_bytes(self) -> Iterator[tuple[int, Mapping[str, int]]]:
        """(moment, kind → bytes in use) whenever something changes, what changes then included."""
        return _live_bytes(self.allocations, self.end)


def _live_bytes(allocations: Iterable[Allocation], end: int) -> Iterator[tuple[int, Mapping[str, int]]]:
    live = dict.fromkeys((*ACTIVATIONS, *RESIDENT), 0)
    changes = [(item.born, item.kind, item.bytes) for item in allocations]
    changes += [(item.died, item.kind, -item.bytes) for item in allocations if item.died < end]
    for moment, group in groupby(sorted(changes), key=operator.itemgetter(0)):
        for _, kind, change in group:
            live[kind] += change
        yield moment, dict(live)


def timeline_of(stage: AnnotatedStage) -> Timeline:
    """The memory of a stage that was annotated in full, with ``fold=False``, as one pass."""
    one_pass = stage.last_step or stage
    recording = one_pass.recording
    if recording.instances():
        raise ValueError("a folded recording leaves out layers: annotate with fold=False")
    nodes = list(executed(recording.graph))
    ends = [meta_of(node).span[1] for node in nodes] + [s.died for s in recording.storages if s.died is not None]
    end = max(ends, default=0) + 1
    activations = [*_activations(one_pass, nodes, end)]
    peak, live = max(_live_bytes(activations, end), key=lambda moment: sum(moment[1].values()), default=(0, {}))
    resident = sum(weight.nbytes for weight in recording.weights)
    return Timeline(
        title=title_of(stage),
        attention=stage.attention,
        allocations=(
            Allocation(0, end, "weights", resident),
            *_inputs(recording, end),
            *_cache(recording, nodes, end),
            *activations,
        ),
        spans=tuple(_spans(one_pass, nodes)),
        peak=peak,
        peak_bytes=sum(live.values()),
        end=end,
    )


def _activations(stage: AnnotatedStage, nodes: list[fx.Node], end: int) -> Iterator[Allocation]:
    for node in nodes:
        kind, module = _kind(node, priced_node(stage.graph, node.name)), meta_of(node).module
        for storage, spec in made_by(node).items():
            died = end if storage.died is None else storage.died
            yield Allocation(storage.born, died, kind, storage.nbytes, str(spec), str(node.target), module)


def _kind(node: fx.Node, priced: PricedNode) -> str:
    """Which of ACTIVATIONS an op makes."""
    op, cost = node.target, priced.cost
    if isinstance(op, OpOverload) and op.namespace == NAMESPACE:
        return "attention cores" if "attention" in op._schema.name else "reductions"
    if cost.matmul_flops:
        return "matrix products"
    if priced.fuses == "reduction":
        return "reductions"
    return "other arithmetic" if cost.vector_flops else "copies"


def _inputs(recording: Recording, end: int) -> Iterator[Allocation]:
    """What the caller holds during the pass."""
    for node in recording.graph.nodes:
        if node.op == "placeholder" and spec_of(node).role == "input":
            spec = spec_of(node)
            yield Allocation(0, end, "inputs", spec.nbytes, str(spec), "input", node.name)


def _cache(recording: Recording, nodes: list[fx.Node], end: int) -> Iterator[Allocation]:
    """The tensors that hold the cache, each until the one with the new entries takes its place.

    One that is not in the cache any more when the pass ends goes with its last use, whoever holds it: the caller may.
    """
    kept: dict[int, Size] = {}
    for entry in recording.cache:
        kept[entry.spec.storage.id] = kept.get(entry.spec.storage.id, 0) + entry.nbytes
    used: dict[int, int] = {}
    grown: dict[int, int] = {}
    for node in nodes:
        for source in node.all_input_nodes:
            used.update({spec.storage.id: meta_of(node).span[1] for spec in specs_of(source)})
        if node.target is cache_append and isinstance(node.args[0], fx.Node):
            grown[spec_of(node.args[0]).storage.id] = spec_of(node).storage.born
    seen = set()
    for node in recording.graph.nodes:
        for spec in specs_of(node) if node.op in ("placeholder", "call_function") else ():
            storage = spec.storage
            if storage.role != "cache" or storage.counts or storage.id in seen:
                continue
            seen.add(storage.id)
            last = end if storage.id in kept else used.get(storage.id, end)
            died = last if storage.died is None else storage.died
            size: Size = kept.get(storage.id, spec.nbytes)
            op, module = (str(node.target), meta_of(node).module) if node.op == "call_function" else ("", "")
            yield Allocation(max(0, storage.born), grown.get(storage.id, died), "KV cache", size, str(spec), op, module)


def _spans(stage: AnnotatedStage, nodes: list[fx.Node]) -> Iterator[Span]:
    """Calls of modules around the ops that they run, nested; containers, which are never called, left out."""
    called = {"", *stage.recording.calls}
    spans: list[Span | None] = []
    stack: list[tuple[str, int, int]] = []

    def close(keep: int) -> None:
        while len(stack) > keep:
            path, place, began = stack.pop()
            spans[place] = Span(began, ended, len(stack), path, op=False)

    ended = 0
    for node in nodes:
        began = meta_of(node).span[0]
        chain = [path for path in _heads(meta_of(node).module) if path in called]
        shared = 0
        while shared < min(len(chain), len(stack)) and stack[shared][0] == chain[shared]:
            shared += 1
        close(shared)
        for path in chain[shared:]:
            stack.append((path, len(spans), began))
            spans.append(None)
        ended = meta_of(node).span[1]
        cost = priced_node(stage.graph, node.name).cost
        spans.append(Span(began, ended, len(stack), str(node.target), True, cost.flops, cost.io_bytes))
    close(0)
    return (span for span in spans if span is not None)


def _heads(path: str) -> list[str]:
    """The root, every module around ``path``, and itself, the outermost first."""
    parts = path.split(".") if path else []
    return ["", *(".".join(parts[: end + 1]) for end in range(len(parts)))]
