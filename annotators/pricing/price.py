"""From a recording to a priced graph: every op by its rule, then what hangs on the pass around it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import fx

from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.pricing.accesses import Moved, fusion_ops, kept_tensors
from fxmeter.annotators.pricing.fusion import FusedTraffic, fused_traffic
from fxmeter.annotators.pricing.graph import PricedEdge, PricedNode, PricedPass
from fxmeter.annotators.pricing.liveness import peaks_of
from fxmeter.annotators.pricing.op_cost import OpPrice, price_op
from fxmeter.models.stage_cost import ZERO, Cost, Size
from fxmeter.tracer.capture.recording import CacheEntry, Recording
from fxmeter.tracer.graph.nodes import is_executed, meta_of, spec_of, specs_of, times_of
from fxmeter.tracer.graph.spec import Spec, Storage
from fxmeter.tracer.private import OpOverload


def price(recording: Recording, conventions: Conventions) -> PricedPass:
    """Price every node of a recording.

    Args:
        recording: a pass; its sizes may be whole numbers or polynomials.
        conventions: what to count.

    Returns:
        What :mod:`fxmeter.annotators.pricing.graph` documents.
    """
    called = [node for node in recording.graph.nodes if node.op == "call_function"]
    prices = {node: price_op(node, conventions) for node in called}
    moving = [node for node, priced in prices.items() if priced.moves]
    accesses = fusion_ops((Moved(node, prices[node].fuses, prices[node].moves) for node in moving), recording)
    times = {node.name: times_of(node) for node in called}
    resident = _resident_cache(recording)
    fused = fused_traffic(
        accesses,
        times,
        *kept_tensors(recording, accesses),
        _copies(recording),
        sum(nbytes * times.get(name, 0) for name, nbytes in resident.items()),
    )
    per_node = _PerNode(
        fused, resident, _cache_storage(recording), _first_readers(recording), peaks_of(recording, moving)
    )
    results: dict[fx.Node, tuple[Spec, ...]] = {}
    priced: dict[str, PricedNode] = {}
    nodes = (node for node in recording.graph.nodes if node.op != "output")
    for order, node in enumerate(nodes):
        results[node] = specs_of(node)
        if node in prices:
            operands = tuple(spec for source in node.all_input_nodes for spec in results[source])
            priced[node.name] = _op(node, prices[node], per_node, operands, results[node], order)
        else:
            priced[node.name] = PricedNode(node.name, spec_of(node).role, "", 1, ZERO, (), results[node], order)
    return PricedPass(priced, fused.floor_bytes, lambda: _flows(prices))


def _flows(prices: Mapping[fx.Node, OpPrice]) -> Iterable[tuple[str, str, PricedEdge]]:
    """What each op reads of what each operand returned."""
    for node, price_ in prices.items():
        for source in node.all_input_nodes:
            read = sum(price_.reads.get(id(spec), 0) for spec in specs_of(source))
            yield source.name, node.name, PricedEdge(read, sum(spec.nbytes for spec in specs_of(source)))


@dataclass(frozen=True, slots=True)
class _PerNode:
    """What the pass adds to the price of its ops, by name: fused traffic, what becomes resident with it, peaks."""

    fused: FusedTraffic
    cache: Mapping[str, Size]
    cache_storage: Mapping[str, Size]
    weights: Mapping[str, int]
    peaks: Mapping[str, tuple[Size, Size]]

    def fields(self, name: str) -> dict[str, Size]:
        """Fields of an op's Cost."""
        added: dict[str, Size] = {}
        for field, amounts in (
            ("fused_io_bytes", self.fused.bytes),
            ("kv_bytes", self.cache),
            ("kv_storage_bytes", self.cache_storage),
            ("weight_bytes", self.weights),
        ):
            if name in amounts:
                added[field] = amounts[name]
        if name in self.peaks:
            added["peak_activation_bytes"], added["ideal_peak_activation_bytes"] = self.peaks[name]
        return added


def _op(
    node: fx.Node,
    priced: OpPrice,
    per_node: _PerNode,
    operands: tuple[Spec, ...],
    results: tuple[Spec, ...],
    order: int,
) -> PricedNode:
    fields = priced.fields | per_node.fields(node.name)
    return PricedNode(
        node.name,
        _name(node.target),
        meta_of(node).module,
        times_of(node),
        Cost(**fields) if fields else ZERO,
        operands,
        results,
        order,
        executed=is_executed(node),
        costed=priced.costed,
        fuses=priced.fuses,
        group=per_node.fused.groups.get(node.name),
    )


def _name(target: object) -> str:
    return str(target) if isinstance(target, OpOverload) else getattr(target, "__name__", str(target))


def _resident_cache(recording: Recording) -> dict[str, Size]:
    """Node name → bytes in the cache after the pass that its op is the last to write."""
    resident: dict[str, Size] = {}
    for writer, entry in _cache_writers(recording):
        resident[writer] = resident.get(writer, 0) + entry.nbytes
    return resident


def _cache_storage(recording: Recording) -> dict[str, Size]:
    """The same of the allocations behind them, each once; what is paged is allotted in its pages."""
    held: dict[str, Size] = {}
    seen: set[Storage] = set()
    for writer, entry in _cache_writers(recording):
        if entry.paging is not None:
            held[writer] = held.get(writer, 0) + entry.nbytes
        elif entry.spec.storage not in seen:
            held[writer] = held.get(writer, 0) + entry.spec.storage.stored_bytes
        seen.add(entry.spec.storage)
    return held


def _cache_writers(recording: Recording) -> Iterator[tuple[str, CacheEntry]]:
    """Every entry of the cache after the pass, with the op that last wrote it."""
    nodes = {node.name: node for node in recording.graph.nodes}
    for entry in recording.cache:
        if entry.node is not None:
            writer = nodes[entry.node]
            if not is_executed(writer):  # one of several results of an op
                (writer,) = writer.all_input_nodes
            yield writer.name, entry


def _copies(recording: Recording) -> dict[int, int]:
    """Storage of a weight → the identical modules that have one like it; 0 for a constant of the model's code."""
    times = {
        i.paths[0]: len(set(i.paths)) * math.prod(len(set(o.paths)) for o in i.outer) for i in recording.instances()
    }
    copies = {}
    for node in recording.graph.nodes:
        if node.op == "get_attr":
            head = str(node.target)
            while head and head not in times:
                head = head.rpartition(".")[0]
            constant = str(node.target) in recording.constants
            copies[spec_of(node).storage.id] = 0 if constant else times.get(head, 1)
    return copies


def _first_readers(recording: Recording) -> dict[str, int]:
    """Node name → bytes of the parameters that it is the first to read, looking through views."""
    nbytes = {weight.path: weight.nbytes for weight in recording.weights}
    owed: dict[str, int] = {}
    for node in recording.graph.nodes:
        size = nbytes.get(str(node.target)) if node.op == "get_attr" else None
        reader = _reader(node) if size else None
        if size and reader is not None:
            owed[reader.name] = owed.get(reader.name, 0) + size
    return owed


def _reader(node: fx.Node) -> fx.Node | None:
    for user in node.users:
        if user.op != "call_function":
            continue
        spec = meta_of(user).spec
        views = isinstance(spec, Spec) and spec.storage is spec_of(node).storage
        reader = _reader(user) if views else user
        if reader is not None:
            return reader
    return None
