"""Where the sizes of a recording are which polynomials.

The sizes of one pass depend on a batch B and two lengths (x, y): query and past length, or rows and columns of crops.
The plane of (x, y) is cut into pieces:

    y │        inside: both above their least value
      │
    y₀├──── edge ────▶ x        an edge of its own, because a length of one, or an empty cache, takes other code
      x₀

Along each edge regions are found one after another: sizes are interpolated at the beginning of a region, in
polynomials of degree 2, and held to recordings further on; where one differs, the last length that still agrees is
searched for. Inside, the plane is cut along the breakpoints of both edges, in x, in y, and in x + y. What fits no
polynomial stays without a region. Whether one sequence goes with several is found out by recordings of both.

**What this rests on.** That a fit holds between the recordings that it was held to is not proved, since a model's code
can do anything. A region is held to recordings that it was not made from: near its beginning, at a random place and
batch inside, at its far end or corners (2^20 tokens where it has no end, batch 611), at every point that was asked for
first or recorded for another reason, and wherever the search for a breakpoint went. Ops must be the same, one by one,
and every size. A change that stays a change (a window, a cache that is cut or compressed, code for long inputs) makes
the far end differ and is found. What could slip through is a model whose sizes leave a polynomial and come back to the
very same one between those places, such as one that treats a few lengths by name, and inside the plane a breakpoint
that is on neither edge and that none of the corners and random places shows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from fxmeter.annotators.shapes.cells import Cell
from fxmeter.annotators.shapes.edges import Edge, OpenPlace
from fxmeter.annotators.shapes.samples import CHECK_BATCH, FIT_BATCHES, Fit, Record, Samples
from fxmeter.annotators.sheets.region import Interval, Place, Point, SizeRegion
from fxmeter.annotators.symbolic import NotPolynomial
from fxmeter.models.errors import FxmeterError, TraceError
from fxmeter.tracer.capture.recording import Recording

NO_LENGTH = 3
"""Numbers up to this in a config are no use as hints: the first lengths of an edge are recorded anyway."""


class Regions:
    """Finds regions on demand. ``least`` are x₀ and y₀, ``top`` the farthest (x, y) recorded to check (the same
    where only the batch varies), and ``hints``
    lengths at which something may change (a window's size)."""

    def __init__(self, record: Record, *, least: Place, top: Place, hints: Iterable[int]) -> None:
        self._least, self._top = least, top
        self._hints = sorted({h + d for h in hints for d in (-2, -1, 0, 1, 2)})
        self._edges: dict[tuple[int, bool], Edge] = {}
        self._alike: dict[tuple[bool, bool], bool] = {}
        self.samples = Samples(record)
        self.found: dict[SizeRegion, Recording] = {}
        """Every region found so far, and its recording, polynomials in the place of its sizes."""

    def find(self, point: Point) -> SizeRegion:
        """The region that ``point`` is in. Raises NotPolynomial where there is none, or TraceError.

        Every region is held to what was asked for, unless that cannot be recorded: torch has no storage of 2^63 bytes.
        """
        region = self._known(point)
        if region is not None:
            return region
        failure: FxmeterError = NotPolynomial(f"no polynomial gives the sizes at {point}")
        kinds: tuple[bool, ...] = (True, False) if point[0] == 1 else (False,)
        try:
            self.samples.at(point, keep=True)
            kinds = self._kinds_of_batch(point)
        except TraceError as error:
            failure = error
        for one in kinds:
            try:
                self._explore(point, one)
            except NotPolynomial as error:
                failure = failure if isinstance(failure, TraceError) else error
            region = self._known(point)
            if region is not None:
                return region
        if isinstance(failure, NotPolynomial) and self._asked_with_other_batches(point):
            self._lone(point[1:], one=False)  # of several batches at these lengths: the batch, at least, goes by a form
            region = self._known(point)
        if region is None:
            raise failure
        return region

    def _asked_with_other_batches(self, point: Point) -> bool:
        """Whether this is not the first batch of several sequences at its lengths. One alone is a recording, a form for
        all of them five."""
        batch, *place = point
        return batch > 1 and any([*at] == place and b != batch for b, *at in self.samples.points(one=False))

    def reach(self, axis: int) -> None:
        """Find every region along an axis, of several sequences. Raises NotPolynomial where there are none, or too
        many."""
        self._edge(axis, one=False).reach(self._top[axis])

    def _known(self, point: Point) -> SizeRegion | None:
        return next((region for region in self.found if region.contains(*point)), None)

    def _kinds_of_batch(self, point: Point) -> tuple[bool, ...]:
        """Whether to look among regions of one sequence (True) or of several, the likelier first."""
        if point[0] > 1:
            return (False,)
        where = point[1] > self._least[0], point[2] > self._least[1]
        if where not in self._alike:
            structure, _ = self.samples.at(point)
            other, _ = self.samples.at((FIT_BATCHES[0], *point[1:]))
            self._alike[where] = structure == other
        return (False, True) if self._alike[where] else (True, False)

    def _explore(self, point: Point, one: bool) -> None:
        _, x, y = point
        x0, y0 = self._least
        if x > x0 and y > y0:
            self._inside((x, y), one)
        elif x > x0 and y == y0:
            self._edge(0, one).reach(x)
        elif x == x0 and y > y0:
            self._edge(1, one).reach(y)
        else:
            if (x, y) == (x0, y0) != self._top:  # the edge along x may well begin here
                with contextlib.suppress(NotPolynomial):
                    self._edge(0, one).reach(x0 + 1)
                if self._known((1 if one else 2, x, y)) is not None:
                    return
            self._lone((x, y), one)

    def _edge(self, axis: int, one: bool) -> Edge:
        if (axis, one) not in self._edges:
            self._edges[axis, one] = Edge(self.samples, axis, one, self._least, self._top[axis], self._hints, self._add)
        return self._edges[axis, one]

    def _add(self, fit: Fit, low: Place, high: OpenPlace, sums: Interval = (0, None)) -> None:
        region = SizeRegion((fit.batches[0], *low), (fit.batches[1], *high), sums)
        self.found[region] = self.samples.with_sizes(fit)

    def _lone(self, place: Place, one: bool) -> None:
        self._add(self.samples.lone(place, one=one), place, place)

    def _inside(self, place: Place, one: bool) -> None:
        for axis in (0, 1):
            self._edge(axis, one).reach(self._top[axis])
        walls = tuple(set().union(*(e.walls() for e in self._edges.values() if e.axis == axis)) for axis in (0, 1))
        cell = Cell.around(place, (walls[0], walls[1]), self._least)
        places = cell.six_places(place)
        fit = None if places is None else self.samples.fit(places, one=one)
        if fit is None or not self.samples.all_agree(fit, self._checks(cell, place, one)):
            self._lone(place, one)
            return
        if not one:
            fit = self.samples.with_one(fit, [(1, *place), (1, *fit.at[1:]), *self._taken(cell, one=True)])
        self._add(fit, (cell.xs[0], cell.ys[0]), (cell.xs[1], cell.ys[1]), cell.sums)

    def _checks(self, cell: Cell, place: Place, one: bool) -> list[Point]:
        """Where a fit in a cell is held to recordings: where it was asked for, far away, and where there are any."""
        batch = 1 if one else CHECK_BATCH
        return [(batch, *each) for each in (place, *cell.far_places(self._top))] + self._taken(cell, one)

    def _taken(self, cell: Cell, one: bool) -> list[Point]:
        return [point for point in self.samples.points(one=one) if cell.holds(point[1:])]


def config_lengths(config: object) -> set[int]:
    """The whole numbers in a config, nested ones included: lengths at which a model may change its ways."""
    if hasattr(config, "to_dict"):
        return config_lengths(config.to_dict())
    if isinstance(config, (dict, list, tuple)):
        parts = config.values() if isinstance(config, dict) else config
        return set().union(*map(config_lengths, parts))
    if isinstance(config, int) or (isinstance(config, float) and config.is_integer()):
        return {int(config)} if config > NO_LENGTH else set()
    return set()
