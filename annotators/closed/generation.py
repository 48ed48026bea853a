"""Generation from the closed form: exact sums over the steps, in a time that the number of steps hardly changes.

Steps in a row on one piece are a run, and over a run the sum of a polynomial in the past length is a polynomial in its
ends (:mod:`fxmeter.annotators.symbolic.sums`). What is of the last step is evaluated there, what is of the largest
at its turning points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fxmeter.annotators.closed.grid import broadcast, figures, named, whole
from fxmeter.annotators.shapes.pieces import Piece, Pieces
from fxmeter.annotators.stages.rollup import AnnotatedStage, ModuleCost, ModuleCosts, op_costs
from fxmeter.annotators.stages.steps import OF_THE_LARGEST_STEP, OF_THE_LAST_STEP, over_steps
from fxmeter.annotators.symbolic import compared, powers, terms_of, value_at, variable, variables_of
from fxmeter.annotators.symbolic.sums import PAST, can_only_grow, largest_step, power_sum, steps_that_hold, summed
from fxmeter.annotators.symbolic.values import SAFE, Values
from fxmeter.models.errors import ScenarioError
from fxmeter.models.scenario import Scenario
from fxmeter.models.sizes import LARGEST_SIZE
from fxmeter.models.stage_cost import FIELDS, StageCost


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of several generations on one piece (None: a step without a closed form, each a run of its own).

    ``places`` says which generations, ``past_len`` where each run begins and ``steps`` how long it is.
    """

    piece: Piece | None
    places: np.ndarray
    past_len: np.ndarray
    steps: np.ndarray


def runs_of(
    pieces: Pieces, batch: np.ndarray, query_len: int, past_len: np.ndarray, steps: np.ndarray
) -> Iterator[Runs]:
    """Generations cut into runs, those of each one in the order of its steps. The arrays are one-dimensional."""
    places = np.arange(len(batch))
    now, left = past_len.copy(), steps.copy()
    while len(places):
        first = int(places[-1])
        piece = pieces.piece((int(batch[first]), query_len, int(now[first])))
        if piece is None:
            here, counts = places[-1:], np.ones(1, dtype=np.int64)
        else:
            counts = _steps_on(piece, batch[places], query_len, now[places], left[places])
            here, counts = places[counts > 0], counts[counts > 0]
        yield Runs(piece, here, now[here], counts)
        now[here] += counts * query_len
        left[here] -= counts
        places = places[left[places] > 0]


def _steps_on(piece: Piece, batch: np.ndarray, query_len: int, past_len: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """How many steps in a row from the first on ``piece`` is right for."""
    region = piece.region
    counts = steps.copy()
    highs = (region.upper[PAST], None if region.sums[1] is None else region.sums[1] - query_len)
    for high in highs:
        if high is not None:
            counts = np.minimum(counts, (high - past_len) // query_len + 1)
    counts = np.where(region.contains(batch, query_len, past_len), counts, 0)
    sizes = np.array(query_len)
    here = np.flatnonzero(counts)
    first = Values([batch[here], sizes, past_len[here]])
    last = Values([batch[here], sizes, past_len[here] + (counts[here] - 1) * query_len])
    for condition in piece.conditions:
        ends = [np.broadcast_to(values.of(condition.value), here.shape) for values in (first, last)]
        holds = [
            value >= 0 if condition.relation == ">=" else (value == 0) == (condition.relation == "==") for value in ends
        ]
        sure = holds[0] & holds[1] & (_is_straight(condition.value) & ((ends[0] < 0) == (ends[1] < 0)))
        for index in here[~sure.astype(bool)]:
            counts[index] = steps_that_hold(
                condition, int(batch[index]), query_len, int(past_len[index]), int(counts[index])
            )
    return counts


def _is_straight(value: Any) -> bool:
    """Whether a value changes with the past length at an even pace."""
    degrees = [(index, exponent) for key in terms_of(value) for index, exponent in powers(key)]
    return all(
        exponent == 1 if index == PAST else PAST not in variables_of(variable(index)) for index, exponent in degrees
    )


# Totals of many generations


def evaluate_generation(
    pieces: Pieces, path: str, *, batch: Any, past_len: Any, steps: Any, fields: Sequence[str]
) -> dict[str, np.ndarray]:
    """FLOPs and traffic summed over the steps, activations and peaks of the largest one, cache and weights of the last,
    for arrays of sizes that broadcast."""
    needed = named(fields)
    given = {
        "batch": whole("batch", batch, 1),
        "past_len": whole("past_len", past_len, 0),
        "steps": whole("steps", steps, 1),
    }
    shape = broadcast(given)
    batches, pasts, counts = (np.broadcast_to(size, shape).ravel() for size in given.values())
    if len(pasts) and int((pasts + counts).max()) > LARGEST_SIZE:
        raise ScenarioError(
            f"past_len + steps is {int((pasts + counts).max())}; the largest accepted is {LARGEST_SIZE:,}"
        )
    totals = {name: _Total(len(batches)) for name in needed}
    final = pasts + counts - 1
    for run in runs_of(pieces, batches, 1, pasts, counts):
        b = batches[run.places]
        ends = run.past_len + run.steps - 1
        ending = ends == final[run.places]
        if run.piece is None:
            stage = pieces.annotate((int(b[0]), 1, int(run.past_len[0])))
            cost = stage.modules[path].cost
        else:
            cost = run.piece.modules[path].cost
        sums, last = Values([b, run.steps, run.past_len]), Values([b[ending], np.array(1), ends[ending]])
        for name in needed:
            value = getattr(cost, name)
            if name in OF_THE_LAST_STEP:
                totals[name].add(run.places[ending], last.of(value))
                continue
            if name in OF_THE_LARGEST_STEP:
                totals[name].grow(run.places, _largest(value, b, run))
                continue
            whole_run = summed(compared(value), 1)
            if whole_run is None:
                totals[name].add(run.places, _one_by_one(value, b, run))
            else:
                totals[name].add(run.places, sums.of(whole_run))
    return figures({name: total.array.reshape(shape) for name, total in totals.items()}, fields)


class _Total:
    """A sum over runs, or the largest, of int64 as long as nothing can overflow."""

    def __init__(self, count: int) -> None:
        self.array = np.zeros(count, dtype=np.int64)
        self._most = 0

    def add(self, places: np.ndarray, values: np.ndarray) -> None:
        """Add ``values`` at ``places``, which are different ones."""
        if not len(places):
            return
        self._most += max(abs(int(values.max())), abs(int(values.min())))
        if self._most >= SAFE or object in (values.dtype, self.array.dtype):
            self.array, values = self.array.astype(object), values.astype(object)
        self.array[places] += values

    def grow(self, places: np.ndarray, values: np.ndarray) -> None:
        """Have at ``places`` at least ``values``."""
        if object in (values.dtype, self.array.dtype):
            self.array, values = self.array.astype(object), values.astype(object)
        self.array[places] = np.maximum(self.array[places], values)


def _largest(value: Any, batch: np.ndarray, run: Runs) -> np.ndarray:
    """The most that a value has in each run."""
    if can_only_grow(value):
        return Values([batch, np.array(1), run.past_len + run.steps - 1]).of(value)
    sizes = zip(batch.tolist(), run.past_len.tolist(), run.steps.tolist(), strict=True)
    return np.array([largest_step(value, b, 1, past, count)[0] for b, past, count in sizes], dtype=object)


def _one_by_one(value: Any, batch: np.ndarray, run: Runs) -> np.ndarray:
    """Sums of a value that no polynomial sums up."""
    return np.array(
        [
            sum(
                np.broadcast_to(
                    Values([np.array(b), np.array(1), past + np.arange(count)]).of(value), (count,)
                ).tolist()
            )
            for b, past, count in zip(batch, run.past_len, run.steps, strict=True)
        ],
        dtype=object,
    )


# One generation in full


@dataclass(frozen=True, slots=True)
class Run:
    """``steps`` steps in a row on one piece, the first with ``past_len`` tokens cached, ``query_len`` tokens a step."""

    piece: Piece
    batch: int
    query_len: int
    past_len: int
    steps: int
    _powers: dict[int, int] = field(default_factory=dict)

    def summed(self, cost: StageCost) -> StageCost:
        """Fields that add up, summed over the run; the others at its largest or at its last step."""
        values = {}
        for name in FIELDS:
            value = getattr(cost, name)
            if name in OF_THE_LAST_STEP:
                values[name] = value_at(value, self.point(self.steps - 1))
            else:
                values[name] = self.largest(value)[0] if name in OF_THE_LARGEST_STEP else self.sum(value)
        return StageCost(**values)

    def point(self, step: int) -> tuple[int, int, int]:
        """The sizes of a step of the run, from 0."""
        return self.batch, self.query_len, self.past_len + step * self.query_len

    def largest(self, value: Any) -> tuple[int, int]:
        """The most that a polynomial has at any step, and the last step that has it."""
        return largest_step(value, self.batch, self.query_len, self.past_len, self.steps)

    def sum(self, value: Any) -> int:
        """Of a polynomial's values at every step."""
        total: Any = 0
        first = (self.batch, self.query_len, self.past_len)
        for key, coefficient in terms_of(value).items():
            degree = 0
            for index, exponent in powers(key):
                if index == PAST:
                    degree = exponent
                elif PAST in variables_of(variable(index)):
                    pasts = self.past_len + np.arange(self.steps, dtype=np.int64) * self.query_len
                    values = Values([np.array(self.batch), np.array(self.query_len), pasts]).of(value)
                    return sum(values.tolist())
                else:
                    coefficient = coefficient * value_at(variable(index), first) ** exponent
            total += coefficient * self._power_sum(degree)
        return int(total)

    def _power_sum(self, degree: int) -> int:
        if degree not in self._powers:
            at = (self.batch, self.steps, self.past_len)
            self._powers[degree] = value_at(power_sum(self.query_len, degree), at)
        return self._powers[degree]


def generate(pieces: Pieces, scenario: Scenario) -> AnnotatedStage | None:
    """A generation, all modules and ops of it; None where it has no closed form.

    Its graph, recording and cache are those of the last step, which is recorded, as is the one with the largest peak.
    """
    start = (np.array([size]) for size in (scenario.batch, scenario.past_len, scenario.steps))
    batch, past_len, steps = start
    found = []
    for run in runs_of(pieces, batch, scenario.query_len, past_len, steps):
        if run.piece is None or run.piece.uncosted:
            return None
        found.append(Run(run.piece, scenario.batch, scenario.query_len, int(run.past_len[0]), int(run.steps[0])))
    final = scenario.step(scenario.steps - 1)
    last = pieces.annotate((final.batch, final.query_len, final.past_len))
    modules = {
        path: ModuleCost(
            path,
            module.class_name,
            module.times,
            over_runs(found, lambda piece, path=path: piece.modules[path].cost),  # type: ignore[misc]
            over_runs(found, lambda piece, path=path: piece.modules[path].own),  # type: ignore[misc]
        )
        for path, module in last.modules.items()
    }
    return AnnotatedStage(
        scenario=scenario,
        attention=last.attention,
        conventions=last.conventions,
        cost=modules[""].cost,
        modules=ModuleCosts(modules, last.recording.folds()),
        ops=op_costs(dict(_ops(found))),
        kv_cache=last.kv_cache,
        uncosted=(),
        floor_io_bytes=sum(run.sum(run.piece.floor_io_bytes) for run in found),
        graph=last.graph,
        recording=last.recording,
        fullest_step=pieces.annotate(_fullest(found)),
    )


def _fullest(found: Sequence[Run]) -> tuple[int, int, int]:
    """The sizes of the last step with the largest peak."""
    most, point = -1, (0, 0, 0)
    for run in found:
        peak, step = run.largest(run.piece.modules[""].cost.peak_activation_bytes)
        if peak >= most:
            most, point = peak, run.point(step)
    return point


def over_runs(found: Sequence[Run], cost_of: Callable[[Piece], StageCost]) -> StageCost:
    """The cost of all steps of what ``cost_of`` picks from each piece."""
    return over_steps([run.summed(cost_of(run.piece)) for run in found])


def _ops(found: Sequence[Run]) -> Iterator[tuple[str, tuple[int, StageCost]]]:
    names: Mapping[str, None] = dict.fromkeys(op for run in found for op in run.piece.ops)
    for op in names:
        having = [run for run in found if op in run.piece.ops]
        count = sum(run.piece.ops[op][0] * run.steps for run in having)
        yield op, (count, over_runs(having, lambda piece, op=op: piece.ops[op][1]))  # type: ignore[misc]
