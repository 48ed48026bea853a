"""Generation from the closed form: exact sums over the steps, in a time that the number of steps hardly changes.

Steps in a row on one piece are a run. What adds up is summed from the ends of the runs, what is of the last step is
evaluated there, and what is of the largest one at its turning points (:mod:`fxmeter.annotators.symbolic.sums`).
Generations are arrays; a single one is an array of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal

import networkx as nx
import numpy as np
from numpy.typing import ArrayLike

from fxmeter.annotators.closed.grid import ExactArray, broadcast, counted, whole, with_derived
from fxmeter.annotators.closed.times import time_of_steps
from fxmeter.annotators.shapes.pieces import Piece, Pieces
from fxmeter.annotators.shapes.region import Point
from fxmeter.annotators.stages.rollup import AnnotatedStage, ModuleCosts, op_costs
from fxmeter.annotators.stages.steps_graph import StepsAlike, graph_of_steps, is_of_the_largest_step
from fxmeter.annotators.symbolic import terms_of, value_at
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
from fxmeter.models.figures import Figure
from fxmeter.models.scenario import Scenario
from fxmeter.models.sizes import LARGEST_SIZE
from fxmeter.models.stage_cost import FIELDS, FIGURES, ZERO, Size, StageCost


class Runs:
    """Steps in a row on one piece, of each of several generations; the first of a run has ``past_len`` tokens cached.

    ``places`` says which generations. Without a ``piece`` there is one run, of one step, which has no closed form.
    """

    def __init__(
        self,
        piece: Piece | None,
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


def runs_of(
    pieces: Pieces, batch: np.ndarray, query_len: int, past_len: np.ndarray, steps: np.ndarray
) -> Iterator[Runs]:
    """Generations cut into runs, those of each one in the order of its steps. The arrays are one-dimensional."""
    places = np.arange(len(batch))
    now, open_steps = past_len.copy(), steps.copy()
    while len(places):
        last = places[-1]
        piece = pieces.piece((int(batch[last]), query_len, int(now[last])))
        if piece is None:
            here, counts = places[-1:], np.ones(1, dtype=np.int64)
        else:
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


_METHODS = {"sum": ExactArray.add, "max": ExactArray.grow, "last": ExactArray.put}


def _totals(
    runs: Iterable[Runs], cost_of: Callable[[Runs], StageCost], fields: Sequence[str], shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Fields over all steps of generations of which ``cost_of`` gives the polynomials; ``runs`` are in their order."""
    figures = {name: ExactArray(shape) for name in fields}
    for run in runs:
        cost = cost_of(run)
        for name, figure in figures.items():
            how = FIGURES[name].over_steps
            values = run.over_steps(getattr(cost, name), how)
            _METHODS[how](figure, run.places, values)
    return {name: figure.array() for name, figure in figures.items()}


def evaluate_generation(
    pieces: Pieces, path: str, *, batch: ArrayLike, past_len: ArrayLike, steps: ArrayLike, fields: Sequence[str]
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

    def cost_of(run: Runs) -> StageCost:
        modules = pieces.annotate(run.point()).modules if run.piece is None else run.piece.modules
        return modules[path].cost

    totals = _totals(runs_of(pieces, batches, 1, pasts, counts), cost_of, counted(fields), shape)
    return with_derived(totals, fields)


def generate(pieces: Pieces, scenario: Scenario) -> AnnotatedStage | None:
    """A generation, all modules and ops of it; None where it has no closed form.

    Its recording and cache are those of the last step, which is recorded, as is the one with the largest peak.
    """
    batch, past_len, steps = (np.array([size]) for size in (scenario.batch, scenario.past_len, scenario.steps))
    runs: list[tuple[Runs, Piece]] = []
    for run in runs_of(pieces, batch, scenario.query_len, past_len, steps):
        if run.piece is None or run.piece.uncosted:
            return None
        runs.append((run, run.piece))

    most_made = _largest(runs, "activation_bytes")

    def total(cost_in: Callable[[Piece], StageCost]) -> StageCost:
        costs = {run: cost_in(piece) for run, piece in runs}
        return StageCost(**{name: _over_all(costs, most_made, name) for name in FIELDS})

    last = pieces.annotate(_point_of(scenario.step(scenario.steps - 1)))
    modules = {
        path: replace(
            module,
            cost=total(lambda piece, path=path: piece.modules[path].cost),  # type: ignore[misc]
            own=total(lambda piece, path=path: piece.modules[path].own),  # type: ignore[misc]
        )
        for path, module in last.modules.items()
    }
    return replace(
        last,
        scenario=scenario,
        cost=modules[""].cost,
        modules=ModuleCosts(modules, last.recording.stand_ins()),
        ops=op_costs(dict(_ops(runs, total))),
        uncosted=(),
        floor_io_bytes=sum(int(run.over_steps(piece.floor_io_bytes, "sum").item()) for run, piece in runs),
        fullest_step=pieces.annotate(_largest(runs, "peak_activation_bytes").point),
        graph_once=cache(partial(_graph, pieces, runs, most_made)),
        last_step=last,
        steps_time=partial(time_of_steps, pieces, scenario),
    )


@dataclass(frozen=True, slots=True)
class _Step:
    """A step of a generation: its run, and its sizes."""

    run: Runs
    point: Point


def _largest(runs: Iterable[tuple[Runs, Piece]], name: str) -> _Step:
    """The last step of all in which a figure of the whole stage is largest."""
    steps = (
        (most, place, step, run)
        for place, (run, piece) in enumerate(runs)
        for most, step in run.largest_steps(getattr(piece.modules[""].cost, name))
    )
    _, _, step, run = max(steps, key=lambda item: item[:3])
    return _Step(run, run.point(step))


def _over_all(costs: Mapping[Runs, StageCost], most_made: _Step, name: str) -> int:
    """What a field of a part is over all steps, from the part's cost in each run."""
    return _combined({run: getattr(cost, name) for run, cost in costs.items()}, most_made, FIGURES[name])


def _combined(values: Mapping[Runs, Size], most_made: _Step, figure: Figure) -> int:
    if is_of_the_largest_step(figure):
        return int(value_at(values[most_made.run], most_made.point))
    over_all = ExactArray((1,))
    for run, value in values.items():
        _METHODS[figure.over_steps](over_all, run.places, run.over_steps(value, figure.over_steps))
    return int(over_all.array()[0])


def _graph(pieces: Pieces, runs: Sequence[tuple[Runs, Piece]], most_made: _Step) -> nx.DiGraph:
    """The ops of all steps, one by one: those of each run from the polynomials of its piece."""

    def combine(values: Mapping[int, Size], figure: Figure) -> Size:
        in_runs = {run: values.get(place, 0) for place, (run, _) in enumerate(runs)}
        return _combined(in_runs, most_made, figure)

    def shown(run: Runs) -> nx.DiGraph:
        return pieces.annotate(run.point(int(run.steps[0]) - 1)).graph

    alike = [StepsAlike(piece.graph, int(run.steps[0]), partial(shown, run)) for run, piece in runs]
    return graph_of_steps(alike, combine)


def _point_of(step: Scenario) -> Point:
    return step.batch, step.query_len, step.past_len


def _ops(
    runs: Sequence[tuple[Runs, Piece]], total: Callable[[Callable[[Piece], StageCost]], StageCost]
) -> Iterator[tuple[str, tuple[int, StageCost]]]:
    """Op → executions and their cost, over all steps; nothing in the runs whose piece has none."""
    for op in dict.fromkeys(op for _, piece in runs for op in piece.ops):
        count = sum(piece.ops[op][0] * int(run.steps[0]) for run, piece in runs if op in piece.ops)
        yield op, (count, total(lambda piece, op=op: piece.ops[op][1] if op in piece.ops else ZERO))  # type: ignore[misc]
