"""Cells of the plane of two lengths: between breakpoints in x, in y and in x + y."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from dataclasses import dataclass

from fxmeter.annotators.sheets.region import Interval, Place, within

TRIES = 20
"""Random places that are tried for one that the bound on the sum of both lengths leaves inside."""

_SIX = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
_DIRECTIONS = ((1, 1), (-1, 1), (1, -1), (-1, -1))


@dataclass(frozen=True, slots=True)
class Cell:
    """The (x, y) with both lengths, and their sum, within bounds that may be open above."""

    xs: Interval
    ys: Interval
    sums: Interval

    @classmethod
    def around(cls, place: Place, walls: tuple[set[int], set[int]], least: Place) -> Cell:
        """The cell that ``place`` is in. ``walls`` are last lengths before a breakpoint, along x and along y.

        A breakpoint along an edge may be one in the length itself or in the sum of both.
        """
        in_x, in_y = walls
        in_sum = {end + least[1] for end in in_x} | {end + least[0] for end in in_y}
        return cls(
            _between(place[0], {least[0], *in_x}), _between(place[1], {least[1], *in_y}), _between(sum(place), in_sum)
        )

    def holds(self, place: Place) -> bool:
        """Whether a place is in it."""
        x, y = place
        return bool(within(x, *self.xs) and within(y, *self.ys) and within(x + y, *self.sums))

    def six_places(self, place: Place) -> list[Place] | None:
        """Where to interpolate: a triangle of six at the cell's small end where it has room, else at ``place``."""
        small = (self.xs[0], self.ys[0])
        for (x, y), (dx, dy) in [(small, (1, 1)), *((place, step) for step in _DIRECTIONS)]:
            places = [(x + dx * i, y + dy * j) for i, j in _SIX]
            if all(map(self.holds, places)):
                return places
        return None

    def far_places(self, top: Place) -> list[Place]:
        """Its corners, ``top`` standing for infinity, and a place at random; none twice."""
        x_low, x_high = self.xs[0], top[0] if self.xs[1] is None else self.xs[1]
        y_low, y_high = self.ys[0], top[1] if self.ys[1] is None else self.ys[1]
        places = [*itertools.product((x_low, x_high), (y_low, y_high))]
        for wall in self.sums:
            if wall is not None:
                places += [(x, wall - x) for x in (x_low, x_high)] + [(wall - y, y) for y in (y_low, y_high)]
        chance = random.Random(f"{self}")
        for _ in range(TRIES):
            x, y = (
                low + round((high - low) ** chance.uniform(0, 1)) if high > low else low
                for low, high in ((x_low, x_high), (y_low, y_high))
            )
            if self.holds((x, y)):
                places.append((x, y))
                break
        return list(dict.fromkeys(filter(self.holds, places)))


def _between(value: int, walls: Iterable[int]) -> Interval:
    """The interval between walls (each the last value of what lies below it) that ``value`` is in."""
    return max((w + 1 for w in walls if w < value), default=0), min((w for w in walls if w >= value), default=None)
