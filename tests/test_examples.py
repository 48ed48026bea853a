"""Every example runs, and prints something."""

import runpy
import sys
from pathlib import Path

import nbformat
import pytest

from fxmeter import annotate, decode, load_model, prefill

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(example, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(example)])
    runpy.run_path(str(example), run_name="__main__")
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) >= 3
    assert printed.err == ""


def test_there_are_examples():
    assert len(EXAMPLES) >= 3


def test_the_notebook_runs_and_shows_what_it_has_stored():
    refresh = runpy.run_path(str(EXAMPLES[0].parent.parent / "docs" / "refresh_notebook.py"))
    stored = nbformat.read(refresh["NOTEBOOK"], as_version=4)
    cells = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert len(cells) > 8
    for before, now in zip(stored.cells, refresh["executed"]().cells, strict=True):
        assert now.get("outputs") == before.get("outputs"), f"make notebook: {before.source}"


@pytest.mark.parametrize("scenario", [prefill(24), decode(100), decode(30, batch=3, query_len=2)], ids=str)
def test_the_whole_idea_in_one_file_gives_the_numbers_of_the_library(scenario):
    example = runpy.run_path(str(EXAMPLES[0].parent / "from_scratch.py"))
    recorded = example["record"](example["TINY"], scenario.query_len, scenario.past_len, scenario.batch)
    stage = annotate(load_model(example["TINY"]), scenario, attention="eager", fold=False)
    counted = {path: module.cost.matmul_flops for path, module in stage.modules.items() if module.cost.matmul_flops}
    assert len(counted) > 3 * 9
    assert example["roll_up"](recorded) == counted
