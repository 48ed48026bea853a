"""Whole numbers that depend on a few sizes: exact polynomials, on which pricing rules run as they do on ``int``.

A :class:`Polynomial` in the variables 0, 1, 2, ... (what they stand for is the caller's business) supports ``+ - *``,
``//`` and ``%``, powers, comparisons and ``round`` of the floating-point expressions made from it. What no polynomial
can express (a floor, a rounded expectation, a maximum) becomes an *atom*: one more variable, with a recipe.

Comparisons are where a result is piecewise. Inside ``with Path(...)`` each one is answered at a witness point, and
what makes the answer so is kept as a condition: the result holds wherever all conditions hold. What is the same for
every value within the bounds is answered without a condition.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

_BITS = 6
_LOW = (1 << _BITS) - 1
VARIABLES = 3
"""Indices below this are variables; the others are atoms."""


class Polynomial:
    """A polynomial with rational coefficients that is a whole number wherever it is used. Never a constant: those
    are plain ``int``. ``terms`` maps a monomial, its exponents packed into one integer, to a coefficient."""

    __slots__ = ("_hash", "_text", "terms")

    def __init__(self, terms: dict[int, Any]) -> None:
        self.terms = terms
        self._hash: int | None = None
        self._text: str | None = None

    def __add__(self, other: Any) -> Any:
        if type(other) is int:
            if not other:
                return self
            terms = dict(self.terms)
            terms[0] = terms.get(0, 0) + other
            return Polynomial(terms if terms[0] else {k: v for k, v in terms.items() if k})
        if isinstance(other, Polynomial):
            terms = dict(self.terms)
            for key, value in other.terms.items():
                terms[key] = terms.get(key, 0) + value
            return made_of(terms)
        return _real("+", self, other)

    __radd__ = __add__

    def __neg__(self) -> Any:
        return Polynomial({key: -value for key, value in self.terms.items()})

    def __pos__(self) -> Any:
        return self

    def __sub__(self, other: Any) -> Any:
        return self + -other if isinstance(other, (int, Polynomial)) else _real("-", self, other)

    def __rsub__(self, other: Any) -> Any:
        return -self + other if isinstance(other, (int, Polynomial)) else _real("-", other, self)

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, int):
            return Polynomial({k: v * other for k, v in self.terms.items()}) if other else 0
        if isinstance(other, Polynomial):
            terms: dict[int, Any] = {}
            for a, x in self.terms.items():
                for b, y in other.terms.items():
                    terms[a + b] = terms.get(a + b, 0) + x * y
            return made_of(terms)
        return _real("*", self, other)

    def __rmul__(self, other: Any) -> Any:
        return self * other if isinstance(other, (int, Polynomial)) else _real("*", other, self)

    def __pow__(self, exponent: Any) -> Any:
        if isinstance(exponent, int) and exponent >= 0:
            return math.prod([self] * exponent)
        return NotImplemented

    def __rpow__(self, base: Any) -> Any:
        return Real("**", base, self) if isinstance(base, float) else NotImplemented

    def __truediv__(self, other: Any) -> Any:
        return _real("/", self, other)

    def __floordiv__(self, divisor: Any) -> Any:
        if isinstance(divisor, Polynomial):
            return _divided(self, divisor)
        if not isinstance(divisor, int) or divisor == 0:
            return NotImplemented
        quotient = made_of({key: Fraction(value) / divisor for key, value in self.terms.items()})
        if is_whole(quotient):
            return quotient
        return atom(Floor(self, divisor))

    def __rfloordiv__(self, dividend: Any) -> Any:
        return atom(Floor(dividend, self)) if isinstance(dividend, int) else NotImplemented

    def __mod__(self, divisor: Any) -> Any:
        return self - self // divisor * divisor if isinstance(divisor, (int, Polynomial)) else NotImplemented

    def __abs__(self) -> Any:
        return self if self >= 0 else -self

    def or_larger(self, *others: Any) -> Any:
        """The largest of this one and ``others``, wherever that is which."""
        return largest([self, *others])

    def __eq__(self, other: Any) -> bool:
        if isinstance(other, Polynomial) and (other is self or other.terms == self.terms):
            return True
        return current_path().is_zero(self - other) if isinstance(other, (int, Polynomial)) else NotImplemented

    def __ge__(self, other: Any) -> bool:
        return current_path().at_least_zero(self - other) if isinstance(other, (int, Polynomial)) else NotImplemented

    def __le__(self, other: Any) -> bool:
        return current_path().at_least_zero(other - self) if isinstance(other, (int, Polynomial)) else NotImplemented

    def __gt__(self, other: Any) -> bool:
        return not self <= other

    def __lt__(self, other: Any) -> bool:
        return not self >= other

    def __bool__(self) -> bool:
        return not current_path().is_zero(self)

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self.terms.items()))
        return self._hash

    def __str__(self) -> str:
        if self._text is None:
            self._text = " + ".join(
                "·".join([str(value)] * (value != 1 or not key) + [f"x{v}" + f"^{e}" * (e > 1) for v, e in powers(key)])
                for key, value in self.terms.items()
            )
        return self._text

    __repr__ = __str__


def variable(index: int) -> Polynomial:
    """The variable itself."""
    return Polynomial({1 << (_BITS * index): 1})


def powers(key: int) -> Iterator[tuple[int, int]]:
    """(variable or atom, exponent) of a packed monomial."""
    index = 0
    while key:
        if key & _LOW:
            yield index, key & _LOW
        key >>= _BITS
        index += 1


def terms_of(value: Any) -> Mapping[int, Any]:
    """The terms of a polynomial or a plain number."""
    return value.terms if isinstance(value, Polynomial) else {0: value} if value else {}


def variables_of(value: Any) -> set[int]:
    """Variables and atoms that a polynomial has; those behind its atoms included."""
    found = {index for key in terms_of(value) for index, _ in powers(key)}
    for index in [i for i in found if i >= VARIABLES]:
        found |= atom_of(index).variables()
    return found


def is_whole(value: Any) -> bool:
    """Whether a polynomial with rational coefficients is a whole number at all whole arguments.

    It is if it is one on the grid of 0 ... degree in each variable.
    """
    terms = terms_of(value)
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


def _divided(dividend: Polynomial, divisor: Polynomial) -> Any:
    """The exact quotient of two polynomials where it is a polynomial, by long division; else its floor."""
    lead = max(divisor.terms)
    rest, quotient = dict(dividend.terms), dict[int, Any]()
    while rest:
        top = max(rest)
        if not _divides(lead, top):
            return atom(Floor(dividend, divisor))
        factor = Fraction(rest[top]) / divisor.terms[lead]
        quotient[top - lead] = factor
        for key, value in divisor.terms.items():
            place = key + top - lead
            rest[place] = rest.get(place, 0) - factor * value
            if not rest[place]:
                del rest[place]
    found = made_of(quotient)
    return found if is_whole(found) else atom(Floor(dividend, divisor))


def _divides(key: int, other: int) -> bool:
    """Whether a monomial divides another."""
    exponents = dict(powers(other))
    return all(exponents.get(index, 0) >= exponent for index, exponent in powers(key))


def made_of(terms: Mapping[int, Any]) -> Any:
    """The polynomial, or plain number, with these terms; what is 0 is left out."""
    kept = {}
    for key, value in terms.items():
        if value:
            kept[key] = value.numerator if type(value) is Fraction and value.denominator == 1 else value
    if not kept:
        return 0
    if len(kept) == 1 and type(kept.get(0)) is int:
        return kept[0]
    return Polynomial(kept)


class Real:
    """A floating-point expression over polynomials, kept as it was computed so that it rounds alike everywhere."""

    __slots__ = ("left", "op", "right")

    def __init__(self, op: str, left: Any, right: Any) -> None:
        self.op, self.left, self.right = op, left, right

    def __add__(self, other: Any) -> Any:
        return _real("+", self, other)

    def __radd__(self, other: Any) -> Any:
        return _real("+", other, self)

    def __sub__(self, other: Any) -> Any:
        return _real("-", self, other)

    def __rsub__(self, other: Any) -> Any:
        return _real("-", other, self)

    def __mul__(self, other: Any) -> Any:
        return _real("*", self, other)

    def __rmul__(self, other: Any) -> Any:
        return _real("*", other, self)

    def __truediv__(self, other: Any) -> Any:
        return _real("/", self, other)

    def __round__(self, digits: None = None) -> Polynomial:
        """The nearest whole number, halves to even, as Python rounds a float."""
        return atom(Rounded(self))

    def key(self) -> Any:
        """What makes two expressions the same."""
        parts = (self.left, self.right)
        return (
            self.op,
            *(p.key() if isinstance(p, Real) else p if isinstance(p, float) else _terms_key(p) for p in parts),
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


def _real(op: str, left: Any, right: Any) -> Any:
    known = (int, float, Polynomial, Real)
    return Real(op, left, right) if isinstance(left, known) and isinstance(right, known) else NotImplemented


@dataclass(frozen=True, slots=True)
class Floor:
    """``dividend`` // ``divisor`` where that is no polynomial."""

    dividend: Any
    divisor: Any

    def key(self) -> Any:
        """What makes two floors the same."""
        return ("floor", _terms_key(self.dividend), _terms_key(self.divisor))

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


Atom = Floor | Rounded | Maximum
_ATOMS: list[Atom] = []
_INDEX: dict[Any, int] = {}


def atom(made: Atom) -> Polynomial:
    """The atom as a polynomial; equal ones are one and the same."""
    index = _INDEX.get(made.key())
    if index is None:
        index = _INDEX[made.key()] = VARIABLES + len(_ATOMS)
        _ATOMS.append(made)
    return variable(index)


def atom_of(index: int) -> Atom:
    """The recipe of an atom."""
    return _ATOMS[index - VARIABLES]


def largest(values: Iterable[Any]) -> Any:
    """The largest of whole numbers, which may be polynomials: what is never the largest is left out."""
    values = list(values)
    if all(type(value) is int for value in values):
        return max(values)
    different: dict[Any, Any] = {}
    for value in values:
        for candidate in _candidates(value):
            different[_terms_key(candidate)] = candidate
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
        if pair is not None and pair[0] >= VARIABLES and key == 1 << (_BITS * pair[0]) and value.terms[key] == 1:
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


def _terms_key(value: Any) -> Any:
    return frozenset(terms_of(value).items())


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
        _PATHS.append(self)
        return self

    def __exit__(self, *exc: Any) -> None:
        _PATHS.pop()

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
        key_of_all = _terms_key(value)
        if key_of_all not in self._bounds:
            self._bounds[key_of_all] = self._bounds_of(value)
        return self._bounds[key_of_all]

    def _bounds_of(self, value: Polynomial) -> tuple[Any, Any]:
        shifted = _shifted(value.terms, self.lower)
        low = high = shifted.get(0, 0)
        bounded_below = bounded_above = True
        for key, coefficient in shifted.items():
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
        if not isinstance(made, Floor):
            return False
        for part in (made.dividend, made.divisor):
            least, _ = self.bounds(part) if isinstance(part, Polynomial) else (part, None)
            if least is None or least < 0:
                return True
        return False

    def _top(self, key: int) -> int | None:
        product = 1
        for index, exponent in powers(key):
            upper = self.upper[index] if index < VARIABLES else None
            if upper is None:
                return None
            product *= (upper - self.lower[index]) ** exponent
        return product


class _Compared(Polynomial):
    """A polynomial told from others by its terms alone, so that it can be a key outside of a path."""

    __slots__ = ()

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Polynomial) and other.terms == self.terms

    __hash__ = Polynomial.__hash__


def compared(value: Any) -> Any:
    """``value`` as something that may be a key."""
    return _Compared(value.terms) if isinstance(value, Polynomial) else value


def _shifted(terms: Mapping[int, Any], lower: Sequence[int]) -> dict[int, Any]:
    """The same polynomial in variables counted from their lower bounds (atoms are never negative)."""
    current = dict(terms)
    for index, base in enumerate(lower):
        if base == 0:
            continue
        moved: dict[int, Any] = {}
        unit = 1 << (_BITS * index)
        for key, value in current.items():
            exponent = (key >> (_BITS * index)) & _LOW
            rest = key - exponent * unit
            for part in range(exponent + 1):
                target = rest + part * unit
                factor = _binomial(exponent, part) * base ** (exponent - part)
                moved[target] = moved.get(target, 0) + value * factor
        current = moved
    return current


@cache
def _binomial(n: int, k: int) -> int:
    return math.comb(n, k)


_PATHS: list[Path] = []


def current_path() -> Path:
    """The path that decides comparisons now. Without one they cannot be decided."""
    if not _PATHS:
        raise TypeError("a size that is not known cannot be compared")
    return _PATHS[-1]
