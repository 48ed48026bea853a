"""Comparisons of polynomials: answered at one point, and what the answers rest on.

A guard and a hint are what torch's symbolic shapes (``torch.fx.experimental.symbolic_shapes``) call by these names.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextvars import Token
from dataclasses import dataclass
from types import TracebackType
from typing import TypeAlias

from fxmeter.annotators.symbolic.evaluation import value_at
from fxmeter.annotators.symbolic.expr import (
    ANSWERS,
    Answers,
    Polynomial,
    Relation,
    answers,
    made_of,
    maximum,
    terms_of,
)
from fxmeter.annotators.symbolic.monomials import ONE, Base, Monomial, Recipe, key_of, monomial_of, powers, shifted
from fxmeter.models.stage_cost import Size

Bounds: TypeAlias = tuple[Size | None, Size | None]
"""The least and the most that a value can be, each None where not known."""


@dataclass(frozen=True, slots=True, eq=False)
class Guard:
    """``value`` >= 0, or with ``relation`` "==" or "!=" (not) 0."""

    value: Size
    relation: Relation

    def holds(self, point: Sequence[int]) -> bool:
        """Whether it does at a point."""
        return bool(compare(value_at(self.value, point), self.relation))

    @property
    def key(self) -> Hashable:
        """What makes two guards the same."""
        return key_of(self.value), self.relation

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Guard) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def compare(numbers: Size, relation: Relation) -> Size:
    """``relation`` of numbers, or of arrays of them, to 0."""
    return numbers >= 0 if relation == ">=" else (numbers == 0) == (relation == "==")


class Guards:
    """Answers comparisons as they are at ``hint``, inside ``with``; iterates over the guards that the answers rest on.

    ``lower`` and ``upper`` bound each variable (an upper bound may be None): what is the same for every value within
    them needs no guard.
    """

    def __init__(self, hint: Sequence[int], lower: Sequence[int], upper: Sequence[int | None]) -> None:
        self.hint, self.lower, self.upper = tuple(hint), tuple(lower), tuple(upper)
        self._guards: dict[Guard, None] = {}
        self._answers: dict[Guard, bool] = {}
        self._bounds: dict[Hashable, Bounds] = {}
        self._token: Token[Answers] | None = None

    def __enter__(self) -> Guards:
        self._token = ANSWERS.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._token is not None:
            ANSWERS.reset(self._token)

    def __iter__(self) -> Iterator[Guard]:
        return iter(self._guards)

    def holds(self, value: Polynomial, relation: Relation) -> bool:
        """Whether a value is so."""
        asked = Guard(value, relation)
        if asked not in self._answers:
            self._answers[asked] = self._answer(asked)
        return self._answers[asked]

    def _answer(self, asked: Guard) -> bool:
        value, relation = asked.value, asked.relation
        least, most = self.bounds(value)
        if relation == ">=" and least is not None and least >= 0:
            return True
        if (most is not None and most < 0) or (relation != ">=" and least is not None and least > 0):
            return relation == "!="
        if asked.holds(self.hint):
            self._guards[asked] = None
            return True
        negated = {">=": Guard(-value - 1, ">="), "==": Guard(value, "!="), "!=": Guard(value, "==")}[relation]
        self._guards[negated] = None
        return False

    def largest(self, values: Sequence[Size]) -> Size:
        """The largest of several, without those that never are."""
        different = {key_of(candidate): candidate for value in values for candidate in _candidates(value)}
        kept: list[Size] = []
        for candidate in different.values():
            if not any(self._never_less(other, candidate) for other in kept):
                kept = [other for other in kept if not self._never_less(candidate, other)]
                kept.append(candidate)
        return kept[0] if len(kept) == 1 else maximum(*kept)

    def _never_less(self, one: Size, other: Size) -> bool:
        """Whether ``one`` >= ``other`` everywhere within the bounds."""
        least, _ = self.bounds(one - other)
        return least is not None and least >= 0

    def bounds(self, value: Size) -> Bounds:
        """Bounds that ``value`` keeps everywhere within those of the variables."""
        if not isinstance(value, Polynomial):
            return value, value
        if value.key not in self._bounds:
            self._bounds[value.key] = self._bounds_of(value)
        return self._bounds[value.key]

    def _bounds_of(self, value: Polynomial) -> Bounds:
        terms = shifted(value.terms, self.lower)
        low: Size = terms.get(ONE, 0)
        high: Size = low
        for monomial, coefficient in terms.items():
            if not coefficient or monomial == ONE:
                continue
            if any(self._may_be_negative(base) for base, _ in powers(monomial)):
                return None, None
            least, most = self._extremes(monomial)
            near, far = coefficient * least, None if most is None else coefficient * most
            if coefficient > 0:
                low = None if low is None else low + near
                high = None if high is None or far is None else high + far
            else:
                high = None if high is None else high + near
                low = None if low is None or far is None else low + far
        return low, high

    def _may_be_negative(self, base: Base) -> bool:
        """Whether an atom may be less than 0; variables, counted from their lower bounds, are not."""
        if not isinstance(base, Recipe) or base.op == "round":
            return False  # what is rounded is the expected number of something
        parts = [least is None or least < 0 for least, _ in map(self.bounds, base.parts)]
        return all(parts) if base.op == "max" else any(parts)

    def _extremes(self, monomial: Monomial) -> tuple[int, int | None]:
        """The least and the most that a product of variables, counted from their lower bounds, and atoms can be."""
        low: int = 1
        high: int | None = 1
        for base, exponent in powers(monomial):
            least, most = self._of_floor(base) if isinstance(base, Recipe) else self._of_variable(base)
            low *= least**exponent
            high = None if high is None or most is None else high * most**exponent
        return low, high

    def _of_variable(self, index: int) -> tuple[int, int | None]:
        upper = self.upper[index]
        return 0, None if upper is None else upper - self.lower[index]

    def _of_floor(self, recipe: Recipe) -> tuple[int, int | None]:
        """What is known of an atom that is not below 0: of a floor by a number, that of its dividend."""
        if recipe.op == "//" and type(recipe.parts[1]) is int and recipe.parts[1] > 0:
            least, most = (None if end is None else int(end // recipe.parts[1]) for end in self.bounds(recipe.parts[0]))
            return max(0, least or 0), most
        return 0, None


def _candidates(value: Size) -> Iterator[Size]:
    """A value, or the values that it is the largest of: a maximum, and what is added to it."""
    for monomial, coefficient in terms_of(value).items():
        for base, _ in powers(monomial):
            if isinstance(base, Recipe) and base.op == "max" and coefficient == 1 and monomial == monomial_of(base):
                rest = made_of({m: c for m, c in terms_of(value).items() if m != monomial})
                for candidate in base.parts:
                    yield from _candidates(rest + candidate)
                return
    yield value


def largest(values: Iterable[Size]) -> Size:
    """The largest of whole numbers, which may be polynomials: what is never the largest is left out."""
    values = list(values)
    return max(values) if all(type(value) is int for value in values) else answers().largest(values)


def smallest(values: Iterable[Size]) -> Size:
    """The smallest of whole numbers, which may be polynomials."""
    return -largest([-value for value in values])
