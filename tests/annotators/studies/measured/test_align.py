"""The longest common subsequence, against the table that every textbook has."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fxmeter.annotators.studies.measured.align import align

SEQUENCES = st.lists(st.integers(0, 4), max_size=25)


def longest(first, second):
    """Its length, by dynamic programming."""
    lengths = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            lengths[i + 1][j + 1] = lengths[i][j] + 1 if a == b else max(lengths[i][j + 1], lengths[i + 1][j])
    return lengths[-1][-1]


@given(SEQUENCES, SEQUENCES)
def test_pairs_are_equal_in_order_and_as_many_as_there_can_be(first, second):
    pairs = align(first, second)
    assert all(first[i] == second[j] for i, j in pairs)
    assert all(a < c and b < d for (a, b), (c, d) in pairwise(pairs))
    assert len(pairs) == longest(first, second)


def test_long_sequences_that_differ_little_are_quick():
    ops = [("mm", i % 7) for i in range(60_000)]
    extra = [op for i, op in enumerate(ops) for op in ([op, ("to", 0)] if i % 600 == 0 else [op])]
    assert len(align(ops, extra)) == 60_000


def test_sequences_with_nothing_in_common_have_no_pairs():
    assert align(["a"] * 5000, ["b"] * 5000) == []
