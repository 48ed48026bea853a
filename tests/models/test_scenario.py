import pytest

from fxmeter.models import Scenario, ScenarioError, decode, generation, mixed, prefill


def test_prefill_starts_with_an_empty_cache():
    assert prefill(64) == Scenario(stage="prefill", batch=1, query_len=64, past_len=0)
    assert prefill(64).kv_len == 64


def test_a_later_chunk_of_a_prefill_sees_what_was_cached():
    assert prefill(64, past_len=128, batch=2).kv_len == 128 + 64


def test_a_decoded_token_attends_to_itself():
    assert decode(0).kv_len == 1
    assert decode(4096).kv_len == 4096 + 1
    assert decode(4096).query_len == 1


def test_multi_token_decode():
    assert decode(10, query_len=4, batch=3) == Scenario(stage="decode", batch=3, query_len=4, past_len=10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: prefill(0), "query_len must be at least 1, not 0"),
        (lambda: prefill(-1), "query_len must be at least 1, not -1"),
        (lambda: prefill(1.5), "query_len must be a whole number, not 1.5"),
        (lambda: prefill("8"), "query_len must be a whole number, not '8'"),
        (lambda: prefill(True), "query_len must be a whole number, not True"),
        (lambda: prefill(1, batch=0), "batch must be at least 1, not 0"),
        (lambda: decode(-1), "past_len must be at least 0, not -1"),
        (lambda: decode(10**12), "past_len is 1000000000000; the largest accepted is 1,000,000,000"),
    ],
)
def test_impossible_sizes_are_refused_by_name(make, message):
    with pytest.raises(ScenarioError, match=message):
        make()


def test_sizes_may_come_from_numpy():
    import numpy as np

    assert prefill(np.int64(7)).query_len == 7
    assert type(prefill(np.int64(7)).query_len) is int


def test_a_scenario_cannot_be_changed():
    with pytest.raises(AttributeError):
        prefill(3).query_len = 4


def test_a_prompt_in_chunks_is_made_of_passes():
    whole = prefill(10, past_len=3, chunk=4, batch=2)
    assert [(one.query_len, one.past_len, one.batch, one.chunk) for one in whole.passes] == [
        (4, 3, 2, None),
        (4, 7, 2, None),
        (2, 11, 2, None),
    ]
    assert (whole.kv_len, prefill(10, chunk=10).passes) == (13, (prefill(10),))
    assert generation(5, steps=3).passes == (decode(5), decode(6), decode(7))


def test_tokens_of_a_step_that_checks_drafted_ones():
    """Four drafted, each right with probability 1/2: 1 + 1/2 + 1/4 + 1/8 + 1/16 tokens."""
    assert decode(100, query_len=5, acceptance=0.5).tokens_per_step == 1 + 1 / 2 + 1 / 4 + 1 / 8 + 1 / 16
    assert decode(100, query_len=5, acceptance=0).tokens_per_step == 1
    assert decode(100, query_len=5, acceptance=1).tokens_per_step == decode(100, query_len=5).tokens_per_step == 5


def test_a_mixed_step_counts_its_tokens_and_sequences():
    step = mixed([decode(4096, batch=31), decode(100)], prefill(512, past_len=1024))
    assert (step.batch, step.tokens) == (31 + 1 + 1, 31 + 1 + 512)
    assert step.joint == prefill(544, past_len=1024)


@pytest.mark.parametrize(
    "make",
    [
        lambda: prefill(8, chunk=0),
        lambda: decode(8, acceptance=1.5),
        lambda: Scenario(stage="decode", batch=1, query_len=1, past_len=1, chunk=2),
        lambda: mixed([], prefill(8)),
        lambda: mixed([generation(8, steps=2)], prefill(8)),
        lambda: mixed([decode(8)], decode(8)),
        lambda: mixed([decode(8)], prefill(8, chunk=2)),
    ],
)
def test_what_engines_cannot_run_is_refused(make):
    with pytest.raises(ScenarioError):
        make()
