"""A long generation as a stage: all modules and ops of it, from the closed form of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import networkx as nx
import numpy as np

from fxmeter.annotators.shapes.pieces import Pieces, PricedPiece
from fxmeter.annotators.sheets.generation import METHODS, Runs, runs_of
from fxmeter.annotators.sheets.grid import ExactArray
from fxmeter.annotators.sheets.piece import Piece
from fxmeter.annotators.sheets.region import Point
from fxmeter.annotators.sheets.tables import op_costs
from fxmeter.annotators.sheets.times import time_of_steps
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.annotators.stages.steps_graph import StepsAlike, graph_of_steps, is_of_the_largest_step
from fxmeter.annotators.symbolic import NotPolynomial, value_at
from fxmeter.models.errors import TraceError
from fxmeter.models.figures import Figure
from fxmeter.models.scenario import Scenario
from fxmeter.models.stage_cost import FIELDS, FIGURES, ZERO, Size, StageCost

Run = tuple[Runs, PricedPiece]
"""Steps in a row, and the piece that is right for them."""


def generate(pieces: Pieces, scenario: Scenario) -> AnnotatedStage | None:
    """A generation, all modules and ops of it; None where it has no closed form.

    Its recording and cache are those of the last step, which is recorded, as is the one with the largest peak.
    """
    batch, past_len, steps = (np.array([size]) for size in (scenario.batch, scenario.past_len, scenario.steps))
    runs: list[Run] = []
    try:
        for run in runs_of(pieces.polynomials, batch, scenario.query_len, past_len, steps):
            if not isinstance(run.piece, PricedPiece) or run.piece.uncosted:
                return None
            runs.append((run, run.piece))
    except (NotPolynomial, TraceError):
        return None

    most_made = _largest(runs, "activation_bytes")

    def total(cost_in: Callable[[Piece], StageCost]) -> StageCost:
        costs = {run: cost_in(piece) for run, piece in runs}
        return StageCost(**{name: _over_all(costs, most_made, name) for name in FIELDS})

    last = pieces.annotate(_point_of(scenario.step(scenario.steps - 1)))
    modules = last.modules.with_costs(lambda found_in: total(lambda piece: found_in(piece.modules)))
    return replace(
        last,
        scenario=scenario,
        cost=modules[""].cost,
        modules=modules,
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


def _largest(runs: Iterable[Run], name: str) -> _Step:
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
        METHODS[figure.over_steps](over_all, run.places, run.over_steps(value, figure.over_steps))
    return int(over_all.array()[0])


def _graph(pieces: Pieces, runs: Sequence[Run], most_made: _Step) -> nx.DiGraph:
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
    runs: Sequence[Run], total: Callable[[Callable[[Piece], StageCost]], StageCost]
) -> Iterator[tuple[str, tuple[int, StageCost]]]:
    """Op → executions and their cost, over all steps; nothing in the runs whose piece has none."""
    for op in dict.fromkeys(op for _, piece in runs for op in piece.ops):
        count = sum(piece.ops[op][0] * int(run.steps[0]) for run, piece in runs if op in piece.ops)
        yield op, (count, total(lambda piece, op=op: piece.ops[op][1] if op in piece.ops else ZERO))  # type: ignore[misc]
