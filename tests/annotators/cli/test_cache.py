"""What was asked before is answered from the cache: the same text, and no model is built for it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.resources import files

import pytest

import fxmeter.annotators.rules  # noqa: F401  registers every rule
from fxmeter.annotators.rules.registry import described
from tests.tracer.tiny import DEEPSEEK

SLOW = pytest.mark.slow
COMMANDS = [
    pytest.param(("report", "--decode", "16", "--steps", "3", "--device", "a100", "--at-peak"), id="report"),
    pytest.param(("time", "--device", "h100", "--prefill", "64", "--decode", "100", "--batch", "1,8"), id="time"),
    pytest.param(("report", "--decode", "16", "--steps", "12", "--device", "a100", "--json"), id="json", marks=SLOW),
    pytest.param(("capacity", "--prefill", "64", "--memory", "1GiB", "--json"), id="capacity", marks=SLOW),
    pytest.param(("capacity", "--prefill", "64", "--steps", "4", "--device", "l4"), id="serving", marks=SLOW),
    pytest.param(("formula", "--json"), id="formula", marks=SLOW),
]
FIELDS = {**DEEPSEEK, "num_hidden_layers": 2}
ONE = ("--decode", "64", "--attention", "flash")


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(FIELDS))
    return path


@pytest.fixture
def nothing_is_built(monkeypatch):
    """From where it is called on no model can be built."""

    def built(*_, **__):
        raise AssertionError("a model was built")

    return lambda: monkeypatch.setattr("fxmeter.tracer.load.loading.load_model", built)


def loaded_by(*command):
    """What a command prints in a process of its own, and which heavy libraries it loaded."""
    code = f"import sys; sys.argv = {['fxmeter', *command]!r}\nfrom fxmeter.annotators.cli.main import main\n"
    code += "try: main()\nfinally: print('loaded', sorted({'torch', 'transformers', 'sympy'} & set(sys.modules)))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_the_second_time_no_model_is_built(run, tiny, nothing_is_built, command):
    name, *options = command
    first = run(name, tiny, *options)
    assert first.returncode == 0, first.stderr
    nothing_is_built()
    again = run(name, tiny, *options)
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert "a model was built" in run(name, tiny, *options, "--no-cache").stderr
    if name == "time":  # another question to the same sheets
        assert run(name, tiny, "--device", "a100", "--prefill", "65", "--decode", "77", "--batch", "3").returncode == 0


def test_a_config_that_differs_in_one_field_is_another_question(run, tiny):
    first = json.loads(run("report", tiny, *ONE, "--json").stdout)
    tiny.write_text(json.dumps({**FIELDS, "vocab_size": FIELDS["vocab_size"] + 1}))
    other = json.loads(run("report", tiny, *ONE, "--json").stdout)
    assert other["stages"] == json.loads(run("report", tiny, *ONE, "--json", "--no-cache").stdout)["stages"]
    assert other["stages"] != first["stages"]


def test_a_damaged_cache_is_worked_out_again_and_it_can_be_cleared(run, tiny, tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("FXMETER_CACHE_DIR", str(folder))
    first = run("report", tiny, *ONE).stdout
    assert re.fullmatch(rf"2 answers, [\d.]+ KiB\n{re.escape(str(folder))}\n", run("cache").stdout)
    for file in (folder / "answers").iterdir():
        file.write_bytes(file.read_bytes()[:-7])
    assert run("report", tiny, *ONE).stdout == first
    assert loaded_by("report", str(tiny), *ONE) == first + "loaded []\n"
    assert run("cache", "clear").stdout == "2 answers removed\n"
    assert "0 answers, 0 B" in run("cache").stdout


@pytest.mark.parametrize("command", [("ops", "softmax"), ("models",), ("devices",), ("cache",)], ids=" ".join)
def test_what_needs_no_torch_imports_none(command):
    assert loaded_by(*command).endswith("loaded []\n")


def test_the_table_of_ops_is_that_of_the_registry():
    table = json.loads((files("fxmeter.annotators") / "rules" / "ops.json").read_text(encoding="utf-8"))
    assert table == described(), "a rule has changed: make ops"
