"""Comparisons of polynomials: answered at a witness point, and what the answers rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fxmeter.annotators.symbolic.atoms import Floor, Maximum, value_at
from fxmeter.annotators.symbolic.monomials import VARIABLES, powers, shifted
from fxmeter.annotators.symbolic.numbers import PATHS, Polynomial, atom_of, compared, terms_key


@dataclass(frozen=True, slots=True)
class Condition:
    """``value`` >= 0, or with ``relation`` "==" or "!=" (not) 0."""

    value: Polynomial
    relation: str

    def holds(self, point: Sequence[int]) -> bool:
        """Whether it does at a point."""
        number = value_at(self.value, point)
        return number >= 0 if self.relation == ">=" else (number == 0) == (self.relation == "==")


class Path:
    """Answers comparisons at ``witness``; ``conditions`` are what the answers rest on. ``lower`` and ``upper`` bound
    each variable (an upper bound may be None); inside them some answers need no condition."""

    def __init__(self, witness: Sequence[int], lower: Sequence[int], upper: Sequence[int | None]) -> None:
        self.witness, self.lower, self.upper = tuple(witness), tuple(lower), tuple(upper)
        self.conditions: dict[Condition, None] = {}
        self._known: dict[Any, bool] = {}
        self._bounds: dict[Any, tuple[Any, Any]] = {}

    def __enter__(self) -> Path:
        PATHS.append(self)
        return self

    def __exit__(self, *exc: Any) -> None:
        PATHS.pop()

    def at_least_zero(self, value: Any) -> bool:
        """Whether ``value`` >= 0."""
        if not isinstance(value, Polynomial):
            return bool(value >= 0)
        key = frozenset(value.terms.items())
        if key not in self._known:
            self._known[key] = self._at_least_zero(value)
        return self._known[key]

    def _at_least_zero(self, value: Polynomial) -> bool:
        least, most = self.bounds(value)
        if least is not None and least >= 0:
            return True
        if most is not None and most < 0:
            return False
        answer = bool(value_at(value, self.witness) >= 0)
        self._suppose(value if answer else -value - 1, ">=")
        return answer

    def is_zero(self, value: Any) -> bool:
        """Whether ``value`` == 0."""
        if not isinstance(value, Polynomial):
            return bool(value == 0)
        least, most = self.bounds(value)
        if (least is not None and least > 0) or (most is not None and most < 0):
            return False
        answer = bool(value_at(value, self.witness) == 0)
        self._suppose(value, "==" if answer else "!=")
        return answer

    def _suppose(self, value: Polynomial, relation: str) -> None:
        self.conditions[Condition(compared(value), relation)] = None

    def bounds(self, value: Polynomial) -> tuple[Any, Any]:
        """Bounds that ``value`` keeps everywhere, each None where not known."""
        key_of_all = terms_key(value)
        if key_of_all not in self._bounds:
            self._bounds[key_of_all] = self._bounds_of(value)
        return self._bounds[key_of_all]

    def _bounds_of(self, value: Polynomial) -> tuple[Any, Any]:
        terms = shifted(value.terms, self.lower)
        low = high = terms.get(0, 0)
        bounded_below = bounded_above = True
        for key, coefficient in terms.items():
            if not coefficient:
                continue
            if key and any(self._may_be_negative(index) for index, _ in powers(key)):
                return None, None
            if key:
                top = self._top(key)
                if coefficient > 0:
                    bounded_above &= top is not None
                    high += coefficient * (top or 0)
                else:
                    bounded_below &= top is not None
                    low += coefficient * (top or 0)
        return (low if bounded_below else None), (high if bounded_above else None)

    def _may_be_negative(self, index: int) -> bool:
        made = atom_of(index) if index >= VARIABLES else None
        if isinstance(made, Maximum):
            return all(map(self._goes_below_zero, made.values))
        return isinstance(made, Floor) and any(map(self._goes_below_zero, (made.dividend, made.divisor)))

    def _goes_below_zero(self, value: Any) -> bool:
        """Whether a value is not known to be 0 or more everywhere."""
        least, _ = self.bounds(value) if isinstance(value, Polynomial) else (value, None)
        return least is None or least < 0

    def _top(self, key: int) -> int | None:
        product = 1
        for index, exponent in powers(key):
            upper = self.upper[index] if index < VARIABLES else None
            if upper is None:
                return None
            product *= (upper - self.lower[index]) ** exponent
        return product
