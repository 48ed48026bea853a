"""A region: all sizes of a pass that one recording with polynomial sizes stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Point = tuple[int, int, int]
"""(B, x, y): a batch and two lengths, query and past length or rows and columns of crops."""


@dataclass(frozen=True, slots=True, eq=False)
class SizeRegion:
    """All (B, x, y) within bounds, which one recording with polynomial sizes stands for. ``sums`` bounds x + y."""

    lower: Point
    upper: tuple[int | None, int | None, int | None]
    sums: tuple[int, int | None]

    def contains(self, b: Any, x: Any, y: Any) -> Any:
        """Whether a point lies in it; for arrays, element by element."""
        inside = within(x + y, *self.sums)
        for value, low, high in zip((b, x, y), self.lower, self.upper, strict=True):
            inside = inside & within(value, low, high)
        return inside


def within(value: Any, low: int, high: int | None) -> Any:
    """Whether ``low`` <= ``value`` <= ``high``, which may be open."""
    return (value >= low) & (True if high is None else value <= high)
