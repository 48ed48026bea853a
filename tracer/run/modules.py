"""One call of any module, on a copy of it that has no data."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import nn

from fxmeter.models.errors import TraceError
from fxmeter.models.names import Kwargs
from fxmeter.tracer.capture.folding import Folding
from fxmeter.tracer.capture.recording import Recording
from fxmeter.tracer.graph.values import Args
from fxmeter.tracer.private import Cache
from fxmeter.tracer.run.calls import folded, recorded
from fxmeter.tracer.run.failures import as_trace_errors
from fxmeter.tracer.run.patches.attention import Attention, attention_of
from fxmeter.tracer.run.patches.autocast import autocast_without_effect
from fxmeter.tracer.run.patches.devices import OneDevice, devices_answered
from fxmeter.tracer.run.patches.higher_order import without_compiling
from fxmeter.tracer.run.patches.scan_hooks import scans_as_operators
from fxmeter.tracer.run.twin import Twin, arguments_on_meta, home_of, on_meta
from fxmeter.tracer.state.attributes import attributes_restored
from fxmeter.tracer.state.session import one_recording
from fxmeter.tracer.state.tree import unchanging

_META = torch.device("meta")


def record_module(
    module: nn.Module,
    args: Args,
    kwargs: Kwargs,
    *,
    attention: Attention = "flash",
    fold: bool | None = None,
    training: bool | None = None,
) -> Recording:
    """Record one call of any module on ``meta``; the module and the tensors given are not touched.

    ``training`` puts all of it in training mode or out of it; None leaves each part as it is.
    """
    return record_twin(on_meta(module, training=training), args, kwargs, attention=attention, fold=fold)


def record_twin(
    twin: Twin,
    args: Args,
    kwargs: Kwargs,
    *,
    attention: Attention = "flash",
    fold: bool | None = None,
) -> Recording:
    """The same for what :func:`on_meta` returned, which may be recorded again and again."""
    module, home = twin.module, home_of(twin.module, (args, kwargs))

    def call(folding: Folding | None, *, careful: bool) -> Recording:
        values = dict(twin.values)
        with as_trace_errors(module):
            on_twin, named = arguments_on_meta(args, kwargs, values)
        cache = next((value for value in (*on_twin, *named.values()) if isinstance(value, Cache)), None)
        device = OneDevice(_META) if careful else nullcontext()
        at = devices_answered(module, home)
        with attributes_restored(module), device, autocast_without_effect() as seen, at as taken:
            recording = recorded(module, on_twin, named, folding=folding, cache=cache, values=values)
        return replace(recording, assumptions=(*recording.assumptions, *seen, *taken))

    def attempt(*, careful: bool) -> Recording:
        return folded(lambda folding: call(folding, careful=careful), Folding.of(module, fold))

    flow = without_compiling(fuse=attention == "flash")
    with one_recording(), unchanging(module), attention_of(module, attention), scans_as_operators(module), flow:
        try:
            return attempt(careful=False)
        except TraceError as failure:
            try:
                return attempt(careful=True)
            except TraceError:
                raise failure from failure.__cause__
