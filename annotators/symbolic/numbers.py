"""The polynomial itself, as a number that arithmetic and comparisons work on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from fxmeter.annotators.symbolic.monomials import BITS, VARIABLES, is_whole, powers, quotient_of

if TYPE_CHECKING:
    from fxmeter.annotators.symbolic.guards import Path


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
        return _real("**", base, self) if isinstance(base, float) else NotImplemented

    def __truediv__(self, other: Any) -> Any:
        return _real("/", self, other)

    def __floordiv__(self, divisor: Any) -> Any:
        if isinstance(divisor, Polynomial):
            parts = quotient_of(self.terms, divisor.terms)
            return _floor(self, divisor) if parts is None or not is_whole(parts) else made_of(parts)
        if not isinstance(divisor, int) or divisor == 0:
            return NotImplemented
        quotient = made_of({key: Fraction(value) / divisor for key, value in self.terms.items()})
        return quotient if is_whole(terms_of(quotient)) else _floor(self, divisor)

    def __rfloordiv__(self, dividend: Any) -> Any:
        return _floor(dividend, self) if isinstance(dividend, int) else NotImplemented

    def __mod__(self, divisor: Any) -> Any:
        return self - self // divisor * divisor if isinstance(divisor, (int, Polynomial)) else NotImplemented

    def __abs__(self) -> Any:
        return self if self >= 0 else -self

    def or_larger(self, *others: Any) -> Any:
        """The largest of this one and ``others``, wherever that is which."""
        from fxmeter.annotators.symbolic.atoms import largest

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
    return Polynomial({1 << (BITS * index): 1})


_ATOMS: list[Any] = []
_INDEX: dict[Any, int] = {}


def atom(made: Any) -> Polynomial:
    """The atom as a polynomial; equal ones are one and the same."""
    index = _INDEX.get(made.key())
    if index is None:
        index = _INDEX[made.key()] = VARIABLES + len(_ATOMS)
        _ATOMS.append(made)
    return variable(index)


def atom_of(index: int) -> Any:
    """The recipe of an atom: a Floor, a Rounded or a Maximum."""
    return _ATOMS[index - VARIABLES]


def terms_of(value: Any) -> Mapping[int, Any]:
    """The terms of a polynomial or a plain number."""
    return value.terms if isinstance(value, Polynomial) else {0: value} if value else {}


def variables_of(value: Any) -> set[int]:
    """Variables and atoms that a polynomial has; those behind its atoms included."""
    found = {index for key in terms_of(value) for index, _ in powers(key)}
    for index in [i for i in found if i >= VARIABLES]:
        found |= atom_of(index).variables()
    return found


def terms_key(value: Any) -> Any:
    """What makes two polynomials, or numbers, the same."""
    return frozenset(terms_of(value).items())


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


class Compared(Polynomial):
    """A polynomial told from others by its terms alone, so that it can be a key outside of a path."""

    __slots__ = ()

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Polynomial) and other.terms == self.terms

    __hash__ = Polynomial.__hash__


def compared(value: Any) -> Any:
    """``value`` as something that may be a key."""
    return Compared(value.terms) if isinstance(value, Polynomial) else value


PATHS: list[Path] = []
"""Those inside of which a comparison is made, the innermost last."""


def current_path() -> Path:
    """The path that decides comparisons now. Without one they cannot be decided."""
    if not PATHS:
        raise TypeError("a size that is not known cannot be compared")
    return PATHS[-1]


def _floor(dividend: Any, divisor: Any) -> Polynomial:
    from fxmeter.annotators.symbolic.atoms import Floor  # which is made of polynomials

    return atom(Floor(dividend, divisor))


def _real(op: str, left: Any, right: Any) -> Any:
    from fxmeter.annotators.symbolic.atoms import real

    return real(op, left, right)
