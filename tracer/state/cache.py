"""Finding the tensors that a cache holds, whatever its class.

How many tokens a layer keeps (all, a window, compressed blocks) is the doing of the model's own cache, which
:mod:`fxmeter.tracer.run.prompt` makes and has the model fill; here is only what is in it afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from transformers import EncoderDecoderCache

from fxmeter.models.errors import TraceError
from fxmeter.tracer.graph.values import AnyCache
from fxmeter.tracer.private import Cache, storage_key

CACHE_ARGUMENTS = ("past_key_values", "cache_params", "past_buckets_states", "state", "mems")
"""Names that transformers gives the cache, among the arguments of forward methods and in what they return."""


SELF, CROSS = ", self-attention", ", cross-attention"
"""What the kinds of an encoder-decoder model's cache end in: of the decoder's tokens, of the encoder's output."""


@dataclass(frozen=True, slots=True)
class CacheTensor:
    """One tensor of a cache: which layer's, what class keeps it, under which name."""

    layer: int
    kind: str
    name: str
    tensor: Tensor


def cache_tensors(cache: AnyCache) -> Iterator[CacheTensor]:
    """Every tensor with elements that ``cache`` holds, layer by layer; scalars that only count are left out.

    Elements held under two names, as keys that are the values too, are one entry.
    """
    seen: set[Any] = set()
    for entry in _all_entries(cache):
        tensor = entry.tensor
        elements = (storage_key(tensor), tensor.storage_offset(), tensor.shape, tensor.stride())
        if elements not in seen:
            seen.add(elements)
            yield entry


def _all_entries(cache: AnyCache) -> Iterator[CacheTensor]:
    layers = getattr(cache, "layers", None)
    if hasattr(cache, "tensors"):
        yield from cache.tensors()
    elif isinstance(cache, EncoderDecoderCache):
        for part, of in ((cache.self_attention_cache, SELF), (cache.cross_attention_cache, CROSS)):
            for entry in _all_entries(part):
                yield replace(entry, kind=f"{entry.kind}{of}")
    elif isinstance(cache, Cache) and layers is not None:
        for index, layer in enumerate(layers):
            for name, tensor in named_in(vars(layer)):
                yield CacheTensor(index, type(layer).__name__, name, tensor)
        rest = {name: value for name, value in vars(cache).items() if name != "layers"}
        for name, tensor in named_in(rest):
            head, _, position = name.rpartition(".")
            layer, name = (int(position), head) if position.isdigit() else (-1, name)
            yield CacheTensor(layer, type(cache).__name__, name, tensor)
    elif isinstance(cache, Cache):  # of several caches: an encoder-decoder's
        for name, part in vars(cache).items():
            if isinstance(part, Cache):
                yield from (replace(entry, name=f"{name}.{entry.name}") for entry in _all_entries(part))
    elif cache is not None:
        values = cache if isinstance(cache, (list, tuple)) else [cache]
        for index, value in enumerate(values):
            for name, tensor in named_in({"": value}):
                yield CacheTensor(index, type(cache).__name__, name, tensor)


def cache_counters(cache: AnyCache) -> Iterator[Tensor]:
    """The scalars that ``cache`` keeps, such as the tokens seen so far: no entries, and no activations either."""
    return (tensor for tensor in tensors_of(getattr(cache, "cache", cache)) if _counts(tensor))


def tensors_of(cache: AnyCache) -> Iterator[Tensor]:
    """Whatever tensor a transformers cache refers to, some of them twice; none where it is something else."""
    if isinstance(cache, EncoderDecoderCache):
        yield from tensors_of(cache.self_attention_cache)
        yield from tensors_of(cache.cross_attention_cache)
        return
    layers = getattr(cache, "layers", None)
    if layers is None and isinstance(cache, Cache):
        for part in vars(cache).values():
            yield from tensors_of(part)
    for _, tensor in _all_tensors({"rest": vars(cache), "layers": [vars(layer) for layer in layers]} if layers else ()):
        yield tensor


def _counts(tensor: Tensor) -> bool:
    """Whether a tensor is a scalar: one number without a dimension, or a whole one in a list."""
    return tensor.dim() == 0 or (tensor.shape == (1,) and not tensor.is_floating_point())


def named_in(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor with elements in lists, dicts and transformers' objects, and its place; no counters."""
    return ((name, tensor) for name, tensor in _all_tensors(value, name) if tensor.numel() > 0 and not _counts(tensor))


def _all_tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _all_tensors(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _all_tensors(item, f"{name}.{index}" if name else str(index))
    elif (
        hasattr(value, "__dict__")
        and not isinstance(value, type)
        and type(value).__module__.startswith("transformers.")
    ):
        yield from _all_tensors(vars(value), name)


def cache_of(outputs: Any) -> Any:
    """The cache that a model returned, or None."""
    for name in CACHE_ARGUMENTS:
        cache = outputs.get(name) if isinstance(outputs, dict) else getattr(outputs, name, None)
        if cache is not None:
            return cache
    return None


def refuse_another(given: AnyCache, out: Any) -> None:
    """Raises TraceError where code has left the cache that it was given empty, and hands on one of its own."""
    kept = cache_of(out)
    if not isinstance(given, Cache) or not isinstance(kept, Cache) or kept is given:
        return
    if next(cache_tensors(given), None) is None and next(cache_tensors(kept), None) is not None:
        raise TraceError(
            "its forward puts a cache of its own in the place of the one that it is given (prefix tuning does), so "
            "that no step sees the context; annotate_module prices one call as it runs"
        )
