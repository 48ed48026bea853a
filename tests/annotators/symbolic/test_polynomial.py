"""Polynomials behave as the whole numbers that they stand for."""

from __future__ import annotations

import gc
import operator
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxmeter.annotators.symbolic import (
    Guards,
    NotPolynomial,
    Polynomial,
    atoms_of,
    largest,
    smallest,
    value_at,
    variable,
    variables_of,
)

B, S, C = variable(0), variable(1), variable(2)
sizes = st.tuples(*(st.integers(1, 300) for _ in range(3)))


def at(point):
    return Guards(point, (0, 0, 0), (None, None, None))


def formulas(b, s, c):
    """The same formula on numbers and on polynomials."""
    return [
        2 * b * s - c + 7,
        (b + s) ** 3 - c * c,
        s * (s + 1) // 2,
        (c + 3) // 4,
        -(-c // 64) * 64,
        (b * s * c) // b,
        (c + s) % 7,
        c // (b + 1),
        min(c + s, 1024) + max(0, b - c),
        abs(b - c),
        round(256 * (1 - (1 - 8 / 256) ** (b * s)) * 1234),
        largest([b * s, c, 40, b + 39]) + smallest([c, 17 * b]),
        largest([5 + largest([b, c]), s]),
        1 if b == c else 2,
        3 if b * s else 4,
    ]


@given(sizes)
def test_arithmetic_on_polynomials_is_arithmetic_on_numbers(point):
    with at(point):
        symbolic = formulas(B, S, C)
    assert [value_at(value, point) for value in symbolic] == formulas(*point)


@given(sizes, sizes)
def test_a_result_holds_wherever_its_guards_do(hint, other):
    with at(hint) as guards:
        symbolic = formulas(B, S, C)
    if all(guard.holds(other) for guard in guards):
        assert [value_at(value, other) for value in symbolic] == formulas(*other)


def test_what_is_the_same_for_all_sizes_needs_no_guard():
    with Guards((2, 5, 9), (2, 1, 1), (None, None, 1022)) as guards:
        assert B * S >= 2
        assert B != 1
        assert not C > 1022
        assert largest([B * S * C, B * S]) == B * S * C
    assert not list(guards)


def test_constants_are_plain_numbers():
    assert type(B - B + 3) is int
    assert type((2 * S + 4) - 2 * S) is int


def test_a_rounding_is_the_same_wherever_it_appears():
    expected = 64 * (1 - (1 - 6 / 64) ** B)
    assert atoms_of(round(expected * 10)) == atoms_of(round(64 * (1 - (1 - 6 / 64) ** B) * 10))


def test_without_guards_nothing_is_compared():
    with pytest.raises(RuntimeError, match="outside of Guards"):
        operator.lt(B, 3)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: int(B),
        lambda: range(B),
        lambda: [0] * B,
        lambda: float(B),
        lambda: 2**B,
        lambda: B**S,
        lambda: B**-1,
        lambda: B // 2.0,
        lambda: B / 3 < 2,
        lambda: int(B / 3),
        lambda: B / 3 // 2,
        lambda: 1 if B / 3 else 0,
    ],
)
def test_what_is_no_polynomial_says_so(ask):
    with at((2, 3, 4)), pytest.raises(NotPolynomial):
        ask()


@pytest.mark.parametrize(
    "mistake", [lambda: B + "1", lambda: B * None, lambda: B // "2", lambda: B > None, lambda: B ** "2"]
)
def test_a_mistake_stays_a_mistake(mistake):
    with at((2, 3, 4)), pytest.raises(TypeError):
        mistake()


def test_an_exponent_has_no_limit():
    value = (B * S**70 + C) ** 2
    assert variables_of(value) == {0, 1, 2}
    assert value_at(value, (3, 2, 5)) == (3 * 2**70 + 5) ** 2
    assert value // (B * S**70 + C) - C == B * S**70


def test_equal_atoms_are_one_and_an_atom_lives_as_long_as_its_polynomials():
    floor = (B + 1) // 2
    assert (B + 1) // 2 - floor == 0
    assert len(atoms_of(floor * ((B + 1) // 2) + (B + 1) // 3)) == 2
    (atom,) = atoms_of(floor)
    gone = weakref.ref(atom)
    del floor, atom
    gc.collect()
    assert gone() is None


@given(sizes)
def test_division_by_a_polynomial_is_exact_where_it_can_be(point):
    quotient = (B * S * (C + 2)) // (C + 2)
    assert isinstance(quotient, Polynomial)
    assert variables_of(quotient) == {0, 1}
    assert value_at(quotient, point) == point[0] * point[1]


def test_a_smallest_is_not_taken_for_a_number_below_zero():
    with Guards((2, 5, 9), (2, 1, 1), (None, None, None)) as guards:
        assert smallest([S, C]) > 3
    assert not all(guard.holds((2, 1, 9)) for guard in guards)
