"""Sums over the steps of a generation are what adding the steps up gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxmeter.annotators import closed_form
from fxmeter.annotators.sheets.steps import over_steps
from fxmeter.annotators.symbolic import Guard, Guards, Polynomial, largest, substituted, value_at, variable
from fxmeter.annotators.symbolic.sums import Sums, largest_step, steps_that_hold
from fxmeter.models import ScenarioError
from fxmeter.models.stage_cost import FIELDS
from fxmeter.tracer import load_model
from validation.small_configs import small_config

B, S, C = variable(0), variable(1), variable(2)
VALUES = [
    7 * B * S,
    B * (C + S) * 3 - 2 * C + 5,
    B * C * C * (C + 1) // 2 + S,
    round(64 * (1 - (1 - 6 / 64) ** (B * S)) * 10) * (C + 2),
    C // 4 + B,
]


@pytest.mark.parametrize("value", VALUES, ids=str)
@given(st.integers(1, 9), st.integers(1, 3), st.integers(0, 50), st.integers(1, 30))
def test_a_sum_is_what_adding_up_gives(value, batch, query_len, past_len, steps):
    sums = Sums(np.array([1, batch]), query_len, np.array([0, past_len]), np.array([1, steps]))
    each = [value_at(value, (batch, query_len, past_len + j * query_len)) for j in range(steps)]
    assert np.broadcast_to(sums.of(value), (2,)).tolist() == [value_at(value, (1, query_len, 0)), sum(each)]


def test_sums_beyond_int64_are_exact():
    many = 10**9
    total = Sums(np.array([many]), 1, np.array([many]), np.array([many])).of(B * C * C)
    assert total.tolist() == [many * sum_of_squares(many, 2 * many)]


def sum_of_squares(first, end):
    return (end - 1) * end * (2 * end - 1) // 6 - (first - 1) * first * (2 * first - 1) // 6


@given(
    st.lists(st.integers(-40, 40), min_size=1, max_size=4),
    st.sampled_from([">=", "==", "!="]),
    st.integers(1, 2),
    st.integers(0, 9),
    st.integers(1, 60),
)
def test_the_first_step_at_which_a_guard_fails(roots, relation, query_len, past_len, steps):
    product = B
    for root in roots:
        product = product * (C - root)
    for value in (product, -product - 3, product + S):
        guard = Guard(value, relation)
        holds = [guard.holds((2, query_len, past_len + j * query_len)) for j in range(steps)]
        assert steps_that_hold(guard, 2, query_len, past_len, steps) == (
            holds.index(False) if not all(holds) else steps
        )


def test_a_guard_on_a_floor_is_tried_step_by_step():
    guard = Guard(499 - (C + 3) // 4, ">=")
    assert steps_that_hold(guard, 1, 1, 10, 5000) == (4 * 499 + 3) - 3 - 10 + 1


@given(
    st.lists(st.integers(-40, 40), min_size=1, max_size=4),
    st.sampled_from([-1, 1]),
    st.integers(1, 2),
    st.integers(0, 9),
    st.integers(1, 60),
)
def test_the_largest_step_is_the_largest_of_all(roots, sign, query_len, past_len, steps):
    value = sign * B
    for root in roots:
        value = value * (C - root)
    for each in (value, value + 3 * S, value - C // 4):
        levels = [value_at(each, (2, query_len, past_len + j * query_len)) for j in range(steps)]
        last = max(j for j, level in enumerate(levels) if level == max(levels))
        assert largest_step(each, 2, query_len, past_len, steps) == (max(levels), last)


@given(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 30)), st.integers(0, 5))
def test_substituting_is_evaluating_elsewhere(point, more):
    with Guards((1, 1, 0), (1, 1, 0), (None, None, None)):
        values = [B * C - S, (C + 3) // 4, largest([B * C, S * S]), round(64 * (1 - (1 - 6 / 64) ** (B * S)) * 10)]
    moved = (point[0], 3, point[2] + more * point[0])
    for value in values:
        assert value_at(substituted(value, {1: 3, 2: C + more * B}), point) == value_at(value, moved)
        fixed = substituted(value, dict(enumerate(point)))
        assert not isinstance(fixed, Polynomial)
        assert fixed == value_at(value, point)


@pytest.fixture(scope="module")
def model():
    return load_model(small_config("gpt_oss"))  # its window is of 8 tokens


@pytest.fixture(scope="module")
def form(model):
    return closed_form(model, stage="decode", attention="flash")


def test_generations_are_sums_of_decode_steps(form):
    batches, pasts, steps = np.array([[1], [5]]), np.array([0, 1, 2, 7, 4000]), np.array([40, 1, 31, 7, 12])
    found = form.evaluate_generation(batch=batches, past_len=pasts, steps=steps, fields=(*FIELDS, "flops"))
    for i, batch in enumerate([1, 5]):
        for j, (past_len, count) in enumerate(zip(pasts.tolist(), steps.tolist(), strict=True)):
            total = over_steps([form.at(batch=batch, past_len=past_len + k) for k in range(count)])
            assert {name: int(array[i, j]) for name, array in found.items()} == {
                name: getattr(total, name) for name in found
            }
            assert form.generation(batch=batch, past_len=past_len, steps=count) == total


def test_a_module_has_its_part_of_a_generation(form):
    attention = form.modules["model.layers.0.self_attn"]
    total = over_steps([attention.at(past_len=2 + k) for k in range(20)])
    assert attention.generation(past_len=2, steps=20) == total


def test_a_long_generation_does_not_overflow(form):
    cost = form.generation(batch=10**9, past_len=10**8, steps=10**8)
    linear = form.at(batch=1, past_len=1000).matmul_flops - form.at(batch=1, past_len=999).matmul_flops
    base = form.at(batch=1, past_len=1000).matmul_flops - 1000 * linear
    pasts = 10**8 * 10**8 + 10**8 * (10**8 - 1) // 2
    assert cost.matmul_flops == 10**9 * (10**8 * base + linear * pasts)


@pytest.mark.parametrize("bad", [{"steps": 0}, {"steps": 2.5}, {"past_len": -1}, {"batch": 0}, {"past_len": 10**9}])
def test_impossible_generations_are_refused(form, bad):
    sizes = {"past_len": 1, "steps": 2, **bad}
    with pytest.raises(ScenarioError):
        form.evaluate_generation(**sizes)


def test_only_decode_steps_make_a_generation(model):
    with pytest.raises(ScenarioError, match="prefill"):
        closed_form(model, stage="prefill").generation(past_len=1, steps=2)
