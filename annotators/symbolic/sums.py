"""Polynomials over the steps of a generation: their sums, their largest values, how many steps a guard holds for.

Step j of a generation has ``past_len`` + j·``query_len`` tokens in the cache. The sum of C^d over K steps is a
polynomial in the first past length and K (Faulhaber): a sum takes a time that the number of steps hardly changes.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from math import comb

import numpy as np

from fxmeter.annotators.symbolic.evaluation import atoms_of, substituted, value_at, variables_of
from fxmeter.annotators.symbolic.expr import Polynomial, terms_of, variable
from fxmeter.annotators.symbolic.guards import Guard
from fxmeter.annotators.symbolic.monomials import ONE, VARIABLES, Monomial, Recipe
from fxmeter.annotators.symbolic.values import Bounded, Values, bounded, product
from fxmeter.models.stage_cost import Size

BATCH, QUERY, PAST = range(VARIABLES)
STEPS = QUERY
"""The variable that stands for the number of steps in a sum of powers: the query length is a number there."""

FIRST_BLOCK = 256
"""Steps that are tried at once where no sign changes can be searched for; each next block is twice as long."""


class Sums(Values):
    """Sums of polynomials over runs of steps: of ``batch``, ``past_len`` and ``steps``, an array each, and of
    ``query_len`` tokens a step. Each monomial is summed as the power of the context that is in it."""

    def __init__(self, batch: np.ndarray, query_len: int, past_len: np.ndarray, steps: np.ndarray) -> None:
        super().__init__([batch, np.asarray(query_len), past_len])
        self._runs = list(zip(batch.tolist(), past_len.tolist(), steps.tolist(), strict=True))
        self._stride, self._at_start = query_len, Values(self.sizes)
        self._ends = Values([batch, steps, past_len])

    def of(self, value: Size) -> np.ndarray:
        """The sum of a value over the steps of each run."""
        if not has_moving_atoms(value):
            return super().of(value)
        sums = [sum(_at_each_step(value, b, self._stride, past, steps)) for b, past, steps in self._runs]
        return np.array(sums, dtype=object)

    def monomial(self, monomial: Monomial) -> Bounded:
        """The sums of a monomial."""
        if monomial not in self._monomials:
            (b, x, degree), atoms = monomial
            powers_of_past = bounded(self._ends.of(power_sum(self._stride, degree)))
            self._monomials[monomial] = product(self._at_start.monomial(((b, x, 0), atoms)), powers_of_past)
        return self._monomials[monomial]


@lru_cache(maxsize=64)
def power_sum(stride: int, degree: int) -> Size:
    """Σ (C + j·stride)^degree for j from 0 to K − 1, in the first past length C and K."""
    start = variable(PAST)
    return sum(comb(degree, k) * start ** (degree - k) * stride**k * _first_powers(k) for k in range(degree + 1))


@lru_cache(maxsize=64)
def _first_powers(degree: int) -> Size:
    """Σ j^degree for j from 0 to K − 1, by Pascal's recurrence."""
    count = variable(STEPS)
    if degree == 0:
        return count
    rest = sum(comb(degree + 1, k) * _first_powers(k) for k in range(degree))
    return (count ** (degree + 1) - rest) // (degree + 1)


def steps_that_hold(guard: Guard, batch: int, query_len: int, past_len: int, steps: int) -> int:
    """How many of ``steps`` steps in a row from the first on a guard holds for.

    A polynomial is searched between its turning points, in a time that the number of steps hardly changes.
    """
    if has_moving_atoms(guard.value):
        return _tried_in_blocks(guard, batch, query_len, past_len, steps)
    by_step = Guard(_by_step(guard.value, batch, query_len, past_len), guard.relation)
    changes = [0, *_sign_changes(by_step.value, steps)]
    return next((step for step in changes if not by_step.holds((0, 0, step))), steps)


def _by_step(value: Size, batch: int, query_len: int, past_len: int) -> Size:
    """A value as a polynomial in the number of the step, which takes the place of the past length."""
    return substituted(value, {BATCH: batch, QUERY: query_len, PAST: past_len + query_len * variable(PAST)})


def has_moving_atoms(value: Size) -> bool:
    """Whether a floor, a rounding or a maximum in a value changes with the past length."""
    return any(PAST in variables_of(atom) for atom in atoms_of(value))


def _sign_changes(value: Size, count: int) -> list[int]:
    """Every j in 1 ... count − 1 at which the sign (−, 0, +) of a polynomial in j is not that at j − 1."""
    if not isinstance(value, Polynomial) or count < 2:
        return []
    difference = substituted(value, {PAST: variable(PAST) + 1}) - value
    turns = [0, *_sign_changes(difference, count - 1), count - 1]
    changes: set[int] = set()
    for low, high in pairwise(turns):
        while _sign(value, low) != _sign(value, high):
            same, other = low, high
            while other - same > 1:
                middle = (same + other) // 2
                same, other = (middle, other) if _sign(value, middle) == _sign(value, low) else (same, middle)
            changes.add(other)
            low = other
    return sorted(changes)


def _sign(value: Size, step: int) -> int:
    number = value_at(value, (0, 0, step))
    return int(number > 0) - int(number < 0)


def largest_step(value: Size, batch: int, query_len: int, past_len: int, steps: int) -> tuple[int, int]:
    """The most that a value has at any of ``steps`` steps in a row, and the last step (from 0) that has it."""
    if can_only_grow(value):
        last = steps - 1
        return value_at(value, (batch, query_len, past_len + last * query_len)), last
    if has_moving_atoms(value):
        levels = _at_each_step(value, batch, query_len, past_len, steps)
        most = max(levels)
        return most, steps - 1 - levels[::-1].index(most)
    by_step = _by_step(value, batch, query_len, past_len)
    difference = substituted(by_step, {PAST: variable(PAST) + 1}) - by_step
    turns = {0, *_sign_changes(difference, steps - 1), steps - 1}
    return max((value_at(by_step, (0, 0, step)), step) for step in turns)


def _at_each_step(value: Size, batch: int, query_len: int, past_len: int, steps: int) -> list[int]:
    pasts = past_len + query_len * np.arange(steps, dtype=np.int64)
    values = Values([np.asarray(batch), np.asarray(query_len), pasts]).of(value)
    return list(map(int, np.broadcast_to(values, (steps,))))


def can_only_grow(value: Size) -> bool:
    """Whether no larger size can make a value smaller."""
    if isinstance(value, Recipe):
        if value.op == "max":
            return all(map(can_only_grow, value.parts))
        return value.op == "//" and type(value.parts[1]) is int and value.parts[1] > 0 and can_only_grow(value.parts[0])
    sized = [coefficient for monomial, coefficient in terms_of(value).items() if monomial != ONE]
    return all(coefficient >= 0 for coefficient in sized) and all(map(can_only_grow, atoms_of(value)))


def _tried_in_blocks(guard: Guard, batch: int, query_len: int, past_len: int, steps: int) -> int:
    done, block = 0, FIRST_BLOCK
    while done < steps:
        count = min(block, steps - done)
        pasts = past_len + query_len * (done + np.arange(count, dtype=np.int64))
        holds = Values([np.asarray(batch), np.asarray(query_len), pasts]).holds(guard)
        holds = np.broadcast_to(holds, (count,))
        if not holds.all():
            return done + int(np.argmin(holds))
        done, block = done + count, 2 * block
    return steps
