"""Polynomials at many points at once, exactly.

Arrays are of int64 as long as a bound shows that nothing can overflow, and of Python integers from there on. Sizes stay
in the shapes they were given and broadcast, so that a grid costs what its axes cost wherever it can.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from fxmeter.annotators.symbolic.atoms import Floor, Maximum, Real
from fxmeter.annotators.symbolic.guards import Condition
from fxmeter.annotators.symbolic.monomials import VARIABLES, powers
from fxmeter.annotators.symbolic.numbers import atom_of, terms_of

SAFE = 2**62
"""Magnitudes below this are computed in int64, which holds up to 2^63 - 1: a sum of two of them still fits."""


class Values:
    """Polynomials at arrays of points. ``sizes`` are int64 arrays that broadcast together."""

    def __init__(self, sizes: Sequence[np.ndarray]) -> None:
        self.sizes = [np.asarray(size) for size in sizes]
        self._parts: dict[int, tuple[np.ndarray, int]] = {}
        self._monomials: dict[int, tuple[Any, int]] = {0: (np.int64(1), 1)}

    def of(self, value: Any) -> Any:
        """A polynomial's values, int64 or Python integers; of a constant, a scalar."""
        terms = terms_of(value)
        denominator = math.lcm(*(v.denominator for v in terms.values() if isinstance(v, Fraction)), 1)
        parts = [(int(v * denominator), *self._monomial(key)) for key, v in terms.items()]
        if sum(abs(factor) * bound for factor, _, bound in parts) < SAFE:
            total: Any = np.int64(0)
            for factor, array, _ in parts:
                total = total + (factor if array.ndim == 0 and array == 1 else array * np.int64(factor))
        else:
            total = 0
            for factor, array, _ in parts:
                total = total + np.asarray(array).astype(object) * factor
        return np.asarray(total if denominator == 1 else total // denominator)

    def holds(self, condition: Condition) -> Any:
        """Where a condition does."""
        number = self.of(condition.value)
        return number >= 0 if condition.relation == ">=" else (number == 0) == (condition.relation == "==")

    def _monomial(self, key: int) -> tuple[Any, int]:
        if key not in self._monomials:
            array: Any = np.int64(1)
            bound = 1
            for index, exponent in powers(key):
                part, most = self._part(index)
                for _ in range(exponent):
                    bound *= max(1, most)
                    exact = bound < SAFE
                    array = array * part if exact else np.asarray(array).astype(object) * part.astype(object)
            self._monomials[key] = np.asarray(array), bound
        return self._monomials[key]

    def _part(self, index: int) -> tuple[np.ndarray, int]:
        if index not in self._parts:
            array = self.sizes[index] if index < VARIABLES else self._atom(index)
            most = max(abs(int(array.max())), abs(int(array.min()))) if array.size else 0
            self._parts[index] = array, most
        return self._parts[index]

    def _atom(self, index: int) -> np.ndarray:
        made = atom_of(index)
        if isinstance(made, Floor):
            return np.asarray(self.of(made.dividend) // self.of(made.divisor))
        if isinstance(made, Maximum):
            return np.asarray(functools.reduce(np.maximum, [self.of(value) for value in made.values]))
        rounded = np.rint(np.asarray(self._real(made.real), dtype=np.float64))
        if rounded.size and abs(rounded).max() >= float(SAFE):
            return np.asarray(np.frompyfunc(int, 1, 1)(rounded), dtype=object)
        return rounded.astype(np.int64)

    def _real(self, value: Any) -> Any:
        """Floats as Python computes them; a power, which numpy may round otherwise, by Python itself."""
        if isinstance(value, Real):
            left, right = self._real(value.left), self._real(value.right)
            return _power(left, right) if value.op == "**" else _ARITHMETIC[value.op](left, right)
        if isinstance(value, float):
            return value
        numbers = self.of(value)
        return numbers.astype(np.float64) if isinstance(numbers, np.ndarray) else float(numbers)


def _power(base: Any, exponents: Any) -> Any:
    """``base`` ** each, once for every different exponent."""
    different, places = np.unique(np.asarray(exponents), return_inverse=True)
    results = np.array([float(base) ** int(exponent) for exponent in different], dtype=np.float64)
    return results[places].reshape(np.shape(exponents))


_ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
}
