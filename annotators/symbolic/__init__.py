"""Whole numbers that depend on a few sizes: exact polynomials, on which pricing rules run as they do on ``int``.

A :class:`Polynomial` in the variables 0, 1, 2 (what they stand for is the caller's business) supports ``+ - *``, ``//``
and ``%``, powers, comparisons and ``round`` of the floating-point expressions made from it. What no polynomial can
express (a floor, a rounded expectation, a maximum) becomes an *atom*: one more variable, with a recipe.

Comparisons are where a result is piecewise. Inside ``with Guards(...)`` each one is answered as it is at a point, the
hint, and what makes the answer so is kept as a guard: the result holds wherever all guards hold. What is the same for
every value within the bounds is answered without a guard.
"""

from fxmeter.annotators.symbolic.evaluation import atoms_of, substituted, value_at, variables_of
from fxmeter.annotators.symbolic.expr import (
    NotPolynomial,
    Polynomial,
    Real,
    Relation,
    atom,
    made_of,
    maximum,
    rounded_up,
    terms_of,
    variable,
)
from fxmeter.annotators.symbolic.guards import Guard, Guards, largest, smallest
from fxmeter.annotators.symbolic.monomials import ONE, VARIABLES, Recipe, key_of, powers

__all__ = [
    "ONE",
    "VARIABLES",
    "Guard",
    "Guards",
    "NotPolynomial",
    "Polynomial",
    "Real",
    "Recipe",
    "Relation",
    "atom",
    "atoms_of",
    "key_of",
    "largest",
    "made_of",
    "maximum",
    "powers",
    "rounded_up",
    "smallest",
    "substituted",
    "terms_of",
    "value_at",
    "variable",
    "variables_of",
]
