"""Monomials and their coefficients: what polynomials are made of."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

BITS = 6
LOW = (1 << BITS) - 1
VARIABLES = 3
"""Indices below this are variables; the others are atoms."""

Terms = Mapping[int, Any]
"""A monomial, its exponents packed into one integer, to a coefficient."""


def powers(key: int) -> Iterator[tuple[int, int]]:
    """(variable or atom, exponent) of a packed monomial."""
    index = 0
    while key:
        if key & LOW:
            yield index, key & LOW
        key >>= BITS
        index += 1


def divides(key: int, other: int) -> bool:
    """Whether a monomial divides another."""
    exponents = dict(powers(other))
    return all(exponents.get(index, 0) >= exponent for index, exponent in powers(key))


def is_whole(terms: Terms) -> bool:
    """Whether a polynomial with rational coefficients is a whole number at all whole arguments.

    It is if it is one on the grid of 0 ... degree in each variable.
    """
    if all(type(v) is int for v in terms.values()):
        return True
    degrees: dict[int, int] = {}
    for key in terms:
        for index, exponent in powers(key):
            degrees[index] = max(degrees.get(index, 0), exponent)
    for point in itertools.product(*(range(d + 1) for d in degrees.values())):
        at = dict(zip(degrees, point, strict=True))
        total = sum(Fraction(v) * math.prod(at[i] ** e for i, e in powers(k)) for k, v in terms.items())
        if total.denominator != 1:
            return False
    return True


def quotient_of(dividend: Terms, divisor: Terms) -> dict[int, Any] | None:
    """The exact quotient of two polynomials where it is a polynomial, by long division."""
    lead = max(divisor)
    rest, quotient = dict(dividend), dict[int, Any]()
    while rest:
        top = max(rest)
        if not divides(lead, top):
            return None
        factor = Fraction(rest[top]) / divisor[lead]
        quotient[top - lead] = factor
        for key, value in divisor.items():
            place = key + top - lead
            rest[place] = rest.get(place, 0) - factor * value
            if not rest[place]:
                del rest[place]
    return quotient


def shifted(terms: Mapping[int, Any], lower: Sequence[int]) -> dict[int, Any]:
    """The same polynomial in variables counted from their lower bounds (atoms are never negative)."""
    current = dict(terms)
    for index, base in enumerate(lower):
        if base == 0:
            continue
        moved: dict[int, Any] = {}
        unit = 1 << (BITS * index)
        for key, value in current.items():
            exponent = (key >> (BITS * index)) & LOW
            rest = key - exponent * unit
            for part in range(exponent + 1):
                target = rest + part * unit
                factor = math.comb(exponent, part) * base ** (exponent - part)
                moved[target] = moved.get(target, 0) + value * factor
        current = moved
    return current
