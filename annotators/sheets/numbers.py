"""Polynomials as plain JSON data: one table of different values, of which everything else has the places.

7                                          a whole number, of any size
0.96875                                    a floating-point number
[[2, 1, 0, 1], [5, 0, 0, 0, 12, 1]]        2·B·C + 5·v₁₂: of each term the coefficient (a whole number or "p/q"),
                                           the exponents of the three sizes, then (place, exponent) of each atom
{"op": "//", "of": [3, 4]}                 an atom, or a floating-point expression: an operation on values before it
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from fractions import Fraction
from typing import Any, get_args

from fxmeter.annotators.symbolic import Polynomial, Real, Recipe, key_of, made_of, terms_of
from fxmeter.annotators.symbolic.monomials import Monomial, Op
from fxmeter.models.stage_cost import Size

_ATOMS = ("//", "round", "max")
"""Operations whose results are whole numbers; the others make floating-point numbers."""


class Written:
    """The table of values as it grows."""

    def __init__(self) -> None:
        self.table: list[Any] = []
        self._places: dict[tuple[type, Hashable], int] = {}

    def place(self, value: Size) -> int:
        """Where a value is in the table, to which it is added if it is new."""
        key = type(value), key_of(value)
        if key not in self._places:
            written = self._written(value)
            self._places[key] = len(self.table)
            self.table.append(written)
        return self._places[key]

    def _written(self, value: Size) -> Any:
        if isinstance(value, Recipe):
            return {"op": value.op, "of": [self.place(part) for part in value.parts]}
        if not isinstance(value, Polynomial):
            return value if isinstance(value, (int, float)) else value.item()
        rows = []
        for (exponents, atoms), coefficient in terms_of(value).items():
            places = sorted((self.place(atom), exponent) for atom, exponent in atoms)
            shown = coefficient if isinstance(coefficient, int) else str(coefficient)
            rows.append([shown, *exponents, *(number for pair in places for number in pair)])
        return rows


def read(table: Sequence[Any]) -> list[Size]:
    """The values of a table. Raises one of NO_DOCUMENT for a table that is none."""
    values: list[Size] = []
    for written in table:
        values.append(_read(written, values))
    return values


def _read(written: Any, before: Sequence[Size]) -> Size:
    if isinstance(written, dict):
        op = written["op"]
        if op not in get_args(Op):
            raise ValueError(f"no operation {op!r}")
        parts = [before[_index(place)] for place in written["of"]]
        return Recipe(op, *parts) if op in _ATOMS else Real(op, *parts)
    if isinstance(written, list):
        return made_of({_monomial(row[1:], before): _coefficient(row[0]) for row in written})
    if isinstance(written, bool) or not isinstance(written, (int, float)):
        raise TypeError(f"{written!r:.80} is no value")
    return written


def _monomial(row: Sequence[int], before: Sequence[Size]) -> Monomial:
    b, x, y, *atoms = map(_index, row)
    pairs = zip(atoms[::2], atoms[1::2], strict=True)
    return (b, x, y), frozenset((_atom(before[place]), exponent) for place, exponent in pairs)


def _atom(value: Size) -> Recipe:
    if not isinstance(value, Recipe):
        raise TypeError(f"{value!r:.80} is no atom")
    return value


def _coefficient(written: Any) -> int | Fraction:
    if isinstance(written, str):
        return Fraction(written)
    if type(written) is not int:
        raise TypeError(f"{written!r:.80} is no coefficient")
    return written


def _index(number: Any) -> int:
    """A place or an exponent."""
    if type(number) is not int or number < 0:
        raise TypeError(f"{number!r:.80} is no place and no exponent")
    return number
