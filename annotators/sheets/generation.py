"""Generation from a cost sheet: exact sums over the steps, in a time that the number of steps hardly changes.

Steps in a row on one piece are a run. What adds up is summed from the ends of the runs, what is of the last step is
evaluated there, and what is of the largest one at its turning points (:mod:`fxmeter.annotators.symbolic.sums`).
Generations are arrays; a single one is an array of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from fxmeter.annotators.sheets.grid import ExactArray, broadcast, counted, whole, with_derived
from fxmeter.annotators.sheets.piece import Part, Piece
from fxmeter.annotators.sheets.region import Point
from fxmeter.annotators.sheets.sheet import Find, Sheet
from fxmeter.annotators.symbolic import terms_of
from fxmeter.annotators.symbolic.guards import compare
from fxmeter.annotators.symbolic.sums import (
    PAST,
    Sums,
    can_only_grow,
    has_moving_atoms,
    largest_step,
    steps_that_hold,
)
from fxmeter.annotators.symbolic.values import Values
from fxmeter.models.errors import ScenarioError
from fxmeter.models.sizes import LARGEST_SIZE
from fxmeter.models.stage_cost import FIGURES, Size


class Runs:
    """Steps in a row on one piece, of each of several generations; the first of a run has ``past_len`` tokens cached.

    ``places`` says which generations.
    """

    def __init__(
        self,
        piece: Piece,
        places: np.ndarray,
        batch: np.ndarray,
        query_len: int,
        past_len: np.ndarray,
        steps: np.ndarray,
    ) -> None:
        self.piece, self.places, self.batch, self.query_len = piece, places, batch, query_len
        self.past_len, self.steps = past_len, steps
        self._sums = Sums(batch, query_len, past_len, steps)
        self._last = Values([batch, np.asarray(query_len), past_len + (steps - 1) * query_len])

    def point(self, step: int = 0) -> Point:
        """The sizes of a step of the first run."""
        return int(self.batch[0]), self.query_len, int(self.past_len[0]) + step * self.query_len

    def over_steps(self, value: Size, how: Literal["sum", "max", "last"]) -> np.ndarray:
        """A value's sum over the steps of each run, the most that it has at any of them, or what it is at the last."""
        if how == "sum":
            return self._sums.of(value)
        if how == "last" or can_only_grow(value):
            return self._last.of(value)
        return np.array([most for most, _ in self.largest_steps(value)], dtype=object)

    def largest_steps(self, value: Size) -> Iterator[tuple[int, int]]:
        """Of each run the most that a value has at any step, and the last step that has it."""
        sizes = zip(self.batch.tolist(), self.past_len.tolist(), self.steps.tolist(), strict=True)
        return (largest_step(value, batch, self.query_len, past_len, steps) for batch, past_len, steps in sizes)


def runs_of(find: Find, batch: np.ndarray, query_len: int, past_len: np.ndarray, steps: np.ndarray) -> Iterator[Runs]:
    """Generations cut into runs, those of each one in the order of its steps. The arrays are one-dimensional; ``find``
    gives the pieces."""
    places = np.arange(len(batch))
    now, open_steps = past_len.copy(), steps.copy()
    while len(places):
        last = places[-1]
        piece = find((int(batch[last]), query_len, int(now[last])))
        counts = _steps_on(piece, batch[places], query_len, now[places], open_steps[places])
        here, counts = places[counts > 0], counts[counts > 0]
        yield Runs(piece, here, batch[here], query_len, now[here], counts)
        now[here] += counts * query_len
        open_steps[here] -= counts
        places = places[open_steps[places] > 0]


def _steps_on(piece: Piece, batch: np.ndarray, query_len: int, past_len: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """How many steps in a row from the first on ``piece`` is right for."""
    region = piece.region
    counts = steps.copy()
    highs = (region.upper[PAST], None if region.sums[1] is None else region.sums[1] - query_len)
    for high in highs:
        if high is not None:
            counts = np.minimum(counts, (high - past_len) // query_len + 1)
    counts = np.where(region.contains(batch, query_len, past_len), counts, 0)
    here = np.flatnonzero(counts)
    first = Values([batch[here], np.asarray(query_len), past_len[here]])
    last = Values([batch[here], np.asarray(query_len), past_len[here] + (counts[here] - 1) * query_len])
    for guard in piece.guards:
        ends = [np.broadcast_to(values.of(guard.value), here.shape) for values in (first, last)]
        holds = [np.asarray(compare(numbers, guard.relation), dtype=bool) for numbers in ends]
        same_side = np.asarray((ends[0] < 0) == (ends[1] < 0), dtype=bool)
        sure = holds[0] & holds[1] & same_side & _is_straight(guard.value)
        for index in here[~sure]:
            sizes = int(batch[index]), query_len, int(past_len[index]), int(counts[index])
            counts[index] = steps_that_hold(guard, *sizes)
    return counts


def _is_straight(value: Size) -> bool:
    """Whether a value changes with the past length at an even pace."""
    return all(exponents[PAST] <= 1 for exponents, _ in terms_of(value)) and not has_moving_atoms(value)


METHODS = {"sum": ExactArray.add, "max": ExactArray.grow, "last": ExactArray.put}
"""How what a run has of a figure is put to that of the runs before it."""


def _totals(runs: Iterable[Runs], part: Part, fields: Sequence[str], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Fields of a part of the pass over all steps of generations; ``runs`` are in their order."""
    figures = {name: ExactArray(shape) for name in fields}
    for run in runs:
        cost = run.piece.cost_of(part)
        for name, figure in figures.items():
            how = FIGURES[name].over_steps
            values = run.over_steps(getattr(cost, name), how)
            METHODS[how](figure, run.places, values)
    return {name: figure.array() for name, figure in figures.items()}


def evaluate_generation(
    sheet: Sheet, part: Part, *, batch: ArrayLike, past_len: ArrayLike, steps: ArrayLike, fields: Sequence[str]
) -> dict[str, np.ndarray]:
    """FLOPs and traffic summed over the steps, activations and peaks of the largest one, cache and weights of the last,
    for arrays of sizes that broadcast."""
    sizes = {
        "batch": whole("batch", batch, 1),
        "past_len": whole("past_len", past_len, 0),
        "steps": whole("steps", steps, 1),
    }
    shape = broadcast(sizes)
    batches, pasts, counts = (np.broadcast_to(size, shape).ravel() for size in sizes.values())
    if len(pasts) and int((pasts + counts).max()) > LARGEST_SIZE:
        raise ScenarioError(
            f"past_len + steps is {int((pasts + counts).max())}; the largest accepted is {LARGEST_SIZE:,}"
        )
    totals = _totals(runs_of(sheet.piece, batches, 1, pasts, counts), part, counted(fields), shape)
    return with_derived(totals, fields)
