"""What no polynomial can express: floors, rounded floating-point numbers, maxima."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fxmeter.annotators.symbolic.monomials import BITS, VARIABLES, powers
from fxmeter.annotators.symbolic.numbers import (
    Polynomial,
    atom,
    atom_of,
    compared,
    current_path,
    made_of,
    terms_key,
    terms_of,
    variables_of,
)


class Real:
    """A floating-point expression over polynomials, kept as it was computed so that it rounds alike everywhere."""

    __slots__ = ("left", "op", "right")

    def __init__(self, op: str, left: Any, right: Any) -> None:
        self.op, self.left, self.right = op, left, right

    def __add__(self, other: Any) -> Any:
        return real("+", self, other)

    def __radd__(self, other: Any) -> Any:
        return real("+", other, self)

    def __sub__(self, other: Any) -> Any:
        return real("-", self, other)

    def __rsub__(self, other: Any) -> Any:
        return real("-", other, self)

    def __mul__(self, other: Any) -> Any:
        return real("*", self, other)

    def __rmul__(self, other: Any) -> Any:
        return real("*", other, self)

    def __truediv__(self, other: Any) -> Any:
        return real("/", self, other)

    def __round__(self, digits: None = None) -> Polynomial:
        """The nearest whole number, halves to even, as Python rounds a float."""
        return atom(Rounded(self))

    def key(self) -> Any:
        """What makes two expressions the same."""
        parts = (self.left, self.right)
        return (
            self.op,
            *(p.key() if isinstance(p, Real) else p if isinstance(p, float) else terms_key(p) for p in parts),
        )

    def variables(self) -> set[int]:
        """Variables and atoms in it."""
        parts = (self.left, self.right)
        return set().union(*(p.variables() if isinstance(p, Real) else variables_of(p) for p in parts))


def computed(op: str, left: Any, right: Any) -> Any:
    """A floating-point expression, or the number that it is where both sides are numbers."""
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return _OPERATIONS[op](left, right)
    return Real(op, left, right)


def real(op: str, left: Any, right: Any) -> Any:
    """A floating-point expression of numbers and polynomials; NotImplemented for anything else."""
    known = (int, float, Polynomial, Real)
    return Real(op, left, right) if isinstance(left, known) and isinstance(right, known) else NotImplemented


@dataclass(frozen=True, slots=True)
class Floor:
    """``dividend`` // ``divisor`` where that is no polynomial."""

    dividend: Any
    divisor: Any

    def key(self) -> Any:
        """What makes two floors the same."""
        return ("floor", terms_key(self.dividend), terms_key(self.divisor))

    def variables(self) -> set[int]:
        """Variables and atoms in it."""
        return variables_of(self.dividend) | variables_of(self.divisor)


@dataclass(frozen=True, slots=True)
class Rounded:
    """``round(real)``."""

    real: Real

    def key(self) -> Any:
        """What makes two roundings the same."""
        return ("round", self.real.key())

    def variables(self) -> set[int]:
        """Variables and atoms in it."""
        return self.real.variables()


@dataclass(frozen=True, slots=True)
class Maximum:
    """The largest of several values."""

    values: frozenset[Any]

    def key(self) -> Any:
        """What makes two maxima the same."""
        return ("max", self.values)

    def variables(self) -> set[int]:
        """Variables and atoms in it."""
        return set().union(*map(variables_of, self.values))


def largest(values: Iterable[Any]) -> Any:
    """The largest of whole numbers, which may be polynomials: what is never the largest is left out."""
    values = list(values)
    if all(type(value) is int for value in values):
        return max(values)
    different: dict[Any, Any] = {}
    for value in values:
        for candidate in _candidates(value):
            different[terms_key(candidate)] = candidate
    kept: list[Any] = []
    for candidate in different.values():
        if not any(_never_less(other, candidate) for other in kept):
            kept = [other for other in kept if not _never_less(candidate, other)]
            kept.append(candidate)
    return kept[0] if len(kept) == 1 else maximum(kept)


def maximum(values: Iterable[Any]) -> Any:
    """The largest of whole numbers, with nothing left out; of plain numbers a plain number."""
    values = list(values)
    if all(type(value) is int for value in values):
        return max(values)
    return atom(Maximum(frozenset(map(compared, values))))


def smallest(values: Iterable[Any]) -> Any:
    """The smallest of whole numbers, which may be polynomials."""
    return -largest([-value for value in values])


def _candidates(value: Any) -> Iterator[Any]:
    """A value, or the values that it is the largest of: a maximum, and what is added to it."""
    for key in terms_of(value):
        pair = next(iter(powers(key)), None)
        if pair is not None and pair[0] >= VARIABLES and key == 1 << (BITS * pair[0]) and value.terms[key] == 1:
            made = atom_of(pair[0])
            if isinstance(made, Maximum):
                rest = made_of({k: v for k, v in value.terms.items() if k != key})
                for candidate in made.values:
                    yield from _candidates(rest + candidate)
                return
    yield value


def _never_less(one: Any, other: Any) -> bool:
    """Whether ``one`` >= ``other`` everywhere within the bounds."""
    difference = one - other
    least, _ = current_path().bounds(difference) if isinstance(difference, Polynomial) else (difference, None)
    return least is not None and least >= 0


def value_at(value: Any, point: Sequence[int]) -> Any:
    """A polynomial (or a floating-point expression) at a point, exactly as Python computes it on plain numbers."""
    if isinstance(value, Real):
        return _OPERATIONS[value.op](value_at(value.left, point), value_at(value.right, point))
    if not isinstance(value, Polynomial):
        return value
    total: Any = 0
    for key, coefficient in value.terms.items():
        for index, exponent in powers(key):
            coefficient *= (point[index] if index < VARIABLES else _atom_at(index, point)) ** exponent
        total += coefficient
    return int(total)


def _atom_at(index: int, point: Sequence[int]) -> int:
    made = atom_of(index)
    if isinstance(made, Floor):
        return value_at(made.dividend, point) // value_at(made.divisor, point)
    if isinstance(made, Maximum):
        return max(value_at(value, point) for value in made.values)
    return round(value_at(made.real, point))


_OPERATIONS: Mapping[str, Any] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "**": lambda a, b: a**b,
}
