"""Recordings at a few points, and the polynomials that go through their sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from fxmeter.annotators.shapes.skeleton import Sizes, Structure, interned, put_together, take_apart
from fxmeter.annotators.sheets.region import Interval, Place, Point
from fxmeter.annotators.symbolic import NotPolynomial, rounded_up, value_at, variable
from fxmeter.models.errors import TraceError
from fxmeter.models.stage_cost import Size
from fxmeter.tracer.capture.recording import Recording

Record: TypeAlias = Callable[..., Recording]
"""Of a point, and, where ranks share rows unevenly, of how many more than its own the fullest one has."""
Sample: TypeAlias = tuple[Structure, Sizes]
Column: TypeAlias = tuple[int, ...]
"""The values of one size at several points."""

FIT_BATCHES = (2, 3)
"""Batches that fits are made from: the least that run as several sequences do; two of them determine a line."""
CHECK_BATCH = 611
"""A batch that fits are held to: far from those they are made from, and a prime, which no rounding of a batch to blocks
leaves as it is."""
LIMITS: dict[bool, Interval] = {True: (1, 1), False: (2, None)}
"""Batches of a fit for one sequence, and of a fit for several."""


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """Polynomials for every size of a recording, in the order of
    :func:`fxmeter.annotators.shapes.skeleton.take_apart`, and for which ``batches``; ``at`` is the first point that
    they were made from."""

    structure: Structure
    sizes: Sequence[Size]
    at: Point
    batches: Interval


class Samples:
    """Recordings taken apart, each point once."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._taken: dict[Point, Sample] = {}
        self._one_more: dict[Point, Sample] = {}
        self._whole: tuple[Point, Recording] | None = None

    def __len__(self) -> int:
        return len(self._taken) + len(self._one_more)

    def points(self, *, one: bool) -> list[Point]:
        """Where recordings were taken, of a batch of 1 or of larger ones."""
        return [point for point in self._taken if (point[0] == 1) == one]

    def at(self, point: Point, *, keep: bool = False) -> Sample:
        """(structure, sizes) of the recording at a point. ``keep`` holds on to the recording itself, the last one."""
        if point not in self._taken:
            recording = self._record(point)
            self._taken[point] = take_apart(recording)
            if keep:
                self._whole = point, recording
        return self._taken[point]

    def recording(self, point: Point) -> Recording:
        """The recording at a point: the one that was kept last, where it is of this point."""
        kept, self._whole = self._whole, None
        return kept[1] if kept is not None and kept[0] == point else self._record(point)

    def _by_rows(self, point: Point) -> tuple[Sample, Sample]:
        """The sizes at a point as (what does not go by the rows of a rank, what each of its rows adds). Raises
        NotPolynomial where one row more makes other ops."""
        structure, sizes = self.at(point)
        if point not in self._one_more:
            self._one_more[point] = take_apart(self._record(point, 1))
        other, more = self._one_more[point]
        if other != structure:
            raise NotPolynomial("the ops of a rank change with its rows")
        rows = rounded_up(sizes[-1], shared_by(structure))
        each = [high - low for low, high in zip(sizes, more, strict=True)]
        return (structure, [size - rows * one for size, one in zip(sizes, each, strict=True)]), (structure, each)

    def with_sizes(self, fit: Fit) -> Recording:
        """The recording that the fit began with, polynomials in the place of its sizes."""
        return put_together(self.recording(fit.at), fit.sizes)

    def agrees(self, fit: Fit, point: Point) -> bool:
        """Whether the recording at ``point`` is what the fit says. Where the model cannot run, nothing is."""
        try:
            structure, sizes = self.at(point)
        except TraceError:
            return False
        if structure != fit.structure:
            return False
        values: dict[int, int] = {}
        for polynomial, size in zip(fit.sizes, sizes, strict=True):
            if id(polynomial) not in values:
                values[id(polynomial)] = value_at(polynomial, point)
            if values[id(polynomial)] != size:
                return False
        return True

    def all_agree(self, fit: Fit, points: Iterable[Point]) -> bool:
        """Whether the recordings at all of ``points`` are."""
        return all(self.agrees(fit, point) for point in points)

    def with_one(self, fit: Fit, singles: Iterable[Point]) -> Fit:
        """A fit for several sequences, made one for a single sequence too where it agrees with recordings of one."""
        return replace(fit, batches=(1, None)) if self.all_agree(fit, singles) else fit

    def fit(self, places: Sequence[Place], *, one: bool) -> Fit | None:
        """Polynomials of degree 2 in the lengths and 1 in the batch through recordings at ``places``: one, three in a
        row, or six; of sizes that go by a rank's part of what ranks share unevenly, with that part as a floor in them.
        None where the recordings do not go together."""
        try:
            structure, _ = self.at((1 if one else FIT_BATCHES[0], *places[0]), keep=True)
            if not shared_by(structure):
                return self._fit(places, self.at, one=one)
            fixed = self._fit(places, lambda point: self._by_rows(point)[0], one=one)
            each = self._fit(places, lambda point: self._by_rows(point)[1], one=one)
        except (NotPolynomial, TraceError):
            return None
        if fixed is None or each is None:
            return None
        rows = rounded_up(fixed.sizes[-1], shared_by(structure))
        made: dict[tuple[int, int], Size] = {}
        pairs = list(zip(fixed.sizes, each.sizes, strict=True))
        for size, one_row in pairs:
            made.setdefault((id(size), id(one_row)), size + rows * one_row)
        return replace(fixed, sizes=[made[id(size), id(one_row)] for size, one_row in pairs])

    def _fit(self, places: Sequence[Place], sample: Callable[[Point], Sample], *, one: bool) -> Fit | None:
        """Through what ``sample`` has of points. Raises NotPolynomial or TraceError, as what it calls does."""
        batch = 1 if one else FIT_BATCHES[0]
        taken = [sample((batch, *place)) for place in places]
        structure = taken[0][0]
        if any(other != structure for other, _ in taken):
            return None
        along = _through(places)
        sizes = interned(_columns(taken), along) if one else self._with_batch(places, taken, along, sample)
        return None if sizes is None else Fit(structure, sizes, (batch, *places[0]), LIMITS[one])

    def lone(self, place: Place, *, one: bool) -> Fit:
        """What holds at a single place. Raises NotPolynomial where it is not linear in the batch."""
        fit = self.fit([place], one=one)
        checks = [point for point in self.points(one=one) if point[1:] == place]
        if fit is None or not self.all_agree(fit, checks if one else [(CHECK_BATCH, *place), *checks]):
            raise NotPolynomial(f"the sizes at lengths {place[0]}, {place[1]} are not linear in the batch")
        return fit if one else self.with_one(fit, [(1, *place)])

    def _with_batch(
        self,
        places: Sequence[Place],
        taken: Sequence[Sample],
        along: Callable[[Column], Size],
        sample: Callable[[Point], Sample],
    ) -> Sequence[Size] | None:
        """Most sizes do not depend on the batch, or are proportional to it; the rest is linear in it."""
        few, many = FIT_BATCHES
        structure, _ = taken[0]
        count, b = len(places), variable(0)

        def proportional(column: Column) -> Size | None:
            values, at_many = column[:count], column[count]
            if at_many == values[0]:
                return along(values)
            if at_many * few == values[0] * many and all(value % few == 0 for value in values):
                return b * along(tuple(value // few for value in values))
            return None

        def linear(column: Column) -> Size:
            low, high = along(column[:count]), along(column[count:])
            return low + (b - few) * (high - low)

        other = [sample((many, *places[0]))]
        if other[0][0] != structure:
            return None
        sizes = interned(_columns([*taken, *other]), proportional)
        if any(size is None for size in sizes):
            others = [*other, *(sample((many, *place)) for place in places[1:])]
            if any(different != structure for different, _ in others):
                return None
            sizes = interned(_columns([*taken, *others]), linear)
        return sizes


def _columns(samples: Sequence[Sample]) -> Iterable[Column]:
    return zip(*(sizes for _, sizes in samples), strict=True)


def shared_by(structure: Structure) -> int:
    """How many ranks share rows unevenly; 0 where none do."""
    ranks = structure[-1] if structure else None
    return ranks if isinstance(ranks, int) else 0


def _through(places: Sequence[Place]) -> Callable[[Column], Size]:
    """From values at ``places``, neighbours, to the polynomial through them, by Newton's differences. It raises
    NotPolynomial where a coefficient is not a whole number: such sizes are floors."""
    if len(places) == 1:
        return lambda column: column[0]
    (x, y), (x_next, _), (_, y_third) = places[:3]
    if len(places) == 3:
        u = variable(1) - x if x_next != x else variable(2) - y
        second = u * (u - 1)
        return lambda column: column[0] + u * (column[1] - column[0]) + second * _bend(*column)
    u, v = (variable(1) - x) * (x_next - x), (variable(2) - y) * (y_third - y)
    u_second, v_second, both = u * (u - 1), v * (v - 1), u * v

    def through_six(column: Column) -> Size:
        origin, in_x, in_y, in_x_twice, in_both, in_y_twice = column
        straight = origin + u * (in_x - origin) + v * (in_y - origin)
        bends = u_second * _bend(origin, in_x, in_x_twice) + v_second * _bend(origin, in_y, in_y_twice)
        return straight + bends + both * (in_both - in_x - in_y + origin)

    return through_six


def _bend(first: int, second: int, third: int) -> int:
    """Half the second difference of three values in a row."""
    half, odd = divmod(third - 2 * second + first, 2)
    if odd:
        raise NotPolynomial("a size follows a polynomial whose coefficients are not whole numbers")
    return half
