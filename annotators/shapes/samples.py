"""Recordings at a few points, and the polynomials that go through their sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from fxmeter.annotators.shapes.region import Point
from fxmeter.annotators.shapes.skeleton import interned, put_together, take_apart
from fxmeter.annotators.symbolic import NotPolynomial, value_at, variable
from fxmeter.models.errors import TraceError
from fxmeter.tracer.capture.recording import Recording

Record = Callable[[Point], Recording]
Place = tuple[int, int]
"""(x, y): the two lengths of a point."""

FIT_BATCHES = (2, 3)
CHECK_BATCH = 611


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """Polynomials for every size of a recording, in the order of
    :func:`fxmeter.annotators.shapes.skeleton.take_apart`; ``at`` is the
    first point that they were made from. With ``one`` they are for a batch of 1."""

    structure: Any
    sizes: list[Any]
    at: Point
    one: bool


Found = tuple[Fit, bool]
"""A fit, and whether a batch of 1 goes with the larger ones that it was made for."""


class Samples:
    """Recordings taken apart, each point once."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._taken: dict[Point, tuple[Any, list[int]]] = {}
        self._whole: tuple[Point, Recording] | None = None

    def __len__(self) -> int:
        return len(self._taken)

    def points(self, *, one: bool) -> list[Point]:
        """Where recordings were taken, of a batch of 1 or of larger ones."""
        return [point for point in self._taken if (point[0] == 1) == one]

    def at(self, point: Point, *, keep: bool = False) -> tuple[Any, list[int]]:
        """(structure, sizes) of the recording at a point. ``keep`` holds on to the recording itself, the last one."""
        if point not in self._taken:
            recording = self._record(point)
            self._taken[point] = take_apart(recording)
            if keep:
                self._whole = point, recording
        return self._taken[point]

    def with_sizes(self, fit: Fit) -> Recording:
        """The recording that the fit began with, polynomials in the place of its sizes."""
        kept = self._whole[1] if self._whole is not None and self._whole[0] == fit.at else self._record(fit.at)
        self._whole = None
        return put_together(kept, fit.sizes)

    def agrees(self, fit: Fit, point: Point) -> bool:
        """Whether the recording at ``point`` is what the fit says. Where the model cannot run, nothing is."""
        try:
            structure, sizes = self.at(point)
        except TraceError:
            return False
        if structure != fit.structure:
            return False
        known: dict[int, int] = {}
        for poly, size in zip(fit.sizes, sizes, strict=True):
            if id(poly) not in known:
                known[id(poly)] = value_at(poly, point)
            if known[id(poly)] != size:
                return False
        return True

    def all_agree(self, fit: Fit, points: Iterable[Point]) -> bool:
        """Whether the recordings at all of ``points`` are."""
        return all(self.agrees(fit, point) for point in points)

    def fit(self, places: Sequence[Place], *, one: bool) -> Fit | None:
        """Polynomials of degree 2 in the lengths and 1 in the batch through recordings at ``places``: one, three in a
        row, or six. None where the recordings do not go together."""
        first = (1 if one else FIT_BATCHES[0], *places[0])
        try:
            taken = [self.at((first[0], *place), keep=place == places[0]) for place in places]
        except TraceError:
            return None
        structure = taken[0][0]
        if any(other != structure for other, _ in taken):
            return None
        along = _through(places)
        try:
            columns = zip(*(sizes for _, sizes in taken), strict=True)
            sizes = interned(columns, along) if one else self._with_batch(places, taken, along)
        except ArithmeticError:
            return None
        return None if sizes is None else Fit(structure, sizes, first, one)

    def lone(self, place: Place, *, one: bool) -> Found:
        """What holds at a single place. Raises NotPolynomial where it is not linear in the batch."""
        fit = self.fit([place], one=one)
        checks = [point for point in self.points(one=one) if point[1:] == place]
        if fit is None or not self.all_agree(fit, checks if one else [(CHECK_BATCH, *place), *checks]):
            raise NotPolynomial(f"the sizes at lengths {place[0]}, {place[1]} are not linear in the batch")
        return fit, not one and self.agrees(fit, (1, *place))

    def _with_batch(
        self, places: Sequence[Place], taken: list[tuple[Any, list[int]]], along: Callable[[Sequence[int]], Any]
    ) -> list[Any] | None:
        """Most sizes do not depend on the batch, or are proportional to it; the rest is linear in it."""
        few, many = FIT_BATCHES
        structure, other = self.at((many, *places[0]))
        if structure != taken[0][0]:
            return None
        b, count = variable(0), len(places)

        def with_batch(column: tuple[int, ...]) -> Any:
            values, at_many = column[:count], column[count]
            if at_many == values[0]:
                return along(values)
            if at_many * few == values[0] * many and all(v % few == 0 for v in values):
                return b * along([v // few for v in values])
            raise LookupError

        def linear(column: tuple[int, ...]) -> Any:
            low, high = along(column[:count]), along(column[count:])
            return low + (b - few) * (high - low)

        try:
            return interned(zip(*(sizes for _, sizes in taken), other, strict=True), with_batch)
        except LookupError:
            again = [self.at((many, *place)) for place in places]
            if any(other != structure for other, _ in again):
                return None
            return interned(zip(*(sizes for _, sizes in (*taken, *again)), strict=True), linear)


def _through(places: Sequence[Place]) -> Callable[[Sequence[int]], Any]:
    """From values at ``places`` to the polynomial through them. It raises ArithmeticError where a coefficient is not a
    whole number: such sizes are floors."""
    rows, monomials = _interpolation(places)

    def along(values: Sequence[int]) -> Any:
        coefficients = [sum(f * v for f, v in zip(row, values, strict=True)) for row in rows]
        if any(c.denominator != 1 for c in coefficients):
            raise ArithmeticError
        return sum(int(c) * m for c, m in zip(coefficients, monomials, strict=True))

    return along


def _interpolation(places: Sequence[Place]) -> tuple[list[list[Fraction]], list[Any]]:
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
