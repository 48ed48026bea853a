"""``report --html``."""

from __future__ import annotations

import json

import pytest

from fxmeter import deploy
from fxmeter.annotators.cli.page import deployments_of
from fxmeter.annotators.page import page
from tests.tracer.tiny import LLAMA


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(LLAMA), encoding="utf-8")
    return file


def test_the_page_begins_at_what_was_asked_for(run, config, tmp_path):
    pytest.importorskip("plotly")
    asked = ["--decode", 40, "--batch", 3, "--attention", "flash", "--device", "h100"]
    done = run("report", config, *asked, "--html", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    start = {
        "stage": "decode",
        "attention": "flash",
        "batch": 3,
        "prefill": 40,
        "decode": 40,
        "device": "h100-sxm5-80g",
        "steps": 1,
    }
    assert all(f'"{name}":{json.dumps(value)}' in text for name, value in start.items())
    assert len(text.encode()) < 6 * 10**6


def test_what_a_page_is_made_with_is_named_where_it_is_missing(run, config, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    done = run("report", config, "--decode", 40, "--html", tmp_path / "page.html")
    assert done.returncode == 1
    assert done.stderr.strip() == "fxmeter: a page needs jinja2 and plotly: pip install 'fxmeter[page]'"


def test_a_step_of_several_kinds_has_no_page(run, config, tmp_path):
    done = run("report", config, "--prefill", 8, "--beside", "2x16", "--html", tmp_path / "page.html")
    assert done.returncode == 1
    assert "--html shows prompts and decode steps" in done.stderr


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--decode", 40, "--draft", 4], "not in the page: drafted tokens"),
        (["--decode", 4, "--steps", 300], "not in the page: more than 256 steps; it begins with so many"),
        (["--prefill", 40, "--chunk", 8, "--cached", 8], "not in the page: a cached prefix"),
    ],
)
def test_what_a_page_has_not_is_said(run, config, tmp_path, asked, said):
    done = run("report", config, *asked, "--attention", "flash", "--html", tmp_path / "page.html")
    assert done.returncode == 0
    assert said in done.stderr
    assert all(line.startswith("fxmeter: ") for line in done.stderr.splitlines())


def test_words_of_also_are_combined():
    found = deployments_of(deploy(weights="bfloat16"), ["serving", "fp8", "tp=2"])
    assert len(found) == len({(each.kernels, each.weights.label, each.tp) for each in found}) == 2 * 2 * 2
    assert found[0] == deploy(weights="bfloat16")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--also", "fp7"], "fp7"),
        (["--also", "tp=x"], "'x' is not a whole number"),
        (["--also", "serving"], "give --html"),
    ],
)
def test_what_cannot_be_chosen_is_refused_before_the_work(run, config, tmp_path, asked, said):
    page = [] if "--html" in said else ["--html", tmp_path / "page.html"]
    done = run("report", config, *asked, *page)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert done.stderr.count("\n") <= 4


def test_a_sweep_has_a_page_too_that_begins_at_its_first_sizes(run, config, tmp_path):
    pytest.importorskip("plotly")
    sizes = ["--prefill", "16,32", "--batch", "2,4", "--attention", "flash"]
    done = run("sweep", config, *sizes, "--out", tmp_path / "out", "--no-plots", "--html", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert '"stage":"decode","attention":"flash","batch":2,"prefill":16,"decode":16,' in text
