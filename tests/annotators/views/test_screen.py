"""What commands print: snapshots at three widths, and nothing cut at any other.

``FXMETER_SNAPSHOTS=write`` writes the snapshots again.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fxmeter import FxmeterError, annotate, decode, prefill
from fxmeter.annotators.stages.model_info import model_info
from fxmeter.annotators.studies.report import build_report
from fxmeter.annotators.views.reports.report import report_view
from fxmeter.annotators.views.terms import terms_markdown
from fxmeter.models.choices import Causal, Logits, Routing
from fxmeter.models.deployment import Kernels
from fxmeter.models.terms import TERMS, term
from fxmeter.tracer import load_model
from tests.annotators.api.decoders import decoders
from tests.annotators.views.screen import COMMANDS, grids_of, text_of, views_of
from tests.tracer.tiny import config

ROOT = Path(__file__).parents[3]
SNAPSHOTS = Path(__file__).parent / "snapshots"
NUMBER = re.compile(r"\d+(?:\.\d+|,\d{3}(?!\d))*")
FIGURE = re.compile(r"(?<![\w.,-])[\d,.]+\s(?:[kMGTP]?FLOP|[kKMGTP]?i?B|[num]?s)(?!\w)")


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    import subprocess
    import sys

    import fxmeter.annotators.cli.main as command_line

    with pytest.MonkeyPatch.context() as patch:
        errors = []

        def run(*arguments):
            patch.setattr(sys, "argv", ["fxmeter", *map(str, arguments)])
            with pytest.raises(SystemExit) as exit:
                command_line.main()
            return subprocess.CompletedProcess(arguments, exit.value.code or 0, "", "".join(errors))

        return views_of(run, patch, tmp_path_factory.mktemp("screen"))


def figures(text):
    """Numbers with a unit, none of them over the end of a line."""
    return {found for line in text.splitlines() for found in FIGURE.findall(line)}


def assert_nothing_is_cut(view, widths):
    """No line is too long, no figure is cut or missing but those of columns that a line names, no number is over the
    end of a line."""
    whole = text_of(view, 300)
    spare = {
        str(row[i])
        for grid in grids_of(view)
        for i, (_, role) in enumerate(grid.columns)
        if role == "spare"
        for row in grid.rows
    }
    for width in widths:
        text = text_of(view, width)
        assert max(map(len, text.splitlines())) <= width
        assert not re.search(r"[^,]…|…[^,]", text), width
        assert figures(text) <= figures(whole), width
        assert figures(whole) <= figures(text) | spare, width
        assert set(NUMBER.findall(text)) <= set(NUMBER.findall(whole)), width


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_prints_what_its_snapshot_has(views, command, width):
    path = SNAPSHOTS / f"{command}-{width}.txt"
    text = text_of(views[command], width)
    if os.environ.get("FXMETER_SNAPSHOTS") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), "FXMETER_SNAPSHOTS=write writes it again"


@pytest.mark.parametrize("command", COMMANDS)
def test_no_figure_of_any_command_is_cut(views, command):
    assert_nothing_is_cut(views[command], (60, 67, 78, 91, 118, 143, 199, 240))


@pytest.mark.parametrize("command", ["time", "capacity", "crosscheck", "compare", "formula"])
def test_no_figure_of_the_widest_commands_is_cut(views, command):
    assert_nothing_is_cut(views[command], range(60, 241, 3))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_no_figure_of_any_command_is_cut_at_any_width(views, command):
    assert_nothing_is_cut(views[command], range(60, 241))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["llama-3.1-8b", "deepseek-v3", "gemma-3-27b", "jamba-v0.1", "deepseek-ocr", "qwen3-next-80b-a3b"]
)
def test_no_figure_of_a_preset_s_report_is_cut_at_any_width(name, preset_model):
    model = preset_model(name)
    passes = (prefill(8192), decode(131_071, batch=64))
    stages = [annotate(model, scenario, attention=kind) for scenario in passes for kind in ("eager", "flash")]
    assert_nothing_is_cut(report_view(build_report(model_info(model), stages), depth=3, ops=8), range(60, 241))


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(decoders(), st.lists(st.integers(60, 240), min_size=3, max_size=6))
def test_no_figure_of_any_model_s_report_is_cut(fields, widths):
    model = load_model(config(fields))
    stages = [annotate(model, scenario) for scenario in (prefill(17), decode(4000, batch=3))]
    assert_nothing_is_cut(report_view(build_report(model_info(model), stages), depth=3, ops=5), widths)


@pytest.mark.parametrize("command", ["report", "time", "capacity"])
def test_every_heading_is_a_term(views, command):
    headings = {heading.replace("\n", " ") for grid in grids_of(views[command]) for heading, _ in grid.columns}
    assert len(headings) > 8
    for heading in headings - {""}:
        first = heading.split()[0]
        known = first if first in ("prefill", "decode", "end") else heading
        assert term("end to end" if known == "end" else known), heading


def test_every_word_of_the_header_is_a_term(views):
    line = next(line for line in text_of(views["report"], 300).splitlines() if line.startswith("2 FLOP"))
    words = [part if part[0].isdigit() else part.split()[0] for part in line.split(" · ")]
    assert len(words) > 4
    assert all(term(word) for word in words)


def test_every_choice_is_explained():
    for name, words in (("causal", Causal), ("logits", Logits), ("routing", Routing), ("kernels", Kernels)):
        for word in get_args(words):
            assert f"{word}: " in term(name).means


def test_every_figure_says_what_it_is_and_no_name_means_two_things():
    assert all(len(each.means) > 15 for each in TERMS)
    names = [name for each in TERMS for name in (each.name, *each.also)]
    assert len(names) == len(set(names))
    with pytest.raises(FxmeterError, match=r"no term 'peak aliv'; did you mean peak alive"):
        term("peak aliv")


def test_the_page_of_terms_is_that_of_the_tables():
    assert (ROOT / "docs" / "terms.md").read_text(encoding="utf-8") == terms_markdown(), "make terms"
