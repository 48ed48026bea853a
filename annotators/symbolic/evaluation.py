"""Values at a point, and with other values in the place of variables."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence

from fxmeter.annotators.symbolic.expr import Polynomial, made_of, maximum, terms_of, variable
from fxmeter.annotators.symbolic.monomials import ONE, Base, Coefficient, Monomial, Op, Recipe, powers
from fxmeter.models.stage_cost import Size

OPERATIONS: Mapping[Op, Callable[..., Size]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
    "//": operator.floordiv,
    "round": round,
    "max": maximum,
}
"""What a recipe does: to numbers and to polynomials alike."""


def computed(recipe: Recipe, operands: Iterable[Size]) -> Size:
    """What the recipe does, with other operands."""
    return OPERATIONS[recipe.op](*operands)


def value_at(value: Size, point: Sequence[int]) -> Size:
    """A polynomial (or a floating-point expression) at a point, exactly as Python computes it on plain numbers."""
    if isinstance(value, Recipe):
        return computed(value, (value_at(part, point) for part in value.parts))
    if not isinstance(value, Polynomial):
        return value
    b, x, y = point
    total: Size = 0
    for ((in_b, in_x, in_y), atoms), coefficient in value.terms.items():
        product = coefficient * b**in_b * x**in_x * y**in_y
        for recipe, exponent in atoms:
            product *= value_at(recipe, point) ** exponent
        total += product
    return int(total)


def substituted(value: Size, replacements: Mapping[int, Size]) -> Size:
    """``value`` with polynomials or numbers in the place of some variables, inside of its atoms too."""
    if isinstance(value, Recipe):
        return computed(value, (substituted(part, replacements) for part in value.parts))
    if not isinstance(value, Polynomial):
        return value
    total: dict[Monomial, Coefficient] = {}
    for monomial, coefficient in value.terms.items():
        product: Size = made_of({ONE: coefficient})
        for base, exponent in powers(monomial):
            product = product * _replacement(base, replacements) ** exponent
        for place, factor in terms_of(product).items():
            total[place] = total.get(place, 0) + factor
    return made_of(total)


def _replacement(base: Base, replacements: Mapping[int, Size]) -> Size:
    if isinstance(base, int):
        return replacements[base] if base in replacements else variable(base)
    return substituted(base, replacements) if variables_of(base) & replacements.keys() else variable(base)


def variables_of(value: Size | Base) -> set[int]:
    """The variables that a value depends on, inside of its atoms too."""
    if isinstance(value, Recipe):
        return set().union(*map(variables_of, value.parts))
    bases = {base for monomial in terms_of(value) for base, _ in powers(monomial)}
    return {base for base in bases if isinstance(base, int)}.union(*map(variables_of, atoms_of(value)))


def atoms_of(value: Size) -> dict[Recipe, None]:
    """The atoms that a polynomial has, each once, in the order of its terms."""
    return {base: None for monomial in terms_of(value) for base, _ in powers(monomial) if isinstance(base, Recipe)}
