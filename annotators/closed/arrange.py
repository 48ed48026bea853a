"""Polynomials arranged as a person writes them: the batch in front, S_kv recognised, one term after another.

61440·B·C + 1148252160·B   ─▶   B·(61,440·(C + 1) + 1,148,190,720)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from fxmeter.annotators.symbolic import VARIABLES, Floor, Maximum, Real, atom_of, powers, terms_of, variable
from fxmeter.annotators.symbolic.sums import substituted

BATCH, QUERY, PAST = range(VARIABLES)


@dataclass(frozen=True, slots=True)
class Number:
    """An integer, or a float of an expectation."""

    value: int | float


@dataclass(frozen=True, slots=True)
class Symbol:
    """A size, by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Operation:
    """A sum, product, difference, quotient, power, or floor of a quotient, of two parts or more."""

    op: Literal["+", "*", "-", "/", "**", "//"]
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """The largest of several, or one rounded to the nearest whole number."""

    name: Literal["max", "round"]
    parts: tuple[Node, ...]


Node = Number | Symbol | Operation | Call


@dataclass(frozen=True, slots=True)
class Writing:
    """How sizes are named: a node for each variable. ``kv`` if C + 1 is to be recognised (decode of one token)."""

    names: tuple[str, str, str]
    kv: bool

    def tree(self, value: Any) -> Node:
        """A polynomial, arranged."""
        if self.kv:
            shifted = substituted(value, {PAST: variable(QUERY) - 1})
            if all(coefficient >= 0 for coefficient in terms_of(shifted).values()):
                seen: Node = Operation("+", (Symbol(self.names[PAST]), Number(1)))
                return _tree(shifted, {BATCH: Symbol(self.names[BATCH]), QUERY: seen})
        return _tree(value, {index: Symbol(name) for index, name in enumerate(self.names)})


def _tree(value: Any, names: Mapping[int, Node]) -> Node:
    terms = terms_of(value)
    if not terms:
        return Number(0)
    denominator = math.lcm(*(v.denominator for v in terms.values() if isinstance(v, Fraction)), 1)
    if denominator > 1:
        return Operation("//", (_tree(value * denominator, names), Number(denominator)))
    groups: dict[tuple[int, bool], list[tuple[tuple[tuple[int, int], ...], int]]] = {}
    for key, coefficient in terms.items():
        exponents = dict(powers(key))
        batch = exponents.pop(BATCH, 0)
        has_atom = any(index >= VARIABLES for index in exponents)
        groups.setdefault((batch, has_atom), []).append((tuple(exponents.items()), int(coefficient)))
    parts = []
    for (batch, _), members in sorted(groups.items(), key=lambda item: (-item[0][0], -item[0][1])):
        ordered = sorted(members, key=lambda member: (-sum(e for _, e in member[0]), -member[1]))
        factor = [] if not batch else [_power(names[BATCH], batch)]
        if len(ordered) == 1 or not factor:
            parts += [_product(coefficient, factor, exponents, names) for exponents, coefficient in ordered]
        else:
            inner = _sum([_product(coefficient, [], exponents, names) for exponents, coefficient in ordered])
            parts.append(Operation("*", (*factor, inner)))
    return _sum(parts)


def _sum(parts: list[Node]) -> Node:
    return parts[0] if len(parts) == 1 else Operation("+", tuple(parts))


def _product(coefficient: int, factors: list[Node], exponents: Any, names: Mapping[int, Node]) -> Node:
    named = [_power(names[i] if i < VARIABLES else _atom(i, names), exponent) for i, exponent in exponents]
    parts = [*factors, *named]
    if coefficient != 1 or not parts:
        parts.insert(0, Number(coefficient))
    return parts[0] if len(parts) == 1 else Operation("*", tuple(parts))


def _power(base: Node, exponent: int) -> Node:
    return base if exponent == 1 else Operation("**", (base, Number(exponent)))


def _atom(index: int, names: Mapping[int, Node]) -> Node:
    made = atom_of(index)
    if isinstance(made, Floor):
        return Operation("//", (_tree(made.dividend, names), _tree(made.divisor, names)))
    if isinstance(made, Maximum):
        ordered = sorted(made.values, key=_size, reverse=True)
        return Call("max", tuple(_tree(value, names) for value in ordered))
    return Call("round", (_real(made.real, names),))


def _size(value: Any) -> Any:
    """Which of two candidates is the larger one far out: by degree, then by coefficient."""
    return sorted(((sum(e for _, e in powers(key)), float(v)) for key, v in terms_of(value).items()), reverse=True)


def _real(value: Any, names: Mapping[int, Node]) -> Node:
    """A floating-point expression, in the order in which it is computed."""
    if isinstance(value, Real):
        return Operation(value.op, (_real(value.left, names), _real(value.right, names)))  # type: ignore[arg-type]
    return Number(value) if isinstance(value, float) else _tree(value, names)
