"""Sums of polynomials over the steps of a generation, and how many steps a condition holds for.

Step j of a generation has ``past_len`` + j·``query_len`` tokens in the cache. For a fixed query length the sum of a
polynomial over K steps is a polynomial in the batch, the first past length and K (Faulhaber); the number of steps
takes the place of the query length among the variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from itertools import pairwise
from math import comb
from typing import Any

import numpy as np

from fxmeter.annotators.symbolic import (
    VARIABLES,
    Condition,
    Floor,
    Maximum,
    Polynomial,
    Real,
    atom_of,
    computed,
    made_of,
    maximum,
    powers,
    terms_of,
    value_at,
    variable,
    variables_of,
)
from fxmeter.annotators.symbolic.values import Values

BATCH, QUERY, PAST = range(VARIABLES)
STEPS = QUERY
"""The variable that stands for the number of steps in a sum."""


def substituted(value: Any, given: Mapping[int, Any]) -> Any:
    """``value`` with polynomials or numbers in the place of some variables, inside of its atoms too."""
    if isinstance(value, Real):
        return computed(value.op, substituted(value.left, given), substituted(value.right, given))
    if isinstance(value, float):
        return value
    total: dict[int, Any] = {}
    for key, coefficient in terms_of(value).items():
        product: Any = made_of({0: coefficient})
        for index, exponent in powers(key):
            product = product * _replaced(index, given) ** exponent
        for place, factor in terms_of(product).items():
            total[place] = total.get(place, 0) + factor
    return made_of(total)


def _replaced(index: int, given: Mapping[int, Any]) -> Any:
    if index in given:
        return given[index]
    if index < VARIABLES or not variables_of(variable(index)) & given.keys():
        return variable(index)
    recipe = atom_of(index)
    if isinstance(recipe, Floor):
        return substituted(recipe.dividend, given) // substituted(recipe.divisor, given)
    if isinstance(recipe, Maximum):
        return maximum(substituted(value, given) for value in recipe.values)
    return round(substituted(recipe.real, given))


@lru_cache(maxsize=10_000)
def summed(value: Any, query_len: int) -> Any:
    """The sum over K steps of ``query_len`` tokens, in batch, K (in the query length's place) and first past length.

    ``value`` is :func:`fxmeter.annotators.symbolic.compared`.

    None where a floor, a rounding or a maximum in it depends on the past length: then there is no such polynomial.
    """
    by_degree: dict[int, dict[int, Any]] = {}
    for key, coefficient in terms_of(substituted(value, {QUERY: query_len})).items():
        exponents = dict(powers(key))
        degree = exponents.pop(PAST, 0)
        if any(PAST in variables_of(variable(index)) for index in exponents):
            return None
        rest = made_of({0: coefficient})
        for index, exponent in exponents.items():
            rest = rest * variable(index) ** exponent
        terms = by_degree.setdefault(degree, {})
        for place, factor in terms_of(rest).items():
            terms[place] = terms.get(place, 0) + factor
    total: Any = 0
    for degree, terms in by_degree.items():
        total = total + made_of(terms) * power_sum(query_len, degree)
    return made_of(terms_of(total))


@cache
def power_sum(stride: int, degree: int) -> Any:
    """Σ (C + j·stride)^degree for j from 0 to K − 1, in the first past length C and K."""
    start = variable(PAST)
    return sum(comb(degree, k) * start ** (degree - k) * stride**k * _first_powers(k) for k in range(degree + 1))


@cache
def _first_powers(degree: int) -> Any:
    """Σ j^degree for j from 0 to K − 1, by Pascal's recurrence."""
    count = variable(STEPS)
    if degree == 0:
        return count
    rest = sum(comb(degree + 1, k) * _first_powers(k) for k in range(degree))
    return (count ** (degree + 1) - rest) // (degree + 1)


def steps_that_hold(condition: Condition, batch: int, query_len: int, past_len: int, steps: int) -> int:
    """How many of ``steps`` steps in a row from the first on a condition holds for.

    A polynomial is searched between its turning points, in a time that the number of steps hardly changes.
    """
    moving = variable(PAST)
    value = substituted(condition.value, {BATCH: batch, QUERY: query_len, PAST: past_len + query_len * moving})
    if not isinstance(value, Polynomial):
        return steps if Condition(value, condition.relation).holds((0, 0, 0)) else 0
    if any(index != PAST for index in variables_of(value)):
        return _tried_one_by_one(condition, batch, query_len, past_len, steps)
    changes = [0, *_sign_changes(value, steps)]
    at = Condition(value, condition.relation)
    return next((place for place in changes if not at.holds((0, 0, place))), steps)


def _sign_changes(value: Any, count: int) -> list[int]:
    """Every j in 1 ... count − 1 at which the sign (−, 0, +) of a polynomial in j is not that at j − 1."""
    if not isinstance(value, Polynomial) or count < 2:
        return []
    difference = substituted(value, {PAST: variable(PAST) + 1}) - value
    turns = [0, *_sign_changes(difference, count - 1), count - 1]
    found: set[int] = set()
    for low, high in pairwise(turns):
        while _sign(value, low) != _sign(value, high):
            good, bad = low, high
            while bad - good > 1:
                middle = (good + bad) // 2
                good, bad = (middle, bad) if _sign(value, middle) == _sign(value, low) else (good, middle)
            found.add(bad)
            low = bad
    return sorted(found)


def _sign(value: Any, place: int) -> int:
    number = value_at(value, (0, 0, place))
    return (number > 0) - (number < 0)


def largest_step(value: Any, batch: int, query_len: int, past_len: int, steps: int) -> tuple[int, int]:
    """The most that a value has at any of ``steps`` steps in a row, and the last step (from 0) that has it."""
    if can_only_grow(value):
        last = steps - 1
        return value_at(value, (batch, query_len, past_len + last * query_len)), last
    if any(PAST in variables_of(variable(i)) for i in variables_of(value) if i >= VARIABLES):
        pasts = past_len + query_len * np.arange(steps, dtype=np.int64)
        found = Values([np.array(batch), np.array(query_len), pasts]).of(value)
        levels = np.broadcast_to(found, (steps,)).tolist()
        most = max(levels)
        return most, steps - 1 - levels[::-1].index(most)
    moving = substituted(value, {BATCH: batch, QUERY: query_len, PAST: past_len + query_len * variable(PAST)})
    difference = substituted(moving, {PAST: variable(PAST) + 1}) - moving
    turns = {0, *_sign_changes(difference, steps - 1), steps - 1}
    return max((value_at(moving, (0, 0, place)), place) for place in turns)


def can_only_grow(value: Any) -> bool:
    """Whether no larger size can make a polynomial smaller."""
    terms = terms_of(value)
    atoms = [atom_of(index) for key in terms for index, _ in powers(key) if index >= VARIABLES]
    return all(v >= 0 for key, v in terms.items() if key) and all(map(_atom_can_only_grow, atoms))


def _atom_can_only_grow(recipe: Any) -> bool:
    if isinstance(recipe, Maximum):
        return all(map(can_only_grow, recipe.values))
    floor = isinstance(recipe, Floor) and isinstance(recipe.divisor, int) and recipe.divisor > 0
    return floor and can_only_grow(recipe.dividend)


def _tried_one_by_one(condition: Condition, batch: int, query_len: int, past_len: int, steps: int) -> int:
    done, block = 0, 256
    while done < steps:
        count = min(block, steps - done)
        pasts = past_len + query_len * (done + np.arange(count, dtype=np.int64))
        holds = Values([np.array(batch), np.array(query_len), pasts]).holds(condition)
        holds = np.broadcast_to(np.asarray(holds, dtype=bool), (count,))
        if not holds.all():
            return done + int(np.argmin(holds))
        done, block = done + count, 2 * block
    return steps
