"""Tables at any width: figures are never cut, and what says least goes first."""

from __future__ import annotations

import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fxmeter.annotators import annotate
from fxmeter.annotators.stages.model_info import model_info
from fxmeter.annotators.studies.report import build_report
from fxmeter.annotators.views.console import Grid, in_parts, names, numbers
from fxmeter.annotators.views.reports.report import report_view
from fxmeter.annotators.views.words import folded
from fxmeter.models import prefill
from fxmeter.tracer import load_model
from tests.tracer.tiny import DEEPSEEK, GEMMA3, LLAMA, config

GRID = Grid(
    "a title",
    [*names("module"), *numbers("FLOPs", "peak activations"), ("by hand", "spare"), ("share", "share")],
    [
        ["model.layers.0.post_attention_layernorm", "12.34 GFLOP", "1.500 GiB", "7.5", 0.25],
        ["lm_head", "1.000 PFLOP", "512 B", "88", 1.0],
    ],
)


def lines_of(renderable, width):
    console = Console(width=width, file=io.StringIO())
    console.print(renderable)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", range(47, 140, 7))
def test_no_figure_is_cut_and_no_name_loses_a_letter(width):
    lines = lines_of(GRID, width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for figure in ("12.34 GFLOP", "1.000 PFLOP", "1.500 GiB", "512 B", "25%", "100%"):
        assert figure in text
    rows = [line for line in lines if not line.startswith("in a wider terminal")]
    rows = rows[[line.startswith("──") for line in rows].index(True) + 1 :]
    name = "".join(re.split("  ", line)[0] for line in rows if not line.startswith("lm_head"))
    assert name == "model.layers.0.post_attention_layernorm"


def test_headings_break_first_then_bars_go_then_spare_columns_then_names_fold():
    widths = {}
    for width in range(140, 46, -1):
        text = "\n".join(lines_of(GRID, width))
        shown = ("peak activations" in text, "█" in text, "7.5" in text, "post_attention_layernorm" in text)
        widths.setdefault(shown, width)
    assert list(widths) == [
        (True, True, True, True),
        (False, True, True, True),
        (False, False, True, True),
        (False, False, False, True),
        (False, False, False, False),
    ]


def test_runs_have_nearly_the_same_length():
    assert [in_parts("abcde", count) for count in (1, 2, 3, 5)] == [
        ["abcde"], ["abc", "de"], ["ab", "cd", "e"], ["a", "b", "c", "d", "e"],
    ]  # fmt: skip


@pytest.mark.parametrize("width", [80, 100, 160])
def test_nothing_of_a_report_is_cut(run, monkeypatch, tmp_path, width):
    monkeypatch.setattr("fxmeter.annotators.views.console.FILE_WIDTH", width)
    (tmp_path / "config.json").write_text(json.dumps(DEEPSEEK))
    text = run("report", tmp_path, "--prefill", 16, "--decode", 16, "--steps", 3, "--batch", 64, "--at-peak").stdout
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert ("█" in text) == (width > 80)


def test_stages_that_are_too_wide_side_by_side_are_several_tables(run, monkeypatch, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(DEEPSEEK))

    def titles(width):
        monkeypatch.setattr("fxmeter.annotators.views.console.FILE_WIDTH", width)
        text = run("report", tmp_path, "--prefill", 16, "--decode", 16, "--steps", 3).stdout
        return [line.rstrip() for line in text.splitlines() if line.startswith("Cost by stage")]

    assert titles(160) == ["Cost by stage"]
    assert titles(80) == ["Cost by stage, eager", "Cost by stage, flash"]
    assert titles(50) == ["Cost by stage, eager"] * 2 + ["Cost by stage, flash"] * 2


@pytest.mark.parametrize(("fields", "windowed"), [(GEMMA3, True), (LLAMA, False)], ids=["windows", "no windows"])
def test_what_transformers_holds_for_the_cache_has_a_row_where_it_is_more(fields, windowed):
    model = load_model(config(fields))
    text = "\n".join(
        lines_of(report_view(build_report(model_info(model), [annotate(model, prefill(60))]), depth=1, ops=0), 120)
    )
    assert "KV cache after" in text
    assert ("KV storage held" in text) == windowed


@given(st.text("a_.,×-Ab0123456789 (:…)/", max_size=60), st.integers(12, 60))
def test_folding_loses_nothing_and_ends_no_line_inside_a_number(text, width):
    shown = folded(text, width)
    numbers = re.compile(r"\d+(?:\.\d+|,\d{3}(?!\d))*")
    assert "".join(shown.split()) == "".join(text.split())
    assert numbers.findall(shown) == numbers.findall(text)
    if max(map(len, re.findall(r"[\d.,]+", text)), default=0) <= width:
        assert max(map(len, shown.split("\n"))) <= width


def test_a_name_folds_behind_a_dot_or_an_underscore_and_a_table_too_narrow_becomes_several():
    grid = Grid("", [*names("module"), *numbers("FLOPs", "I/O")], [["self_attn.q_proj_with_norm", "1 FLOP", "2 B"]])
    assert [line.split("  ")[0] for line in lines_of(grid, 32)[2:]] == ["self_attn.", "q_proj_with_norm"]
    narrow = lines_of(grid, 22)
    assert max(map(len, narrow)) <= 22
    assert "1 FLOP" in "\n".join(narrow)
    assert "2 B" in "\n".join(narrow)
    assert sum(line.startswith("module") for line in narrow) == 2
