"""Polynomials at many points at once, exactly.

Arrays are of int64 as long as a bound shows that nothing can overflow, and of Python integers from there on. Sizes stay
in the shapes they were given and broadcast, so that a grid costs what its axes cost wherever it can.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from fxmeter.annotators.symbolic.expr import Real, terms_of
from fxmeter.annotators.symbolic.guards import Guard, compare
from fxmeter.annotators.symbolic.monomials import Base, Monomial, Recipe, powers
from fxmeter.models.stage_cost import Size

FEW = 1024
"""Exponents in a row that a table of powers is made of: looking up in it is quicker than sorting them."""

SAFE = 2**62
"""Magnitudes below this are computed in int64. It holds twice that, so that adding up two such numbers is safe too."""


Bounded: TypeAlias = tuple[np.ndarray, int]
"""Whole numbers, and a bound of their magnitudes."""


class Values:
    """Polynomials at arrays of points. ``sizes`` are int64 arrays that broadcast together."""

    def __init__(self, sizes: Sequence[np.ndarray]) -> None:
        self.sizes = [np.asarray(size) for size in sizes]
        self._factors: dict[Base, Bounded] = {}
        self._monomials: dict[Monomial, Bounded] = {}
        self._reals: dict[Real, np.ndarray | float] = {}

    def of(self, value: Size) -> np.ndarray:
        """A polynomial's values, int64 or Python integers; of a constant, a scalar."""
        terms = terms_of(value)
        denominator = math.lcm(*(v.denominator for v in terms.values() if isinstance(v, Fraction)), 1)
        parts = [(int(v * denominator), *self.monomial(monomial)) for monomial, v in terms.items()]
        exact = sum(abs(factor) * bound for factor, _, bound in parts) < SAFE
        dtype = np.dtype(np.int64 if exact else object)
        total = np.zeros((), dtype)
        for factor, array, _ in parts:
            total = total + array.astype(dtype, copy=False) * factor
        return np.asarray(total if denominator == 1 else total // denominator, dtype)

    def holds(self, guard: Guard) -> np.ndarray:
        """Where a guard does."""
        return np.asarray(compare(self.of(guard.value), guard.relation), dtype=bool)

    def monomial(self, monomial: Monomial) -> Bounded:
        """The values of a monomial."""
        if monomial not in self._monomials:
            factors = (self._factor(base) for base, exponent in powers(monomial) for _ in range(exponent))
            self._monomials[monomial] = functools.reduce(product, factors, bounded(1))
        return self._monomials[monomial]

    def _factor(self, base: Base) -> Bounded:
        if base not in self._factors:
            self._factors[base] = bounded(self.sizes[base] if isinstance(base, int) else self._recipe(base))
        return self._factors[base]

    def _recipe(self, recipe: Recipe) -> np.ndarray:
        if recipe.op == "round":
            rounded = np.rint(np.asarray(self._real(*recipe.parts), dtype=np.float64))
            exact = not rounded.size or abs(rounded).max() < float(SAFE)
            return rounded.astype(np.int64) if exact else np.asarray(np.frompyfunc(int, 1, 1)(rounded), dtype=object)
        function = np.floor_divide if recipe.op == "//" else np.maximum
        operands = list(map(self.of, recipe.parts))
        return np.asarray(functools.reduce(function, operands), dtype=np.result_type(*operands))

    def _real(self, value: Size) -> np.ndarray | float:
        """Floats as Python computes them; a power, which numpy may round otherwise, by Python itself."""
        if isinstance(value, Real):
            if value not in self._reals:
                self._reals[value] = _ARITHMETIC[value.op](*map(self._real, value.parts))
            return self._reals[value]
        return value if isinstance(value, float) else self.of(value).astype(np.float64)


def bounded(values: np.ndarray | int) -> Bounded:
    """An array, and the most that a value of it is away from 0."""
    array = np.asarray(values)
    return array, max(abs(int(array.max())), abs(int(array.min()))) if array.size else 0


def product(one: Bounded, other: Bounded) -> Bounded:
    """Of two arrays: Python integers where it could overflow."""
    bound = one[1] * max(1, other[1])
    dtype = np.dtype(np.int64 if bound < SAFE else object)
    return np.asarray(one[0].astype(dtype, copy=False) * other[0].astype(dtype, copy=False), dtype), bound


def _power(base: np.ndarray | float, exponents: np.ndarray) -> np.ndarray:
    """``base`` ** each, once for every different exponent."""
    least = int(exponents.min()) if exponents.size else 0
    if exponents.size and exponents.max() - least < FEW:
        table = np.array([float(base) ** (least + step) for step in range(int(exponents.max()) - least + 1)])
        return table[exponents.astype(np.int64) - least]
    different, places = np.unique(np.asarray(exponents), return_inverse=True)
    results = np.array([float(base) ** int(exponent) for exponent in different], dtype=np.float64)
    return results[places].reshape(np.shape(exponents))


_ARITHMETIC: Mapping[str, Callable[..., np.ndarray]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "**": _power,
}
