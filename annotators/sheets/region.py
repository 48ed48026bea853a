"""A region: all sizes of a pass that one recording with polynomial sizes stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from fxmeter.models.stage_cost import Size

Place: TypeAlias = tuple[int, int]
"""(x, y): two lengths, query and past length or rows and columns of crops."""

Point: TypeAlias = tuple[int, int, int]
"""(B, x, y): a batch and two lengths."""

NO_SIZES: Point = (0, 0, 0)
"""Where plain numbers are evaluated: they are the same at any point."""

Interval: TypeAlias = tuple[int, int | None]
"""First and last of consecutive whole numbers; without a last one, all from the first."""


@dataclass(frozen=True, slots=True, eq=False)
class SizeRegion:
    """All (B, x, y) within bounds, which one recording with polynomial sizes stands for. ``sums`` bounds x + y."""

    lower: Point
    upper: tuple[int | None, int | None, int | None]
    sums: Interval

    def contains(self, b: Size, x: Size, y: Size) -> Size:
        """Whether a point lies in it; for arrays, element by element."""
        inside = within(x + y, *self.sums)
        for value, low, high in zip((b, x, y), self.lower, self.upper, strict=True):
            inside = inside & within(value, low, high)
        return inside


def within(value: Size, low: int, high: int | None) -> Size:
    """Whether ``low`` <= ``value`` <= ``high``, which may be open; for arrays, element by element."""
    return (value >= low) & (True if high is None else value <= high)
