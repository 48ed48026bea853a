"""Generation from the closed form: exact sums over the steps, in a time that the number of steps hardly changes.

Steps that share a piece are consecutive or fall into a few runs; over a run the sum of a polynomial in the past length
is a polynomial in its ends (Faulhaber). What is of the last step is evaluated there; so is the largest where a
polynomial can only grow, and it is searched for otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import comb
from typing import Any

import numpy as np

from annotators.forms import ClosedForm, Piece
from annotators.grid import Values
from annotators.polynomial import (
    VARIABLES,
    Floor,
    Maximum,
    atom_of,
    powers,
    terms_of,
    value_at,
    variable,
    variables_of,
)
from annotators.rollup import AnnotatedStage, ModuleCost, ModuleCosts, op_costs
from annotators.steps import OF_THE_LARGEST_STEP, OF_THE_LAST_STEP, over_steps
from models.scenario import Scenario
from models.stage_cost import FIELDS, StageCost

PAST = 2
"""The variable that a step moves."""


@dataclass(frozen=True, slots=True)
class Run:
    """``steps`` steps in a row on one piece, the first with ``past_len`` tokens cached; ``stride`` tokens a step."""

    piece: Piece
    batch: int
    query_len: int
    past_len: int
    steps: int

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
        if _can_only_grow(value):
            return value_at(value, self.point(self.steps - 1)), self.steps - 1
        found = np.broadcast_to(self._at_each_step(value), (self.steps,)).tolist()
        most = max(found)
        return most, len(found) - 1 - found[::-1].index(most)

    def sum(self, value: Any) -> int:
        """Of a polynomial's values at every step."""
        total: Any = Fraction(0)
        first = (self.batch, self.query_len, self.past_len)
        moving: dict[int, Any] = {}
        for key, coefficient in terms_of(value).items():
            degree = 0
            for index, exponent in powers(key):
                if index == PAST:
                    degree = exponent
                elif index > PAST and PAST in variables_of(variable(index)):
                    return sum(self._at_each_step(value).tolist())
                else:
                    coefficient = coefficient * value_at(variable(index), first) ** exponent
            moving[degree] = moving.get(degree, 0) + coefficient
        for degree, coefficient in moving.items():
            total += coefficient * power_sum(self.past_len, self.query_len, self.steps, degree)
        return int(total)

    def _at_each_step(self, value: Any) -> np.ndarray:
        pasts = self.past_len + np.arange(self.steps, dtype=np.int64) * self.query_len
        return np.asarray(Values([np.array(self.batch), np.array(self.query_len), pasts]).of(value))


def _can_only_grow(value: Any) -> bool:
    """Whether no larger size can make a polynomial smaller."""
    terms = terms_of(value)
    atoms = [atom_of(index) for key in terms for index, _ in powers(key) if index >= VARIABLES]
    return all(v >= 0 for key, v in terms.items() if key) and all(map(_atom_can_only_grow, atoms))


def _atom_can_only_grow(atom: Any) -> bool:
    if isinstance(atom, Maximum):
        return all(map(_can_only_grow, atom.values))
    return (
        isinstance(atom, Floor) and isinstance(atom.divisor, int) and atom.divisor > 0 and _can_only_grow(atom.dividend)
    )


@cache
def power_sum(start: int, stride: int, count: int, degree: int) -> int:
    """Σ (start + j·stride)^degree for j from 0 to count − 1."""
    return sum(comb(degree, k) * start ** (degree - k) * stride**k * _first_powers(k, count) for k in range(degree + 1))


@cache
def _first_powers(degree: int, count: int) -> int:
    """Σ j^degree for j from 0 to count − 1, by Pascal's recurrence."""
    if degree == 0:
        return count
    rest = sum(comb(degree + 1, k) * _first_powers(k, count) for k in range(degree))
    return (count ** (degree + 1) - rest) // (degree + 1)


def runs(form: ClosedForm, scenario: Scenario) -> list[Run] | None:
    """The steps of a generation in order, by piece. None where a step has no closed form."""
    pasts = scenario.past_len + np.arange(scenario.steps, dtype=np.int64) * scenario.query_len
    found: list[Run] = []
    at = 0
    while at < scenario.steps:
        piece = form.piece((scenario.batch, scenario.query_len, int(pasts[at])))
        if piece is None:
            return None
        values = Values([np.array(scenario.batch), np.array(scenario.query_len), pasts[at:]])
        inside = np.broadcast_to(piece.region.contains(*values.sizes), pasts[at:].shape)
        for condition in piece.conditions:
            inside = inside & values.holds(condition).astype(bool)
        count = len(inside) if inside.all() else int(np.argmin(inside))
        found.append(Run(piece, scenario.batch, scenario.query_len, int(pasts[at]), count))
        at += count
    return found


def over_runs(found: list[Run], cost_of: Callable[[Piece], StageCost]) -> StageCost:
    """The cost of all steps of what ``cost_of`` picks from each piece."""
    return over_steps([run.summed(cost_of(run.piece)) for run in found])


def generation_cost(form: ClosedForm, scenario: Scenario) -> StageCost | None:
    """The cost of a whole generation, None where it has no closed form."""
    found = runs(form, scenario)
    return None if found is None else over_runs(found, lambda piece: piece.cost)


def generate(form: ClosedForm, scenario: Scenario) -> AnnotatedStage | None:
    """A generation, all modules and ops of it; None where it has no closed form.

    Its graph, recording and cache are those of the last step, which is recorded, as is the one with the largest peak.
    """
    found = runs(form, scenario)
    if found is None or any(run.piece.uncosted for run in found):
        return None
    final = scenario.step(scenario.steps - 1)
    last = form.annotate((final.batch, final.query_len, final.past_len))
    lookups = {id(run.piece): ModuleCosts(run.piece.modules, run.piece.region.recording.folds()) for run in found}
    modules = {
        path: ModuleCost(
            path,
            module.class_name,
            module.times,
            over_runs(found, lambda piece, path=path: lookups[id(piece)][path].cost),  # type: ignore[misc]
            over_runs(found, lambda piece, path=path: lookups[id(piece)][path].own),  # type: ignore[misc]
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
        fullest_step=form.annotate(_fullest(found)),
    )


def _fullest(found: list[Run]) -> tuple[int, int, int]:
    """The sizes of the last step with the largest peak."""
    most = -1
    for run in found:
        peak, step = run.largest(run.piece.cost.peak_activation_bytes)
        if peak >= most:
            most, point = peak, run.point(step)
    return point


def _ops(found: list[Run]) -> Iterator[tuple[str, tuple[int, StageCost]]]:
    names: Mapping[str, None] = dict.fromkeys(op for run in found for op in run.piece.ops)
    for op in names:
        having = [run for run in found if op in run.piece.ops]
        count = sum(run.piece.ops[op][0] * run.steps for run in having)
        yield op, (count, over_runs(having, lambda piece, op=op: piece.ops[op][1]))  # type: ignore[misc]
