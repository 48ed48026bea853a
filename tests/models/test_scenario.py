import pytest

from fxmeter.models import Scenario, ScenarioError, decode, prefill


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
