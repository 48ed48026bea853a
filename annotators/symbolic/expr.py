"""Whole numbers that depend on a few sizes, as numbers that arithmetic and comparisons work on.

A :class:`Polynomial` is exact. What no polynomial can say, a floor, a rounded expectation or the largest of several, is
an *atom*: a :class:`Recipe` that stands in a polynomial as one more variable. A floating-point expression is a
:class:`Real`. Comparisons are answered by whoever is set in :data:`ANSWERS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from fractions import Fraction
from typing import Literal, NoReturn, Protocol, TypeAlias

from fxmeter.annotators.symbolic.monomials import (
    ONE,
    Base,
    Coefficient,
    Monomial,
    Op,
    Recipe,
    Terms,
    is_whole,
    key_of,
    monomial_of,
    multiplied,
    powers,
    quotient_of,
)
from fxmeter.models.errors import FxmeterError
from fxmeter.models.stage_cost import Size

Relation: TypeAlias = Literal[">=", "==", "!="]
"""Of a value and 0."""


class NotPolynomial(FxmeterError):  # noqa: N818  a finding, not a mistake
    """A size, or a cost, that no polynomial and no atom expresses."""


class Answers(Protocol):
    """Who decides comparisons of values that are not known: :class:`fxmeter.annotators.symbolic.guards.Guards`."""

    def holds(self, value: Polynomial, relation: Relation) -> bool:
        """Whether a value is so."""

    def largest(self, values: Sequence[Size]) -> Size:
        """The largest of several, without those that never are."""


ANSWERS: ContextVar[Answers] = ContextVar("answers")


def answers() -> Answers:
    """Whoever decides comparisons now."""
    try:
        return ANSWERS.get()
    except LookupError:
        raise RuntimeError("sizes that are not known are compared outside of Guards") from None


def _refuse(*_: object) -> NoReturn:
    raise NotPolynomial("an op's rule asks for the value of a size, which is not one number")


def _real(op: Op, left: Size, right: Size) -> Size:
    """A floating-point expression of numbers and polynomials; NotImplemented for anything else."""
    known = (int, float, Polynomial, Real)
    return Real(op, left, right) if isinstance(left, known) and isinstance(right, known) else NotImplemented


def _kept(op: Op) -> tuple[Callable[[Size, Size], Size], Callable[[Size, Size], Size]]:
    """The methods for an operator, and for its reflection, whose result is a floating-point expression."""
    return lambda left, right: _real(op, left, right), lambda right, left: _real(op, left, right)


class Polynomial:
    """A polynomial with rational coefficients that is a whole number wherever it is used. Never a constant: those
    are plain ``int``. It cannot be changed."""

    __slots__ = ("_key", "terms")

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self._key: frozenset[tuple[Monomial, Coefficient]] | None = None

    @property
    def key(self) -> frozenset[tuple[Monomial, Coefficient]]:
        """What makes two of them the same."""
        if self._key is None:
            self._key = frozenset(self.terms.items())
        return self._key

    def __add__(self, other: Size) -> Size:
        if isinstance(other, (int, Polynomial)):
            if not terms_of(other):
                return self
            terms = dict(self.terms)
            for monomial, coefficient in terms_of(other).items():
                terms[monomial] = terms.get(monomial, 0) + coefficient
            return made_of(terms)
        return _real("+", self, other)

    __radd__ = __add__

    def __neg__(self) -> Polynomial:
        return Polynomial({monomial: -coefficient for monomial, coefficient in self.terms.items()})

    def __pos__(self) -> Polynomial:
        return self

    def __sub__(self, other: Size) -> Size:
        return self + -other if isinstance(other, (int, Polynomial)) else _real("-", self, other)

    def __rsub__(self, other: Size) -> Size:
        return -self + other if isinstance(other, (int, Polynomial)) else _real("-", other, self)

    def __mul__(self, other: Size) -> Size:
        if isinstance(other, int):
            return Polynomial({m: c * other for m, c in self.terms.items()}) if other else 0
        if isinstance(other, Polynomial):
            terms: dict[Monomial, Coefficient] = {}
            for one, x in self.terms.items():
                for two, y in other.terms.items():
                    product = multiplied(one, two)
                    terms[product] = terms.get(product, 0) + x * y
            return made_of(terms)
        return _real("*", self, other)

    def __rmul__(self, other: Size) -> Size:
        return self * other if isinstance(other, (int, Polynomial)) else _real("*", other, self)

    def __pow__(self, exponent: Size) -> Size:
        if isinstance(exponent, int) and exponent >= 0:
            return math.prod([self] * exponent)
        return _refuse() if isinstance(exponent, (int, float, Polynomial, Real)) else NotImplemented

    def __rpow__(self, base: Size) -> Size:
        if isinstance(base, float):
            return _real("**", base, self)
        return _refuse() if isinstance(base, (int, Real)) else NotImplemented

    __truediv__, __rtruediv__ = _kept("/")

    def __floordiv__(self, divisor: Size) -> Size:
        if isinstance(divisor, Polynomial):
            quotient = quotient_of(self.terms, divisor.terms)
        elif isinstance(divisor, int):
            quotient = {monomial: Fraction(coefficient) / divisor for monomial, coefficient in self.terms.items()}
        else:
            return _refuse() if isinstance(divisor, (float, Real)) else NotImplemented
        return atom("//", self, divisor) if quotient is None or not is_whole(quotient) else made_of(quotient)

    def __rfloordiv__(self, dividend: Size) -> Size:
        return atom("//", dividend, self) if isinstance(dividend, int) else NotImplemented

    def __mod__(self, divisor: Size) -> Size:
        return self - self // divisor * divisor

    def __rmod__(self, dividend: Size) -> Size:
        return dividend - dividend // self * self if isinstance(dividend, int) else NotImplemented

    def __abs__(self) -> Size:
        return self if self >= 0 else -self

    def __round__(self, digits: None = None) -> Polynomial:
        return self

    def or_larger(self, *others: Size) -> Size:
        """The largest of this one and ``others``."""
        return answers().largest([self, *others])

    def __eq__(self, other: object) -> Size:
        if isinstance(other, Polynomial) and (other is self or other.terms == self.terms):
            return True
        return _holds(self, other, "==")

    def __ge__(self, other: Size) -> Size:
        return _holds(self, other, ">=")

    def __le__(self, other: Size) -> Size:
        return _holds(-self, -other, ">=") if isinstance(other, (int, Polynomial)) else NotImplemented

    def __gt__(self, other: Size) -> Size:
        return not self <= other

    def __lt__(self, other: Size) -> Size:
        return not self >= other

    def __bool__(self) -> bool:
        return answers().holds(self, "!=")

    def __hash__(self) -> int:
        return hash(self.key)

    __int__ = __index__ = __float__ = _refuse

    def __str__(self) -> str:
        return " + ".join(
            "·".join([str(c)] * (c != 1 or m == ONE) + [f"x{base}" + f"^{e}" * (e > 1) for base, e in powers(m)])
            for m, c in self.terms.items()
        )

    __repr__ = __str__


def _holds(value: Polynomial, other: object, relation: Relation) -> Size:
    """Whether ``value`` − ``other`` is so; NotImplemented for what is no whole number."""
    if not isinstance(other, (int, Polynomial)):
        return NotImplemented
    difference = value - other
    if isinstance(difference, Polynomial):
        return answers().holds(difference, relation)
    return bool(difference >= 0 if relation == ">=" else (difference == 0) == (relation == "=="))


class Real(Recipe):
    """A floating-point expression over polynomials, kept as it was computed so that it rounds alike everywhere."""

    __slots__ = ()

    __add__, __radd__ = _kept("+")
    __sub__, __rsub__ = _kept("-")
    __mul__, __rmul__ = _kept("*")
    __truediv__, __rtruediv__ = _kept("/")

    def __round__(self, digits: None = None) -> Polynomial:
        """The nearest whole number, halves to even, as Python rounds a float."""
        return atom("round", self)

    __pow__ = __rpow__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __abs__ = __bool__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __int__ = __float__ = __ceil__ = __floor__ = __trunc__ = _refuse


def variable(base: Base) -> Polynomial:
    """A variable, by its number, or an atom, by itself."""
    return Polynomial({monomial_of(base): 1})


def atom(op: Op, *parts: Size) -> Polynomial:
    """The result of an operation as one more variable."""
    return variable(Recipe(op, *parts))


def terms_of(value: Size) -> Terms:
    """The terms of a polynomial or a plain number."""
    return value.terms if isinstance(value, Polynomial) else {ONE: value} if value else {}


def made_of(terms: Terms) -> Size:
    """The polynomial, or plain number, with these terms; what is 0 is left out."""
    kept: dict[Monomial, Coefficient] = {}
    for monomial, value in terms.items():
        if value:
            kept[monomial] = value.numerator if type(value) is Fraction and value.denominator == 1 else value
    if not kept:
        return 0
    if len(kept) == 1 and type(kept.get(ONE)) is int:
        return kept[ONE]
    return Polynomial(kept)


def maximum(*values: Size) -> Size:
    """The largest of whole numbers, with nothing left out; of plain numbers a plain number."""
    if all(type(value) is int for value in values):
        return max(values)
    return atom("max", *{key_of(value): value for value in values}.values())


def rounded_up(total: Size, parts: int) -> Size:
    """⌈total / parts⌉: a polynomial where that is one, else with a floor in it."""
    exact = total // parts
    return exact if terms_of(exact * parts - total) == {} else (total + (parts - 1)) // parts
