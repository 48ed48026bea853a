"""Polynomials arranged as a person writes them: the batch in front, S_kv recognised, one term after another.

61440·B·C + 1148252160·B   ─▶   B·(61,440·(C + 1) + 1,148,190,720)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from fxmeter.annotators.symbolic import Recipe, powers, substituted, terms_of, variable
from fxmeter.annotators.symbolic.monomials import Base, Monomial
from fxmeter.annotators.symbolic.sums import BATCH, PAST, QUERY
from fxmeter.models.stage_cost import Size


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
    """The largest or the smallest of several, or one rounded to the nearest whole number."""

    name: Literal["max", "min", "round"]
    parts: tuple[Node, ...]


Node = Number | Symbol | Operation | Call


@dataclass(frozen=True, slots=True)
class Writing:
    """How sizes are named: a node for each variable. ``kv`` if C + 1 is to be recognised (decode of one token)."""

    names: tuple[str, str, str]
    kv: bool

    def tree(self, value: Size) -> Node:
        """A polynomial, arranged."""
        if self.kv:
            in_kv = substituted(value, {PAST: variable(QUERY) - 1})
            if all(c >= 0 or _has_smallest(monomial) for monomial, c in terms_of(in_kv).items()):
                kv_len: Node = Operation("+", (Symbol(self.names[PAST]), Number(1)))
                return tree_of(in_kv, {BATCH: Symbol(self.names[BATCH]), QUERY: kv_len})
        return tree_of(value, {index: Symbol(name) for index, name in enumerate(self.names)})


def tree_of(value: Size, names: Mapping[Base, Node]) -> Node:
    """A polynomial, a floating-point expression in the order in which it is computed, or a number.

    ``names`` has what stands for each variable, and for those atoms that are not to be written out.
    """
    if isinstance(value, Recipe):
        return names[value] if value in names else _recipe(value, names)
    if isinstance(value, float):
        return Number(value)
    terms = terms_of(value)
    if not terms:
        return Number(0)
    denominator = math.lcm(*(v.denominator for v in terms.values() if isinstance(v, Fraction)), 1)
    if denominator > 1:
        return Operation("//", (tree_of(value * denominator, names), Number(denominator)))
    groups: dict[tuple[int, bool], list[tuple[list[tuple[Base, int]], int]]] = {}
    for monomial, coefficient in terms.items():
        factors = [(base, exponent) for base, exponent in powers(monomial) if base != BATCH]
        has_atom = any(isinstance(base, Recipe) for base, _ in factors)
        groups.setdefault((monomial[0][BATCH], has_atom), []).append((factors, int(coefficient)))
    parts = []
    for (batch, _), members in sorted(groups.items(), key=lambda item: (-item[0][0], -item[0][1])):
        ordered = sorted(members, key=lambda member: (-sum(e for _, e in member[0]), -member[1]))
        common = [_power(names[BATCH], batch)] if batch else []
        if len(ordered) == 1 or not common:
            parts += [_product(coefficient, common, factors, names) for factors, coefficient in ordered]
        else:
            inner = _sum([_product(coefficient, [], factors, names) for factors, coefficient in ordered])
            parts.append(Operation("*", (*common, inner)))
    return _sum(parts)


def _sum(parts: Sequence[Node]) -> Node:
    return parts[0] if len(parts) == 1 else Operation("+", tuple(parts))


def _product(
    coefficient: int, common: Sequence[Node], factors: Sequence[tuple[Base, int]], names: Mapping[Base, Node]
) -> Node:
    named: list[Node] = []
    for base, exponent in factors:
        if base in names or not isinstance(base, Recipe):
            named.append(_power(names[base], exponent))
        elif coefficient < 0 and exponent == 1 and _is_smallest(base):
            coefficient = -coefficient
            smallest = sorted((-part for part in base.parts), key=_far_out, reverse=True)
            named.append(Call("min", tuple(tree_of(part, names) for part in smallest)))
        else:
            named.append(_power(_recipe(base, names), exponent))
    parts = [*common, *named]
    if coefficient != 1 or not parts:
        parts.insert(0, Number(coefficient))
    return parts[0] if len(parts) == 1 else Operation("*", tuple(parts))


def _power(base: Node, exponent: int) -> Node:
    return base if exponent == 1 else Operation("**", (base, Number(exponent)))


def _recipe(recipe: Recipe, names: Mapping[Base, Node]) -> Node:
    parts = sorted(recipe.parts, key=_far_out, reverse=True) if recipe.op == "max" else recipe.parts
    nodes = tuple(tree_of(part, names) for part in parts)
    return Call(recipe.op, nodes) if recipe.op == "max" or recipe.op == "round" else Operation(recipe.op, nodes)


def _has_smallest(monomial: Monomial) -> bool:
    """Whether a term with a factor below zero is written as one above it."""
    return any(isinstance(base, Recipe) and exponent == 1 and _is_smallest(base) for base, exponent in powers(monomial))


def _is_smallest(recipe: Recipe) -> bool:
    """Whether it is the largest of amounts below zero: −max(−a, −b) is min(a, b)."""
    return recipe.op == "max" and all(c < 0 for part in recipe.parts for c in terms_of(part).values())


def _far_out(value: Size) -> list[tuple[int, float]]:
    """Which of two candidates is the larger one far out: by degree, then by coefficient."""
    return sorted(((sum(e for _, e in powers(m)), float(v)) for m, v in terms_of(value).items()), reverse=True)
