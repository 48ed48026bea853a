"""Regions one after another along an axis on which the other length has its least value."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from fxmeter.annotators.shapes.samples import CHECK_BATCH, FIT_BATCHES, Fit, Samples
from fxmeter.annotators.sheets.region import Place, Point
from fxmeter.annotators.symbolic import NotPolynomial

MOST_REGIONS = 12
"""More regions than this along one edge are no form that anybody can use; a model with two windows has five."""
MOST_GROWTHS = 3
"""Regions in a row that each have more ops than the one before: ops that grow with the length have no end."""
MOST_LONE = 6
"""Single lengths in a row that fit no region: such a model changes with every length."""
NEAR = 97
"""How far beyond its first length a region is checked first: a prime, beyond the windows of tiny models."""
FAR = 20
"""The random check lies up to 2^20 tokens further on, every order of magnitude as likely."""

OpenPlace: TypeAlias = tuple[int | None, int | None]
"""(x, y), None where a region has no end."""
Add: TypeAlias = Callable[[Fit, Place, OpenPlace], None]
"""Makes a region of a fit, from its lowest place to its highest."""


@dataclass(slots=True)
class Edge:
    """The regions along ``axis`` (0: x, 1: y) from its second least value upwards, of one sequence or of several.

    ``ends`` are their last lengths, the last of them None where no end was found up to ``top``. ``hints`` are lengths
    at which something may change.
    """

    samples: Samples
    axis: int
    one: bool
    least: Place
    top: int
    hints: Sequence[int]
    add: Add
    ends: list[int | None] = field(default_factory=list)
    failure: NotPolynomial | None = None
    _growths: list[int] = field(default_factory=list)
    _lone: int = 0
    _waiting: list[Place] = field(default_factory=list)

    def reach(self, length: int) -> None:
        """Find the regions as far as ``length``. Raises NotPolynomial where there are none, or too many."""
        while self.failure is None:
            end = self.ends[-1] if self.ends else self.least[self.axis]
            if end is None or end >= length:
                return
            try:
                self._next_region(end + 1)
                self._refuse_endless_change(end + 1)
                if self.ends[-1] is None or self.ends[-1] >= length:
                    self._add_waiting()
            except NotPolynomial as failure:
                self.failure = failure
        raise self.failure

    def walls(self) -> set[int]:
        """The last lengths of regions that have one."""
        return {end for end in self.ends if end is not None}

    def place(self, length: int) -> Place:
        """Where on the plane a length of the edge is."""
        return (length, self.least[1]) if self.axis == 0 else (self.least[0], length)

    @property
    def _batch(self) -> int:
        return 1 if self.one else FIT_BATCHES[0]

    def _refuse_endless_change(self, start: int) -> None:
        structure, _ = self.samples.at((self._batch, *self.place(start)))
        self._growths.append(len(structure))
        grown = [b > a for a, b in itertools.pairwise(self._growths[-MOST_GROWTHS - 1 :])]
        if self._lone > MOST_LONE or len(self.ends) > MOST_REGIONS or (len(grown) == MOST_GROWTHS and all(grown)):
            raise NotPolynomial("its ops change with the length again and again")

    def _next_region(self, start: int) -> None:
        fit = self.samples.fit([self.place(start + step) for step in range(3)], one=self.one)
        at_once = [(b, *self.place(length)) for length, b in self._taken(self.one) if start <= length <= start + 2]
        if fit is None or not self.samples.all_agree(fit, at_once):
            self._waiting.append(self.place(start))
            self.ends.append(start)
            self._lone += 1
            return
        self._lone = 0
        end = self._end_of(fit, start)
        low = start
        if start == self.least[self.axis] + 1 and self.axis == 0:
            low -= self.samples.agrees(fit, (self._batch, *self.place(start - 1)))
        high = self.place(self.top if end is None else end)
        bounds = tuple(end if i == self.axis else value for i, value in enumerate(high))
        if not self.one:
            fit = self.samples.with_one(fit, self._single_sequences(low, end))
        self.add(fit, self.place(low), (bounds[0], bounds[1]))
        self.ends.append(end)

    def _add_waiting(self) -> None:
        """Make regions of single lengths. Not before their number is known: where there are too many, each would have
        been held to recordings of several batches in vain."""
        waiting, self._waiting = self._waiting, []
        for place in waiting:
            self.add(self.samples.lone(place, one=self.one), place, place)

    def _end_of(self, fit: Fit, start: int) -> int | None:
        """The last length at which ``fit`` holds; None where no check up to the top shows one."""
        good = start + 2
        for length, batch in self._checks(start):
            if length > good:
                if not self.samples.agrees(fit, (batch, *self.place(length))):
                    return self._last_agreeing(fit, batch, good, length)
                good = length
        return None

    def _checks(self, start: int) -> list[tuple[int, int]]:
        """(length, batch) to be held to recordings: near, at random, at the top, and wherever one was taken already."""
        chance = random.Random(f"{self.axis} {start}")
        anywhere = min(self.top, start + NEAR + round(2 ** chance.uniform(0, FAR)))
        checks = [(start + NEAR, self._batch), (anywhere, chance.randint(4, 999)), (self.top, CHECK_BATCH)]
        if self.one:
            checks = [(length, 1) for length, _ in checks]
        return sorted({*((min(length, self.top), batch) for length, batch in checks), *self._taken(self.one)})

    def _taken(self, one: bool) -> set[tuple[int, int]]:
        other = 1 - self.axis
        points = (p for p in self.samples.points(one=one) if p[1 + other] == self.least[other])
        return {(point[1 + self.axis], point[0]) for point in points}

    def _single_sequences(self, low: int, end: int | None) -> list[Point]:
        """Where a batch of 1 is held to recordings before it belongs to a region of larger ones."""
        inside = {length for length, _ in self._taken(one=True) if length >= low and (end is None or length <= end)}
        if not inside - {low}:
            inside.add(low + NEAR // 2 if end is None else (low + min(low + NEAR, end)) // 2)
        return [(1, *self.place(length)) for length in sorted({low, *inside})]

    def _last_agreeing(self, fit: Fit, batch: int, good: int, bad: int) -> int:
        """The last length from ``good`` on, below ``bad``, at which the fit still holds for ``batch``."""
        while bad - good > 1:
            hints = [h for h in self.hints if good < h < bad]
            middle = hints[len(hints) // 2] if hints else (good + bad) // 2
            if self.samples.agrees(fit, (batch, *self.place(middle))):
                good = middle
            else:
                bad = middle
        if not self.samples.agrees(fit, (batch, *self.place(good))):
            raise NotPolynomial(f"the sizes at length {good} are not linear in the batch")
        return good
