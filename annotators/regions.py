"""Where the sizes of a recording are which polynomials.

The sizes of one pass depend on a batch B and two lengths (x, y): query and past length, or rows and columns of crops.
The plane of (x, y) is cut into pieces:

    y │        inside: both above their least value
      │
    y₀├──── edge ────▶ x        an edge of its own, because a length of one, or an empty cache, takes other code
      x₀

Along each edge regions are found one after another: sizes are interpolated at the beginning of a region, in
polynomials of degree 2, and held to recordings far away; where one differs, the last length that still agrees is
searched for. Inside, the plane is cut along the breakpoints of both edges, in x, in y, and in x + y. Every region is
checked at lengths, and batches, that it was not made from; what fits no polynomial stays without a region.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from annotators.polynomial import value_at, variable
from annotators.skeleton import interned, put_together, take_apart
from models.errors import FxmeterError
from tracer.recording import Recording

Point = tuple[int, int, int]
Record = Callable[[Point], Recording]

FIT_BATCHES = (2, 3)
CHECK_BATCH = 611
MOST_REGIONS = 12
MOST_GROWTHS = 3
NEAR, FARTHER = 97, 1009
_INSIDE = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
_DIRECTIONS = ((1, 1), (-1, 1), (1, -1), (-1, -1))


class NotPolynomial(FxmeterError):  # noqa: N818  a finding, not a mistake
    """The sizes of a model's tensors, or its ops themselves, follow no polynomial in the lengths."""


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """All (B, x, y) within bounds, which one recording with polynomial sizes stands for. ``sums`` bounds x + y."""

    lower: Point
    upper: tuple[int | None, int | None, int | None]
    sums: tuple[int, int | None]
    recording: Recording = field(repr=False)

    def contains(self, b: Any, x: Any, y: Any) -> Any:
        """Whether a point lies in it; for arrays, element by element."""
        inside = _within(x + y, *self.sums)
        for value, low, high in zip((b, x, y), self.lower, self.upper, strict=True):
            inside = inside & _within(value, low, high)
        return inside


def _within(value: Any, low: int, high: int | None) -> Any:
    return (value >= low) & (True if high is None else value <= high)


@dataclass(slots=True)
class _Edge:
    """The regions along one axis, from its second least value upwards."""

    regions: list[Region] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    failure: NotPolynomial | None = None


class Regions:
    """Finds regions on demand. ``least`` are x₀ and y₀, ``top`` the farthest (x, y) recorded to check, and ``hints``
    lengths at which something may change (a window's size)."""

    def __init__(self, record: Record, *, least: tuple[int, int], top: tuple[int, int], hints: Iterable[int]) -> None:
        self._record = record
        self._least, self._top = least, top
        self._hints = sorted({h + d for h in hints for d in (-2, -1, 0, 1, 2)})
        self._taken: dict[Point, tuple[Any, list[int]]] = {}
        self._edges: dict[Any, _Edge] = {}
        self.found: list[Region] = []

    def find(self, point: Point) -> Region:
        """The region that ``point`` is in. Raises NotPolynomial where there is none."""
        known = self._known(point)
        if known is not None:
            return known
        for one in self._kinds_of_batch(point):
            self._explore(point, one=one)
            known = self._known(point)
            if known is not None:
                return known
        raise NotPolynomial(f"no polynomial gives the sizes at {point}")

    def _kinds_of_batch(self, point: Point) -> tuple[bool, ...]:
        """Whether to look among regions of one sequence (True), of several, or of several first and then of one."""
        if point[0] > 1:
            return (False,)
        structure, _ = self._sizes(point)
        other, _ = self._sizes((FIT_BATCHES[0], *point[1:]))
        return (False, True) if structure == other else (True,)

    def _known(self, point: Point) -> Region | None:
        return next((region for region in self.found if region.contains(*point)), None)

    def _explore(self, point: Point, *, one: bool) -> None:
        _, x, y = point
        x0, y0 = self._least
        if x > x0 and y > y0:
            self._inside(x, y, one)
        elif x > x0 and y == y0:
            self._along(0, x, one)
        elif x == x0 and y > y0:
            self._along(1, y, one)
        else:
            if (x, y) == (x0, y0):  # the edge along x may well begin here
                with contextlib.suppress(NotPolynomial):
                    self._along(0, x0 + 1, one)
                if self._known((1 if one else 2, x, y)) is not None:
                    return
            self._lone(x, y, one)

    # One fit: sizes at a few points → polynomials

    def _sizes(self, point: Point) -> tuple[Any, list[int]]:
        if point not in self._taken:
            self._taken[point] = take_apart(self._record(point))
        return self._taken[point]

    def _fit(self, places: Sequence[tuple[int, int]], one: bool) -> tuple[Any, list[Any]] | None:
        """(structure, polynomial sizes) from recordings at ``places``; None where they do not go together."""
        batch = 1 if one else FIT_BATCHES[0]
        taken = [self._sizes((batch, *place)) for place in places]
        structure = taken[0][0]
        if any(other != structure for other, _ in taken):
            return None
        inverse, monomials = _interpolation(places)

        def along(values: Sequence[int]) -> Any:
            coefficients = [sum(f * v for f, v in zip(row, values, strict=True)) for row in inverse]
            if any(c.denominator != 1 for c in coefficients):
                raise ArithmeticError
            return sum(int(c) * m for c, m in zip(coefficients, monomials, strict=True))

        try:
            if one:
                return structure, interned(zip(*(sizes for _, sizes in taken), strict=True), along)
            return self._with_batch(places, taken, along)
        except ArithmeticError:
            return None

    def _with_batch(
        self, places: Sequence[tuple[int, int]], taken: list[tuple[Any, list[int]]], along: Any
    ) -> tuple[Any, list[Any]] | None:
        """Most sizes do not depend on the batch, or are proportional to it; the rest is linear in it."""
        few, many = FIT_BATCHES
        structure, other = self._sizes((many, *places[0]))
        if structure != taken[0][0]:
            return None
        b, count = variable(0), len(places)
        rest: list[list[int]] = []

        def with_batch(column: tuple[int, ...]) -> Any:
            values, at_many = column[:count], column[count]
            if at_many == values[0]:
                return along(values)
            if at_many * few == values[0] * many and all(v % few == 0 for v in values):
                return b * along([v // few for v in values])
            raise LookupError

        try:
            return structure, interned(zip(*(sizes for _, sizes in taken), other, strict=True), with_batch)
        except LookupError:
            for place in places:
                again, sizes = self._sizes((many, *place))
                if again != structure:
                    return None
                rest.append(sizes)

        def linear(column: tuple[int, ...]) -> Any:
            low, high = along(column[:count]), along(column[count:])
            return low + (b - few) * (high - low)

        return structure, interned(zip(*(sizes for _, sizes in taken), *rest, strict=True), linear)

    def _agrees(self, fitted: tuple[Any, list[Any]], point: Point) -> bool:
        """Whether the recording at ``point`` is what the fit says."""
        structure, sizes = self._sizes(point)
        if structure != fitted[0]:
            return False
        known: dict[int, int] = {}
        for poly, size in zip(fitted[1], sizes, strict=True):
            if id(poly) not in known:
                known[id(poly)] = value_at(poly, point)
            if known[id(poly)] != size:
                return False
        return True

    def _add(
        self,
        fitted: tuple[Any, list[Any]],
        at: Point,
        low: tuple[int, int],
        high: tuple[int | None, int | None],
        sums: tuple[int, int | None] = (0, None),
        *,
        one: bool,
        from_one: bool = False,
    ) -> Region:
        recording = put_together(self._record(at), fitted[1])
        batches = (1, 1) if one else (1 if from_one else 2, None)
        region = Region((batches[0], *low), (batches[1], *high), sums, recording)
        self.found.append(region)
        return region

    def _lone(self, x: int, y: int, one: bool) -> None:
        """A region of a single place."""
        fitted = self._fit([(x, y)], one)
        if fitted is None or not (one or self._agrees(fitted, (CHECK_BATCH, x, y))):
            raise NotPolynomial(f"the sizes at lengths {x}, {y} are not linear in the batch")
        from_one = not one and self._agrees(fitted, (1, x, y))
        at = (1 if one else FIT_BATCHES[0], x, y)
        self._add(fitted, at, (x, y), (x, y), one=one, from_one=from_one)

    # Along an edge

    def _along(self, axis: int, length: int, one: bool) -> _Edge:
        """The edge's regions as far as ``length``."""
        edge = self._edges.setdefault((axis, one), _Edge())
        growths: list[int] = []
        while edge.failure is None and (not edge.ends or edge.ends[-1] < length):
            start = edge.ends[-1] + 1 if edge.ends else self._least[axis] + 1
            try:
                self._next_region(edge, axis, start, one)
            except NotPolynomial as failure:
                edge.failure = failure
                break
            structure, _ = self._sizes((1 if one else FIT_BATCHES[0], *self._place(axis, start)))
            growths.append(len(structure))
            grown = [b > a for a, b in itertools.pairwise(growths[-MOST_GROWTHS - 1 :])]
            if len(edge.regions) > MOST_REGIONS or (len(grown) == MOST_GROWTHS and all(grown)):
                edge.failure = NotPolynomial("its ops change with the length again and again")
        if edge.failure is not None:
            raise edge.failure
        return edge

    def _place(self, axis: int, length: int) -> tuple[int, int]:
        return (length, self._least[1]) if axis == 0 else (self._least[0], length)

    def _next_region(self, edge: _Edge, axis: int, start: int, one: bool) -> None:
        batch, many = (1, 1) if one else (FIT_BATCHES[0], CHECK_BATCH)
        places = [self._place(axis, start + step) for step in range(3)]
        fitted = self._fit(places, one)
        if fitted is None:
            self._lone(*self._place(axis, start), one)
            edge.regions.append(self.found[-1])
            edge.ends.append(start)
            return
        last = start + 2
        for length, at_batch in ((start + NEAR, batch), (start + FARTHER, many), (self._top[axis], many)):
            if length > last and not self._agrees(fitted, (at_batch, *self._place(axis, length))):
                last = self._last_agreeing(fitted, axis, last, length, batch)
                break
            last = max(last, length)
        else:
            last = -1
        low = start
        if start == self._least[axis] + 1 and axis == 0 and self._agrees(fitted, (batch, *self._place(0, start - 1))):
            low = start - 1
        end = None if last < 0 else last
        near = min(start + NEAR // 2, last) if end is not None else start + NEAR // 2
        from_one = not one and all(
            self._agrees(fitted, (1, *self._place(axis, length))) for length in {low, start, near}
        )
        lower, upper = self._place(axis, low), list(self._place(axis, start))
        bounds = [end if i == axis else value for i, value in enumerate(upper)]
        region = self._add(fitted, (batch, *places[0]), lower, (bounds[0], bounds[1]), one=one, from_one=from_one)
        edge.regions.append(region)
        edge.ends.append(end if end is not None else 2**62)

    def _last_agreeing(self, fitted: Any, axis: int, good: int, bad: int, batch: int) -> int:
        """The last length from ``good`` on, below ``bad``, at which the fit still holds."""
        while bad - good > 1:
            hints = [h for h in self._hints if good < h < bad]
            middle = hints[len(hints) // 2] if hints else (good + bad) // 2
            if self._agrees(fitted, (batch, *self._place(axis, middle))):
                good = middle
            else:
                bad = middle
        return good

    # Inside

    def _walls(self, axis: int) -> list[int]:
        """Last lengths of the regions along an edge; both kinds of batches that were asked for."""
        edges = (self._edges[key] for key in self._edges if key[0] == axis)
        return sorted({end for edge in edges for end in edge.ends if end < 2**62})

    def _inside(self, x: int, y: int, one: bool) -> None:
        x0, y0 = self._least
        self._along(0, self._top[0], one)
        self._along(1, self._top[1], one)
        in_x, in_y = self._walls(0), self._walls(1)
        in_sum = sorted({end + y0 for end in in_x} | {end + x0 for end in in_y})
        xs = _between(x, [x0, *in_x])
        ys = _between(y, [y0, *in_y])
        sums = _between(x + y, [0, *in_sum])

        def holds(place: tuple[int, int]) -> bool:
            return bool(_within(place[0], *xs) and _within(place[1], *ys) and _within(sum(place), *sums))

        batch = 1 if one else FIT_BATCHES[0]
        for dx, dy in _DIRECTIONS:
            anchor = self._anchor((x, y), (dx, dy), xs, ys, sums)
            places = [(anchor[0] + dx * i, anchor[1] + dy * j) for i, j in _INSIDE]
            if not all(map(holds, places)):
                continue
            fitted = self._fit(places, one)
            far = [p for p in self._corners(xs, ys, sums) if holds(p)]
            many = 1 if one else CHECK_BATCH
            if fitted is None or not all(self._agrees(fitted, (many, *p)) for p in [(x, y), *far]):
                break
            from_one = not one and self._agrees(fitted, (1, x, y)) and self._agrees(fitted, (1, *places[0]))
            low, high = (xs[0], ys[0]), (xs[1], ys[1])
            self._add(fitted, (batch, *places[0]), low, high, sums, one=one, from_one=from_one)
            return
        self._lone(x, y, one)

    def _anchor(self, place: tuple[int, int], step: tuple[int, int], xs: Any, ys: Any, sums: Any) -> tuple[int, int]:
        """A small place in the same cell where there is one (small numbers interpolate fast), else ``place``."""
        small = (xs[0], ys[0])
        room = (small[0] + 2, small[1] + 2)
        if step == (1, 1) and _within(sum(small), *sums) and _within(sum(room), *sums):
            return small
        return place

    def _corners(self, xs: Any, ys: Any, sums: Any) -> list[tuple[int, int]]:
        """Far places of a cell, one or two."""
        x = xs[1] if xs[1] is not None else self._top[0]
        y = ys[1] if ys[1] is not None else self._top[1]
        if sums[1] is None:
            return [(x, y)]
        return [(min(x, sums[1] - ys[0]), ys[0]), (xs[0], min(y, sums[1] - xs[0]))]


def _between(value: int, walls: Sequence[int]) -> tuple[int, int | None]:
    """The interval between walls (each the last value of what lies below it) that ``value`` is in."""
    return max(w for w in walls if w < value) + 1, min((w for w in walls if w >= value), default=None)


def _interpolation(places: Sequence[tuple[int, int]]) -> tuple[list[list[Fraction]], list[Any]]:
    """Rows that turn values at ``places`` into coefficients, and the monomials that these belong to."""
    x, y = variable(1), variable(2)
    if len(places) == 1:
        return [[Fraction(1)]], [1]
    if len(places) == 3:
        axis = 0 if places[0][0] != places[1][0] else 1
        free = (x, y)[axis]
        rows = [[1, p[axis], p[axis] ** 2] for p in places]
        monomials = [1, free, free * free]
    else:
        rows = [[1, a, b, a * a, a * b, b * b] for a, b in places]
        monomials = [1, x, y, x * x, x * y, y * y]
    return _inverse(rows), monomials


def _inverse(rows: list[list[int]]) -> list[list[Fraction]]:
    """Gauss and Jordan, exactly."""
    size = len(rows)
    work = [[Fraction(v) for v in row] + [Fraction(i == j) for j in range(size)] for i, row in enumerate(rows)]
    for column in range(size):
        pivot = next(i for i in range(column, size) if work[i][column])
        work[column], work[pivot] = work[pivot], work[column]
        work[column] = [value / work[column][column] for value in work[column]]
        for i in range(size):
            if i != column and work[i][column]:
                factor = work[i][column]
                work[i] = [a - factor * b for a, b in zip(work[i], work[column], strict=True)]
    return [row[size:] for row in work]


def config_lengths(config: Any) -> set[int]:
    """The whole numbers in a config, nested ones included: lengths at which a model may change its ways."""
    found: set[int] = set()
    todo = [config.to_dict() if hasattr(config, "to_dict") else config]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            todo.extend(value.values())
        elif isinstance(value, (list, tuple)):
            todo.extend(value)
        elif isinstance(value, float):
            if value.is_integer():
                todo.append(int(value))
        elif isinstance(value, int) and value > 3:
            found.add(value)
    return found
