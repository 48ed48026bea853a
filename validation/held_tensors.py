"""Which tensors a pass leaves behind, asked of Python's garbage collector: whoever holds them, in whatever class.

That is the other opinion on the cache: it shares nothing with the search that fxmeter makes of cache objects.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

NO_STATE = ("loss", "logits", "logits_ngram", "last_hidden_state", "hidden_states", "attentions", "router_logits")
"""What a model returns that is no state: gone once the caller drops it."""


@contextmanager
def only_new_objects() -> Iterator[None]:
    """Inside the block the collector lists what was made in it, and nothing older."""
    thaw = not gc.get_freeze_count()  # a caller who froze what stays would pay for each later collection again
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        if thaw:
            gc.unfreeze()


@dataclass(frozen=True)
class Left:
    """Tensors that a pass left: entries of a cache or state, counters, and tables that do not depend on the batch."""

    entries: list[Tensor] = field(default_factory=list, repr=False)
    counters: list[Tensor] = field(default_factory=list, repr=False)
    tables: list[Tensor] = field(default_factory=list, repr=False)

    @property
    def entry_bytes(self) -> int:
        """What the entries show."""
        return sum(tensor.nbytes for tensor in self.entries)

    @property
    def allocated_bytes(self) -> int:
        """The allocations behind them, which a slice keeps whole."""
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in self.entries}.values())


def left_behind(out: Any, inputs: Iterable[Tensor], batch: int) -> Left:
    """What is alive inside :func:`only_new_objects` but for ``inputs`` and what ``out`` has besides state."""
    apart = {id(tensor) for tensor in inputs}
    for name in NO_STATE:
        value = out.get(name) if isinstance(out, dict) else None
        apart |= {id(t) for t in (value if isinstance(value, (tuple, list)) else [value])}
    gc.collect()
    tensors = [item for item in gc.get_objects() if issubclass(type(item), Tensor)]
    apart |= {id(tensor._base) for tensor in tensors}  # held by its slice alone: an allocation, no second entry
    found = Left()
    for tensor in tensors:
        if id(tensor) not in apart and tensor.numel() > 0:
            kind = found.counters if tensor.dim() == 0 else found.entries
            (kind if tensor.dim() == 0 or batch in tensor.shape[:2] else found.tables).append(tensor)
    return found
