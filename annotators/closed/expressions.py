"""Closed forms as sympy expressions: a polynomial where there is one piece, ``Max`` for a peak, ``Piecewise`` else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy

from fxmeter.annotators.shapes.mesh import explore
from fxmeter.annotators.shapes.pieces import Piece, Pieces
from fxmeter.annotators.symbolic import (
    Condition,
    Floor,
    Maximum,
    Real,
    atom_of,
    powers,
    terms_of,
    value_at,
    variable,
    variables_of,
)
from fxmeter.models.stage_cost import EXACT


def symbols_of(pieces: Pieces) -> tuple[sympy.Symbol, ...]:
    """The three sizes as positive (lengths that may be 0: non-negative) integers."""
    first, second, third = pieces.symbols
    return (
        sympy.Symbol(first, integer=True, positive=True),
        sympy.Symbol(
            second, integer=True, **({"nonnegative": True} if pieces.stage == "vision" else {"positive": True})
        ),
        sympy.Symbol(third, integer=True, nonnegative=True),
    )


def expressions_of(finder: Pieces, path: str) -> Mapping[str, sympy.Expr]:
    """Every field, ``flops`` and ``io_bytes``, of a module."""
    pieces = explore(finder)
    symbols = symbols_of(finder)
    costs = [piece.modules[path].cost for piece in pieces]
    return {
        name: _piecewise([(getattr(cost, name), piece) for cost, piece in zip(costs, pieces, strict=True)], symbols)
        for name in EXACT
    }


def _piecewise(values: Sequence[tuple[Any, Piece]], symbols: Sequence[sympy.Symbol]) -> sympy.Expr:
    """One expression for all pieces, the most general first; a piece that it covers too needs no line of its own."""
    ordered = sorted(values, key=lambda item: _freedom(item[1]), reverse=True)
    cases: list[tuple[Any, Piece]] = []
    for value, piece in ordered:
        if not any(_same_within(value, other, piece) for other, _ in cases):
            cases.append((value, piece))
    if len(cases) == 1:
        return to_sympy(cases[0][0], symbols)
    special = [
        (to_sympy(value, symbols), sympy.Or(*(_where(p, symbols) for v, p in ordered if _same_within(v, value, p))))
        for value, piece in reversed(cases[1:])
    ]
    return sympy.Piecewise(*special, (to_sympy(cases[0][0], symbols), True))


def _freedom(piece: Piece) -> tuple[int, int, int]:
    """How general a piece is: sizes without an upper bound, then without equations, then how large its least are."""
    region = piece.region
    unbounded = sum(high is None for high in region.upper)
    return (unbounded, -sum(c.relation == "==" for c in piece.conditions), sum(region.lower))


def _same_within(value: Any, other: Any, piece: Piece) -> bool:
    """Whether two polynomials are the same on a piece whose sizes may be fixed by bounds or equations."""
    fixed = {
        i: low for i, (low, high) in enumerate(zip(piece.region.lower, piece.region.upper, strict=True)) if low == high
    }
    for condition in piece.conditions:
        if condition.relation == "==":
            free = variables_of(condition.value)
            if len(free) == 1 and condition.value.terms.keys() <= {0, *_linear(free)}:
                (index,) = free
                fixed[index] = -condition.value.terms.get(0, 0) // condition.value.terms[next(iter(_linear(free)))]
    return _substituted(value, fixed) == _substituted(other, fixed)


def _linear(free: set[int]) -> list[int]:
    return [1 << (6 * index) for index in free]


def _substituted(value: Any, fixed: Mapping[int, int]) -> Any:
    """A form that compares equal where polynomials agree once some sizes are fixed."""
    found: dict[Any, Any] = {}
    for key, coefficient in terms_of(value).items():
        rest = []
        for index, exponent in powers(key):
            if index in fixed:
                coefficient = coefficient * fixed[index] ** exponent
            elif index >= 3 and variables_of(variable(index)) <= set(fixed) | {index}:
                point = [fixed.get(i, 0) for i in range(3)]
                coefficient = coefficient * value_at(variable(index), point) ** exponent
            else:
                rest.append((_atom_key(index, fixed), exponent))
        found[tuple(rest)] = found.get(tuple(rest), 0) + coefficient
    return {key: number for key, number in found.items() if number}


def _atom_key(index: int, fixed: Mapping[int, int]) -> Any:
    if index < 3:
        return index
    made = atom_of(index)
    if isinstance(made, Maximum):
        return ("max", frozenset(tuple(sorted(_substituted(v, fixed).items(), key=repr)) for v in made.values))
    if isinstance(made, Floor):
        return ("floor", tuple(sorted(_substituted(made.dividend, fixed).items(), key=repr)), made.divisor)
    return ("round", _real_key(made.real, fixed))


def _real_key(value: Any, fixed: Mapping[int, int]) -> Any:
    if isinstance(value, Real):
        return (value.op, _real_key(value.left, fixed), _real_key(value.right, fixed))
    if isinstance(value, float):
        return value
    return tuple(sorted(_substituted(value, fixed).items(), key=repr))


def _where(piece: Piece, symbols: Sequence[sympy.Symbol]) -> sympy.Basic:
    """When a piece holds, as a sympy condition."""
    region = piece.region
    parts: list[Any] = []
    for symbol, low, high in zip(symbols, region.lower, region.upper, strict=True):
        if low == high:
            parts.append(sympy.Eq(symbol, low))
        else:
            parts += [symbol >= low] * (low > 1) + ([] if high is None else [symbol <= high])
    together = symbols[1] + symbols[2]
    parts += [together >= region.sums[0]] * (region.sums[0] > 1)
    parts += [] if region.sums[1] is None else [together <= region.sums[1]]
    parts += [_condition(condition, symbols) for condition in piece.conditions]
    return sympy.And(*parts)


def _condition(condition: Condition, symbols: Sequence[sympy.Symbol]) -> sympy.Basic:
    value = to_sympy(condition.value, symbols)
    if condition.relation == ">=":
        return sympy.Ge(value, 0)
    return sympy.Eq(value, 0) if condition.relation == "==" else sympy.Ne(value, 0)


def to_sympy(value: Any, symbols: Sequence[sympy.Symbol]) -> sympy.Expr:
    """A polynomial as sympy writes it. An expectation is rounded to the nearest whole number, as ``floor(x + 1/2)``."""
    if isinstance(value, Real):
        left, right = to_sympy(value.left, symbols), to_sympy(value.right, symbols)
        return _SYMPY[value.op](left, right)
    if isinstance(value, float):
        return sympy.nsimplify(value, rational=True) if value == int(value) else sympy.Rational(str(value))
    terms = []
    for key, coefficient in terms_of(value).items():
        factors = [_symbol(index, symbols) ** exponent for index, exponent in powers(key)]
        terms.append(sympy.Mul(sympy.Rational(coefficient), *factors))
    return sympy.Add(*terms)


def _symbol(index: int, symbols: Sequence[sympy.Symbol]) -> sympy.Expr:
    if index < 3:
        return symbols[index]
    made = atom_of(index)
    if isinstance(made, Maximum):
        return sympy.Max(*(to_sympy(value, symbols) for value in made.values))
    if isinstance(made, Floor):
        return sympy.floor(to_sympy(made.dividend, symbols) / made.divisor)
    return sympy.floor(to_sympy(made.real, symbols) + sympy.Rational(1, 2))


_SYMPY: Mapping[str, Callable[[Any, Any], sympy.Expr]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "**": lambda a, b: a**b,
}
