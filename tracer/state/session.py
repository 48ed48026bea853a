"""One recording at a time, without the garbage collector.

A recording replaces functions of modelling code, chooses the attention of configs, and watches every module call of its
thread. Threads take turns. What runs inside a recorded forward cannot start another recording: its ops would be counted
in both.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fxmeter.models.errors import TraceError
from fxmeter.tracer.private import compiled_as_written

_turn = threading.Lock()
_whose: int | None = None
"""The thread whose turn it is, while ``_turn`` is locked."""


@contextmanager
def one_recording() -> Iterator[None]:
    """Inside the block no other thread records. Raises TraceError where this one does already.

    No gradients are taken, as in inference, but ops are the ones that make up others: torch's inference mode would show
    some whole, and so would the fused kernels that its attention layers have for some devices. Nothing is compiled: a
    compiler would take what records for a part of the model. Random numbers that the recorded code draws are drawn
    again afterwards: the generator is as it was.
    """
    global _whose
    me = threading.get_ident()
    if records_now():
        raise TraceError(
            "annotate was called from code that is being recorded, whose ops would be counted twice; "
            "price the inner module before or after, not inside a forward or a hook"
        )
    with _turn:
        random_state = torch.get_rng_state()
        fused_layers = torch.backends.mha.get_fastpath_enabled()
        try:
            _whose = me
            torch.backends.mha.set_fastpath_enabled(False)
            with torch.inference_mode(False), torch.no_grad(), compiled_as_written(), _no_thread_begins():
                yield
        finally:
            _whose = None
            torch.backends.mha.set_fastpath_enabled(fused_layers)
            torch.set_rng_state(random_state)


@contextmanager
def one_building() -> Iterator[None]:
    """Inside the block no other thread builds a model with transformers, or records one.

    Building chooses torch's default dtype and replaces functions of ``torch.nn.init``, for all threads at once.
    """
    if records_now():
        yield
        return
    with _turn:
        yield


@contextmanager
def _no_thread_begins() -> Iterator[None]:
    """Inside the block the thread that records starts no other, whose ops nobody would see."""
    kind = threading.Thread
    original = kind.start

    def start(self: threading.Thread) -> None:
        if records_now():
            raise RuntimeError("it starts a thread, and ops of other threads are not seen: call what runs there here")
        original(self)

    kind.start = start  # type: ignore[method-assign]
    try:
        yield
    finally:
        kind.start = original  # type: ignore[method-assign]


def records_now() -> bool:
    """Whether this thread is inside such a block."""
    return _turn.locked() and _whose == threading.get_ident()


_passes = 0


@contextmanager
def running() -> Iterator[None]:
    """Inside the block code of a model runs."""
    global _passes
    try:
        yield
    finally:
        _passes += 1


def passes_run() -> int:
    """A number that stays as it is while no code of a model has run."""
    return _passes


_collecting = threading.Lock()
_blocks = 0
_collects = True


@contextmanager
def without_collecting() -> Iterator[None]:
    """Inside the block, of whichever thread, cyclic garbage stays.

    It would be let go of at moments that depend on what ran before, so that lifetimes would too; and looking through
    tens of thousands of new objects again and again makes the time grow faster than the number of layers.
    """
    global _blocks, _collects
    inside = 0
    try:
        with _collecting:
            if _blocks == 0:
                _collects = gc.isenabled()
            _blocks, inside = _blocks + 1, 1
            gc.disable()
        yield
    finally:
        with _collecting:
            _blocks -= inside
            if _blocks == 0 and _collects:
                gc.enable()
