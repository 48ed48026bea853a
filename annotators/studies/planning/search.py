"""Searching for the largest size that something still holds for."""

from __future__ import annotations

from collections.abc import Callable

from fxmeter.models.sizes import LARGEST_SIZE


def largest_that_fits(fits: Callable[[int], bool], *, start: int, most: int = LARGEST_SIZE) -> int:
    """The largest size that fits, at most ``most``; 0 if 1 does not. What fits must fit in any smaller size too.

    Doubles, or halves, from ``start`` on, then closes in: sizes far beyond the answer are never tried.
    """
    low, high = 0, start
    while fits(high):
        if high == most:
            return high
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
