"""The polynomials of a cost sheet as JavaScript: whole numbers are BigInt, so that each is as exact as in Python."""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import replace

from fxmeter.annotators.closed.arrange import Node, Symbol, tree_of
from fxmeter.annotators.closed.languages import PYTHON
from fxmeter.annotators.symbolic import Polynomial, Real, Recipe, atoms_of, key_of
from fxmeter.annotators.symbolic.monomials import Base
from fxmeter.models.stage_cost import Size

JAVASCRIPT = replace(
    PYTHON,
    number=lambda value: f"{value}n" if isinstance(value, int) else repr(value),
    power=lambda base, exponent: f"{base}**{exponent}",
    floor=lambda left, right: f"floor({left}, {right})",
    rounded=lambda text: f"nearest({text})",
    largest=lambda parts: f"largest({', '.join(parts)})",
)
"""``floor``, ``nearest`` and ``largest`` are functions of sheets.js."""


class Formulas:
    """Different values of a sheet, each once: a number, or a function ``(v, B, S_q, C) => …`` in which ``v(3)`` is the
    value at place 3. An atom is written once, and named by its place wherever it is used."""

    def __init__(self, sizes: tuple[str, str, str]) -> None:
        self._arguments = f"(v, {', '.join(sizes)}) => "
        self._names: dict[Base, Node] = {index: Symbol(name) for index, name in enumerate(sizes)}
        self._places: dict[tuple[type, Hashable], int] = {}
        self._rows: list[str] = []

    def place(self, value: Size) -> int:
        """Where a value is, which is added if it is new."""
        key = type(value), key_of(value)
        if key not in self._places:
            for part in value.parts if isinstance(value, Recipe) else (value,):
                for atom in [part] if part is not value and isinstance(part, Recipe) else atoms_of(part):
                    self.place(atom)
            self._rows.append(self._written(value))
            self._places[key] = len(self._rows) - 1
            if isinstance(value, Recipe):
                self._names[value] = Symbol(f"v({self._places[key]})")
        return self._places[key]

    @property
    def text(self) -> str:
        """A JavaScript array of them."""
        return "[" + ",\n".join(self._rows) + "]"

    def _written(self, value: Size) -> str:
        if isinstance(value, Real):
            operands = [JAVASCRIPT.write(tree_of(part, self._names)) for part in value.parts]
            return f"{self._arguments}real({', '.join([json.dumps(value.op), *operands])})"
        text = JAVASCRIPT.write(tree_of(value, self._names))
        return self._arguments + text if isinstance(value, (Polynomial, Recipe)) else text
