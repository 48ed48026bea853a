"""Monomials and their coefficients: what polynomials are made of."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Literal, TypeAlias

from fxmeter.models.stage_cost import Size

VARIABLES = 3
"""A pass has three sizes: a batch and two lengths. What else a polynomial depends on are atoms, made of these."""

Op: TypeAlias = Literal["+", "-", "*", "/", "**", "//", "round", "max"]


class Recipe:
    """An operation on polynomials and numbers that is kept as it was computed. In a monomial it is an atom."""

    __slots__ = ("__weakref__", "_hash", "key", "op", "parts")

    def __init__(self, op: Op, *parts: Size) -> None:
        self.op, self.parts = op, parts
        keys = map(key_of, parts)
        operands: Hashable = frozenset(keys) if op == "max" else tuple(keys)
        self.key: Hashable = (op, operands)
        self._hash = hash(operands)  # not of ``op``: a text has another hash, and a set another order, in every process

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Recipe) and other._hash == self._hash and other.key == self.key)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"({self.op} {' '.join(map(str, self.parts))})"


def key_of(value: Size) -> Hashable:
    """What makes two values the same, without comparing them as numbers."""
    return getattr(value, "key", value)


Base: TypeAlias = int | Recipe
"""What is raised to a power: a variable, by its number, or an atom."""

Monomial: TypeAlias = tuple[tuple[int, ...], frozenset[tuple[Recipe, int]]]
"""The exponents of the three variables, and (atom, exponent) of each atom."""

Coefficient: TypeAlias = int | Fraction
Terms: TypeAlias = Mapping[Monomial, Coefficient]

ONE: Monomial = ((0,) * VARIABLES, frozenset())


def monomial_of(base: Base) -> Monomial:
    """A variable or an atom by itself."""
    if isinstance(base, Recipe):
        return ONE[0], frozenset({(base, 1)})
    return tuple(int(index == base) for index in range(VARIABLES)), ONE[1]


def powers(monomial: Monomial) -> Iterator[tuple[Base, int]]:
    """(variable or atom, exponent) of what is in a monomial."""
    exponents, atoms = monomial
    yield from ((index, exponent) for index, exponent in enumerate(exponents) if exponent)
    yield from atoms


def multiplied(one: Monomial, other: Monomial) -> Monomial:
    """The product of two monomials."""
    (b, x, y), atoms = one
    (c, z, w), others = other
    if atoms and others:
        exponents = dict(atoms)
        for atom, exponent in others:
            exponents[atom] = exponents.get(atom, 0) + exponent
        return (b + c, x + z, y + w), frozenset(exponents.items())
    return (b + c, x + z, y + w), atoms or others


def _divided(one: Monomial, other: Monomial) -> Monomial | None:
    """The quotient of two monomials; None where the second does not divide the first."""
    exponents = [n - m for n, m in zip(one[0], other[0], strict=True)]
    atoms = dict(one[1])
    for atom, exponent in other[1]:
        atoms[atom] = atoms.get(atom, 0) - exponent
    if min(*exponents, *atoms.values()) < 0:
        return None
    return tuple(exponents), frozenset((atom, exponent) for atom, exponent in atoms.items() if exponent)


def is_whole(terms: Terms) -> bool:
    """Whether a polynomial with rational coefficients is a whole number at all whole arguments.

    It is if it is one on the grid of 0 ... degree in each variable.
    """
    if all(type(coefficient) is int for coefficient in terms.values()):
        return True
    degrees: dict[Base, int] = {}
    for monomial in terms:
        for base, exponent in powers(monomial):
            degrees[base] = max(degrees.get(base, 0), exponent)
    for point in itertools.product(*(range(degree + 1) for degree in degrees.values())):
        at = dict(zip(degrees, point, strict=True))
        total = sum(Fraction(c) * math.prod(at[base] ** e for base, e in powers(m)) for m, c in terms.items())
        if Fraction(total).denominator != 1:
            return False
    return True


def quotient_of(dividend: Terms, divisor: Terms) -> Terms | None:
    """The exact quotient of two polynomials where it is a polynomial, by long division."""
    known = list(dict.fromkeys(atom for _, atoms in (*dividend, *divisor) for atom, _ in atoms))

    def order(monomial: Monomial) -> tuple[int, ...]:
        exponents = dict(monomial[1])
        return (*(exponents.get(atom, 0) for atom in known), *monomial[0])

    lead = max(divisor, key=order)
    rest, quotient = dict(dividend), dict[Monomial, Coefficient]()
    while rest:
        top = max(rest, key=order)
        step = _divided(top, lead)
        if step is None:
            return None
        factor = quotient[step] = Fraction(rest[top]) / divisor[lead]
        for monomial, coefficient in divisor.items():
            place = multiplied(monomial, step)
            rest[place] = rest.get(place, 0) - factor * coefficient
            if not rest[place]:
                del rest[place]
    return quotient


def shifted(terms: Terms, lower: Sequence[int]) -> Terms:
    """The same polynomial in variables counted from their lower bounds."""
    for index, base in enumerate(lower):
        if base == 0:
            continue
        moved: dict[Monomial, Coefficient] = {}
        for (exponents, atoms), coefficient in terms.items():
            exponent = exponents[index]
            for part in range(exponent + 1):
                target = (*exponents[:index], part, *exponents[index + 1 :]), atoms
                factor = math.comb(exponent, part) * base ** (exponent - part)
                moved[target] = moved.get(target, 0) + coefficient * factor
        terms = moved
    return terms
