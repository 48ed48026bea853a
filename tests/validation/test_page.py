"""The page of validations: every script rewrites its own section."""

from __future__ import annotations

import pytest

from validation.page import Row, Section, Table, named, percent, write


def section(key: str, rows: list[Row]) -> Section:
    return Section(key, f"Title of {key}", "How.", [Table("Cases", rows)], f"What {key} comes to.")


def test_a_script_rewrites_its_own_section_and_no_other(tmp_path):
    page = tmp_path / "validation.md"
    write(section("kv", [Row("first", 10, 10)]), page, machine="one machine")
    write(section("peak", [Row("second", 1100, 1000, "a mask 100")]), page, machine="another")
    write(section("kv", [Row("third", 20, 20)]), page, machine="a third")
    text = page.read_text(encoding="utf-8")
    assert "first" not in text
    assert "| third | 20 | 20 | 0 | – |" in text
    assert "| second | 1,100 | 1,000 | +10.00 % | a mask 100 |" in text
    assert text.index("Title of peak") < text.index("Title of kv")
    assert text.count("# Bytes and memory against what runs") == 1
    write(section("kv", [Row("third", 20, 20)]), page, machine="a third")
    assert page.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("predicted", "measured", "shown"),
    [(5, 5, "0"), (90, 100, "-10.00 %"), (10**9 + 1, 10**9, "+1.0e-07 %"), (3, 0, "nothing measured")],
)
def test_an_error_is_shown_as_nothing_only_where_there_is_none(predicted, measured, shown):
    assert percent(Row("case", predicted, measured)) == shown


def test_terms_of_one_name_are_added():
    assert named([("mask", 100), ("scores", 2000), ("mask", 1)]) == "mask 101; scores 2,000"
