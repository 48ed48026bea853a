"""Heads that a model keeps several times in its cache, and an engine once.

Code older than kernels for grouped queries repeats keys and values for every query head and caches them so (Falcon's
``new_decoder_architecture``). An engine keeps each once, and its kernel reads it for all the heads that share it.

How often an entry is the same is read off the graph. An ``expand`` makes copies along a dimension; a view that joins
this dimension with the one before it makes them neighbours; copies, transpositions, slices and joins along other
dimensions, and elementwise arithmetic with what is one wide there (cos and sin) keep them. Anything else ends them.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from torch import fx

from fxmeter.tracer.capture.recording import Recording
from fxmeter.tracer.graph.nodes import executed, meta_of, spec_of, specs_of
from fxmeter.tracer.graph.schema import base_name
from fxmeter.tracer.graph.spec import Spec
from fxmeter.tracer.operators.ops import cache_append
from fxmeter.tracer.private import OpOverload

Copies = tuple[int, int]
"""(dimension from the last, how many neighbours along it are alike)."""

_SAME = ("clone", "_to_copy", "neg", "mul", "add", "sub", "slice", "cat", "alias", "detach")
_RESHAPING = ("view", "_unsafe_view", "reshape", "_reshape_alias")


def heads_once(recording: Recording) -> None:
    """Give cached tensors whose entries are alike the bytes of those that differ."""
    for node, times in copied(recording).items():
        past = node.args[0]
        for cached in (spec_of(node), *(specs_of(past) if isinstance(past, fx.Node) else ())):
            cached.storage.ratio = (cached.storage.ratio or Fraction(1)) / times


def copied(recording: Recording) -> Mapping[fx.Node, int]:
    """Each append to the cache of entries that are there several times → how often."""
    known: dict[fx.Node, Copies] = {}
    found: dict[fx.Node, int] = {}
    for node in executed(recording.graph):
        if node.target is cache_append:
            entries = node.args[1]
            if isinstance(entries, fx.Node) and entries in known:
                found[node] = known[entries][1]
            continue
        spec = meta_of(node).spec
        if isinstance(spec, Spec) and isinstance(node.target, OpOverload):
            copies = _copies(node, base_name(node.target), spec, known)
            if copies is not None:
                known[node] = copies
    return found


def _copies(node: fx.Node, name: str, out: Spec, known: Mapping[fx.Node, Copies]) -> Copies | None:
    sources = [source for source in node.all_input_nodes if isinstance(meta_of(source).spec, Spec)]
    if name == "expand":
        return _of_expand(spec_of(sources[0]), out)
    having = [source for source in sources if source in known]
    if not having:
        return None
    place, times = known[having[0]]
    before = spec_of(having[0]).shape
    if name in _RESHAPING:
        kept = before == out.shape or (before[place + 1 :] == out.shape[place + 1 :] and _joined(before, out, place))
        return (place, times) if kept else None
    if name == "transpose":
        first, second = (dim % len(before) - len(before) for dim in node.args[1:3] if isinstance(dim, int))
        return {first: second, second: first}.get(place, place), times
    if name not in _SAME or (name in ("slice", "cat") and out.shape[place] != before[place]):
        return None
    alike = ((source in having and known[source] == (place, times)) or _is_one(source, place) for source in sources)
    return (place, times) if all(alike) else None


def _of_expand(before: Spec, out: Spec) -> Copies | None:
    pairs = zip(range(-len(before.shape), 0), before.shape, strict=True)
    grown = [(dim, out.shape[dim]) for dim, size in pairs if size == 1 and out.shape[dim] != 1]
    return grown[0] if len(grown) == 1 and isinstance(grown[0][1], int) else None


def _joined(before: tuple[object, ...], out: Spec, place: int) -> bool:
    """Whether a view has put the dimension and the one before it into one."""
    if len(before) < 1 - place or len(out.shape) != len(before) - 1:
        return False
    outer, inner = before[place - 1], before[place]
    return isinstance(outer, int) and isinstance(inner, int) and out.shape[place] == outer * inner


def _is_one(source: fx.Node, place: int) -> bool:
    shape = spec_of(source).shape
    return len(shape) < -place or shape[place] == 1
