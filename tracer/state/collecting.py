"""Keeping Python's garbage collector out of a recording and of what is made of it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collecting() -> Iterator[None]:
    """Inside the block cyclic garbage stays.

    It would be let go of at moments that depend on what ran before, so that lifetimes would too; and looking through
    tens of thousands of new objects again and again makes the time grow faster than the number of layers.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
