"""Whole numbers that depend on a few sizes: exact polynomials, on which pricing rules run as they do on ``int``.

A :class:`Polynomial` in the variables 0, 1, 2, ... (what they stand for is the caller's business) supports ``+ - *``,
``//`` and ``%``, powers, comparisons and ``round`` of the floating-point expressions made from it. What no polynomial
can express (a floor, a rounded expectation, a maximum) becomes an *atom*: one more variable, with a recipe.

Comparisons are where a result is piecewise. Inside ``with Path(...)`` each one is answered at a witness point, and
what makes the answer so is kept as a condition: the result holds wherever all conditions hold. What is the same for
every value within the bounds is answered without a condition.
"""

from fxmeter.annotators.symbolic.atoms import (
    Floor,
    Maximum,
    Real,
    Rounded,
    computed,
    largest,
    maximum,
    smallest,
    value_at,
)
from fxmeter.annotators.symbolic.guards import Condition, Path
from fxmeter.annotators.symbolic.monomials import VARIABLES, powers
from fxmeter.annotators.symbolic.numbers import (
    Polynomial,
    atom,
    atom_of,
    compared,
    made_of,
    terms_of,
    variable,
    variables_of,
)

__all__ = [
    "VARIABLES",
    "Condition",
    "Floor",
    "Maximum",
    "Path",
    "Polynomial",
    "Real",
    "Rounded",
    "atom",
    "atom_of",
    "compared",
    "computed",
    "largest",
    "made_of",
    "maximum",
    "powers",
    "smallest",
    "terms_of",
    "value_at",
    "variable",
    "variables_of",
]
