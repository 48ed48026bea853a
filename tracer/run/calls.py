"""One call of a module, recorded: what a pass of a language model and a call of any other module have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from typing import Any

from torch import Tensor, nn

from fxmeter.models.errors import TraceError
from fxmeter.models.names import Kwargs
from fxmeter.tracer.capture.folding import CannotFoldError, Folding, refuse_side_effects
from fxmeter.tracer.capture.names import module_classes
from fxmeter.tracer.capture.recorder import Recorder
from fxmeter.tracer.capture.recording import Recording, resident_weights, settle_cache
from fxmeter.tracer.graph.values import AnyCache, Args
from fxmeter.tracer.private import Cache, pytree
from fxmeter.tracer.run.failures import as_trace_errors
from fxmeter.tracer.run.twin import tensors_in
from fxmeter.tracer.state.attributes import Held
from fxmeter.tracer.state.cache import cache_of, cache_tensors, refuse_another
from fxmeter.tracer.state.session import one_recording, without_collecting
from fxmeter.tracer.state.tree import aliases, walk


def record_call(module: nn.Module, args: Args, kwargs: Kwargs) -> Recording:
    """Record ``module(*args, **kwargs)`` for any module, on the device that its inputs are on."""
    with one_recording():
        return recorded(module, args, kwargs)


def folded(call: Callable[[Folding | None], Recording], folding: Folding | None) -> Recording:
    """``call`` with every list folded that can be: one that cannot does not unfold the others."""
    while folding is not None:
        try:
            return call(folding)
        except CannotFoldError as error:
            folding = folding.without(error.in_list)
        except TraceError:
            if not folding.skipped:
                raise
            folding = None  # it may have failed for what a layer that was not run left out
    return call(None)


def recorded(
    module: nn.Module,
    args: Args,
    kwargs: Kwargs,
    *,
    folding: Folding | None = None,
    cache: AnyCache = None,
    output: Callable[[Any], Any] | None = None,
    values: Mapping[int, Tensor] | None = None,
    part: nn.Module | None = None,
) -> Recording:
    """``output`` picks the graph's output from what the module returns; ``values`` are those of tensors on meta. With
    ``part`` only that part of the module is called."""
    started = time.perf_counter()
    leaves = (leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
    on_meta = next((tensor.is_meta for tensor in chain(leaves, module.parameters())), True)
    recorder = Recorder(module, values, on_meta=on_meta)
    for entry in cache_tensors(cache):
        recorder.placeholder(f"cache_{entry.layer}_{entry.name}".replace(".", "_"), entry.tensor, "cache")
    declare_inputs(recorder, args, kwargs)
    with ExitStack() as stack:
        if folding is not None:
            stack.enter_context(folding.active(recorder))
        stack.enter_context(as_trace_errors(module))
        stack.enter_context(without_collecting())
        with recorder.watching():
            out = (module if part is None else part)(*args, **kwargs)
    if cache is None:
        cache = cache_of(out)
    elif isinstance(cache, Held) and not isinstance(cache.cache, Cache):
        cache = replace(cache, cache=cache_of(out))  # not changed in place: the one returned is the one after the pass
    refuse_another(cache.cache if isinstance(cache, Held) else None, out)
    entries = settle_cache(recorder, cache)
    recorder.output(_plain_output(out if output is None else output(out)))
    if folding is not None:
        refuse_side_effects(recorder.graph, recorder.storages)
    return Recording(
        graph=recorder.graph,
        storages=tuple(recorder.storages),
        cache=entries,
        weights=resident_weights(module),
        classes=module_classes(module),
        aliases=aliases(module),
        calls=recorder.calls,
        constants=recorder.constants,
        assumptions=tuple(recorder.questions.assumptions),
        training=any(part.training for _, part in walk(module)),
        seconds=time.perf_counter() - started,
    )


def declare_inputs(recorder: Recorder, args: Any, kwargs: Kwargs) -> None:
    """A placeholder for every tensor among the arguments, named after the argument."""
    for place, value in [*((f"arg{i}", a) for i, a in enumerate(args)), *kwargs.items()]:
        if isinstance(value, Cache):
            continue
        leaves = [leaf for leaf in pytree.tree_leaves(value) if not isinstance(leaf, nn.Module)]
        tensors = [tensor for leaf in leaves for _, (tensor, _) in tensors_in(leaf)]
        for index, tensor in enumerate(tensors):
            if recorder.node_of(tensor) is None:
                recorder.placeholder(place if len(tensors) == 1 else f"{place}_{index}", tensor, "input")


def _plain_output(out: Any) -> Any:
    """Nested tuples, lists and dicts of tensors; anything else in the output is left out."""
    if isinstance(out, Tensor):
        return out
    if isinstance(out, dict):
        return {str(key): plain for key, item in out.items() if (plain := _plain_output(item)) is not None}
    if isinstance(out, (tuple, list)):
        return tuple(plain for item in out if (plain := _plain_output(item)) is not None)
    if hasattr(out, "__dataclass_fields__"):
        return _plain_output({name: getattr(out, name) for name in out.__dataclass_fields__})
    return None
