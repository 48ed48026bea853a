"""What ranks cannot share evenly: the fullest rank's part of a number of rows, rounded up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Shares:
    """``last`` is what was shared last: how many rows, and over how many ranks. The first rank's part has ``more`` rows
    than it has, to find out which sizes go by them."""

    more: int = 0
    last: tuple[int, int] | None = None


_NOW: ContextVar[Shares | None] = ContextVar("shares", default=None)


@contextmanager
def sharing(more: int = 0) -> Iterator[Shares]:
    """Inside the block, what is shared; within another such block its ``more`` rows are added too."""
    outer = _NOW.get()
    shares = Shares(more + (0 if outer is None else outer.more))
    token = _NOW.set(shares)
    try:
        yield shares
    finally:
        _NOW.reset(token)


def share_of(rows: int, ranks: int) -> int:
    """⌈rows / ranks⌉, the part of the first rank."""
    part, shares = -(-rows // ranks), _NOW.get()
    if shares is None:
        return part
    shares.last = rows, ranks
    return min(part + shares.more, rows)
