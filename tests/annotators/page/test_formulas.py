"""Polynomials as JavaScript over big integers."""

from __future__ import annotations

import pytest

from fxmeter.annotators.page.formulas import Formulas
from fxmeter.annotators.symbolic import atom, variable

B, C = variable(0), variable(2)
SIZES = ("B", "S_q", "C")


@pytest.mark.parametrize(
    ("value", "rows"),
    [
        (2**60, ["1152921504606846976n"]),
        (3 * B * C + 7, ["(v, B, S_q, C) => 3n*B*C + 7n"]),
        (B**2 - B, ["(v, B, S_q, C) => B**2n - 1n*B"]),
        (5 * (C // 4) + 1, ["(v, B, S_q, C) => floor(C, 4n)", "(v, B, S_q, C) => 5n*v(0) + 1n"]),
        (atom("max", B, C), ["(v, B, S_q, C) => largest(B, C)", "(v, B, S_q, C) => v(0)"]),
        (
            round(8 * (1 - 0.75**B)),
            [
                '(v, B, S_q, C) => real("**", 0.75, B)',
                '(v, B, S_q, C) => real("-", 1n, v(0))',
                '(v, B, S_q, C) => real("*", 8n, v(1))',
                "(v, B, S_q, C) => nearest(v(2))",
                "(v, B, S_q, C) => v(3)",
            ],
        ),
    ],
    ids=str,
)
def test_a_value_is_written_after_the_atoms_in_it(value, rows):
    formulas = Formulas(SIZES)
    assert formulas.place(value) == len(rows) - 1
    assert formulas.text == "[" + ",\n".join(rows) + "]"


def test_a_value_is_written_once():
    formulas = Formulas(SIZES)
    assert [formulas.place(value) for value in (B + 1, 4, 1 + B, 4)] == [0, 1, 0, 1]
