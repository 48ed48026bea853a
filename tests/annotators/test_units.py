"""Units: which one suits a value, and what a text with one means."""

from __future__ import annotations

import pytest

from fxmeter.annotators.units import (
    duration_as_typed,
    quantity,
    read_bytes,
    read_number,
    read_seconds,
    read_size,
    unit_of,
)
from fxmeter.models import ScenarioError


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (0, "byte", "0 B"),
        (999, "byte", "999 B"),
        (1000, "byte", "1.000 kB"),
        (1024, "memory", "1.000 KiB"),
        (1023, "memory", "1,023 B"),
        (1004 * 2**20, "memory", "1,004 MiB"),
        (80 * 2**30, "memory", "80.00 GiB"),
        (123_456, "flop", "123.5 kFLOP"),
        (10**30, "flop", "1,000,000,000 ZFLOP"),
        (0.984, "share", "98.4%"),
        (0.5, "ratio", "0.500"),
        (12345.6, "ratio", "12,345.6"),
        (1.5, "GiB", "1.500 GiB"),
        (0.083, "second", "83.00 ms"),
        (1.5, "second", "1.500 s"),
        (4.2e-6, "second", "4.200 us"),
    ],
)
def test_a_quantity_has_four_digits_and_its_unit(value, kind, text):
    assert quantity(value, kind) == text


def test_a_duration_is_as_somebody_would_type_it():
    assert [duration_as_typed(seconds) for seconds in (1, 0.05, 0.0041, 80e-6, 1.5)] == [
        "1 s",
        "50 ms",
        "4.1 ms",
        "80 us",
        "1.5 s",
    ]


def test_the_unit_is_the_largest_of_which_there_is_one():
    assert unit_of(2**30, "memory") == (2**30, "GiB")
    assert unit_of(2**30 - 1, "memory") == (2**20, "MiB")
    assert unit_of(0, "memory") == (1, "B")


@pytest.mark.parametrize(
    ("text", "value"),
    [("80GiB", 80 * 2**30), ("24 gb", 24 * 10**9), ("1.5KiB", 1536), ("0.1 kB", 100), ("7B", 7), ("2TiB", 2**41)],
)
def test_memory_is_a_number_and_a_unit(text, value):
    assert read_bytes(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("500ms", 0.5), ("0.5s", 0.5), ("80us", 80e-6), ("1e-3 s", 0.001), ("2S", 2.0)]
)
def test_a_time_has_its_unit(text, value):
    assert read_seconds(text) == pytest.approx(value, rel=1e-12)


def test_a_bare_number_is_a_time_only_where_a_unit_goes_without_saying():
    assert read_seconds("83", unit="ms") == pytest.approx(0.083)
    assert read_seconds("83s", unit="ms") == 83
    with pytest.raises(ScenarioError, match="'500' has no unit; give 500ms or 500s"):
        read_seconds("500")


@pytest.mark.parametrize("text", ["", "ms", "fast", "5min", "-1s", "0ms", "nan s", "1e400s", "1.2.3s"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ScenarioError):
        read_seconds(text)


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "1e400", "three"])
def test_what_is_no_number_above_0_is_refused(text):
    with pytest.raises(ScenarioError):
        read_number(text)


def test_sizes_by_1024():
    assert [read_size(text, 0) for text in ("0", "4k", "4K", "1M", "1_000")] == [0, 4096, 4096, 2**20, 1000]
    for text in ("", "k", "1.5", "4g", "0x10", "1e3"):
        with pytest.raises(ScenarioError, match="is not a whole number"):
            read_size(text, 0)
