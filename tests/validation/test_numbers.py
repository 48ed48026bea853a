"""No number has moved since ``validation/numbers.json`` was written."""

from __future__ import annotations

import json

import pytest

from validation import numbers

EXPECTED = json.loads(numbers.DIGESTS.read_text(encoding="utf-8"))
QUICK = {
    "llama-2-7b": ["report, batch 1", "report, many steps", "closed form, prefill", "closed form, decode"],
    "deepseek-ocr": [case for case in EXPECTED["deepseek-ocr"] if not case.startswith("closed form")],
}
"""A plain decoder, and one with experts and a vision tower."""


@pytest.mark.parametrize("preset", QUICK)
def test_no_number_of_a_small_preset_has_moved(preset):
    found = numbers.digests_of(preset, QUICK[preset])
    assert found == {case: EXPECTED[preset][case] for case in QUICK[preset]}


def test_every_preset_and_every_case_has_a_digest():
    presets = numbers.ours("preset_names")()
    assert {preset: sorted(numbers.cases_of(preset)) for preset in presets} == {
        preset: sorted(cases) for preset, cases in EXPECTED.items()
    }


@pytest.mark.slow
def test_no_number_of_any_preset_has_moved():
    assert numbers.check(numbers.DIGESTS, [], jobs=2) == 0


def test_a_digest_knows_a_number_from_another_and_an_order_of_keys_from_none():
    assert numbers.digest_of({"a": 1, "b": [2]}) == numbers.digest_of({"b": [2], "a": 1})
    assert numbers.digest_of({"a": 1}) != numbers.digest_of({"a": 2})
    assert numbers.digest_of({"a": [1, 2]}) != numbers.digest_of({"a": [2, 1]})


def test_what_differs_is_named_and_so_is_what_only_one_side_has():
    expected = {"one": {"x": "0", "y": "1"}, "two": {"x": "2"}}
    found = {"one": {"x": "0", "y": "3"}, "three": {"x": "2"}}
    assert numbers.differences(expected, found) == [("one", "y"), ("three", "x"), ("two", "x")]
    assert numbers.differences(expected, expected) == []


def test_a_new_name_counts_as_the_old_one(monkeypatch):
    before = {"ops": [{"cost": {"flops": 1}, "class": "Old"}]}
    after = {"ops": [{"price": {"flops": 1}, "class": "New"}]}
    assert numbers.under_old_names(after) == after
    monkeypatch.setattr(numbers, "RENAMED", {"cost": "price", "Old": "New"})
    assert numbers.under_old_names(after) == before


def test_points_are_the_same_in_every_process():
    points = numbers.points_of("llama-2-7b", "decode")
    assert len(points) == numbers.POINTS
    assert points[0] == {"batch": 2, "past_len": 79417}
