import numpy as np
import sympy
from hypothesis import given
from hypothesis import strategies as st

from fxmeter.models.stage_cost import ADDITIVE, DERIVED, FIELDS, PEAKS, ZERO, StageCost

costs = st.builds(StageCost, **{name: st.integers(0, 10**30) for name in FIELDS})


def test_derived_figures_and_their_units():
    cost = StageCost(
        matmul_flops=3 * 10**12,
        vector_flops=10**12,
        weight_read_bytes=1,
        kv_read_bytes=2,
        kv_write_bytes=3,
        activation_read_bytes=4,
        activation_write_bytes=10,
        fused_io_bytes=7,
        activation_bytes=2**31,
        peak_activation_bytes=2**28,
        kv_bytes=2**30,
        weight_bytes=3 * 2**29,
    )
    assert cost.flops == 3 * 10**12 + 10**12
    assert cost.io_bytes == 1 + 2 + 3 + 4 + 10
    assert cost.flops_tflops == 4.0
    assert cost.io_tb == 20 / 10**12
    assert cost.activations_gb == 2.0
    assert cost.peak_activations_gb == 0.25
    assert cost.kv_gb == 1.0
    assert cost.weights_gb == 1.5
    assert cost.arithmetic_intensity == 4 * 10**12 / 20


def test_a_part_that_moves_nothing_has_no_intensity():
    assert ZERO.arithmetic_intensity == 0.0


def test_counts_stay_exact_beyond_64_bits():
    assert (StageCost(matmul_flops=2**100 + 1) + StageCost(matmul_flops=1)).matmul_flops == 2**100 + 2


@given(costs, costs, costs)
def test_addition_is_associative_with_zero(a, b, c):
    assert (a + b) + c == a + (b + c)
    assert a + ZERO == a == ZERO + a
    assert StageCost.total([a, b, c]) == a + b + c


@given(costs, costs)
def test_sums_add_and_peaks_are_the_larger(a, b):
    assert set(ADDITIVE) | set(PEAKS) == set(FIELDS)
    assert all(getattr(a + b, name) == getattr(a, name) + getattr(b, name) for name in ADDITIVE)
    assert all(getattr(a + b, name) == max(getattr(a, name), getattr(b, name)) for name in PEAKS)


def test_peaks_of_arrays_and_of_expressions():
    x, y = sympy.symbols("x y", integer=True, nonnegative=True)
    arrays = StageCost(peak_activation_bytes=np.array([1, 5])) + StageCost(peak_activation_bytes=np.array([4, 2]))
    assert arrays.peak_activation_bytes.tolist() == [4, 5]
    made = StageCost(peak_activation_bytes=x) + StageCost(peak_activation_bytes=y)
    assert [made.peak_activation_bytes.subs({x: a, y: 7}) for a in (3, 7, 12)] == [7, 7, 12]
    assert (StageCost(peak_activation_bytes=x) * 3 + ZERO).peak_activation_bytes == x
    assert 0 * arrays == ZERO


@given(costs, st.integers(0, 1000))
def test_n_parts_are_n_times_one(a, n):
    assert n * a == a * n == StageCost.total([a] * n)


@given(costs)
def test_to_dict_has_every_field_and_every_derived_figure(cost):
    data = cost.to_dict()
    assert list(data) == [*FIELDS, *DERIVED]
    assert StageCost(**{name: data[name] for name in FIELDS}) == cost
