"""Lock files: the same bytes for the same figures, and what has moved since, and whose change that is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fxmeter import FxmeterError
from fxmeter.annotators.differences.lock import lock_text, read_lock, seal
from tests.tracer.tiny import LLAMA

CODE = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden, bias=False), nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(x)))

def build():
    return nn.Sequential(Block(8, 32), Block(8, 32)), torch.zeros(5, 8)
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with a module of the user's own, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(tmp_path, CODE)
    yield tmp_path
    sys.modules.pop("mine_locked", None)


def write(folder: Path, code: str) -> None:
    """The user changes the file, and starts a new process."""
    (folder / "mine_locked.py").write_text(code)
    sys.modules.pop("mine_locked", None)
    sys.dont_write_bytecode = True  # two versions within a second have the same time


def write_as_locked(path: Path, lock: dict) -> None:
    """A lock as another version of some package would have written it."""
    lock["lock"]["figures"] = seal(lock["stages"])
    path.write_text(lock_text(lock))


def test_an_unchanged_model_passes_and_its_lock_is_the_same_to_the_byte(run, mine):
    assert run("lock", "python:mine_locked:build", "--file", "a.lock").returncode == 0
    assert run("lock", "python:mine_locked:build", "--file", "b.lock").returncode == 0
    text = Path("a.lock").read_text()
    assert text == Path("b.lock").read_text()
    kept = json.loads(text)["stages"][0]
    assert kept["cost"]["matmul_flops"] == 2 * (2 * 5 * 8 * 32 * 2)
    assert sum(line.lstrip().startswith('{"path"') for line in text.splitlines()) == len(kept["modules"])  # a line each
    for command in (("check", "a.lock"), ("diff", "a.lock", "b.lock")):
        done = run(*command)
        assert (done.returncode, done.stdout.split()[:2]) == (0, ["no", "figure"])


def test_a_changed_hidden_layer_is_named_with_its_figures(run, mine):
    run("lock", "python:mine_locked:build")
    write(mine, CODE.replace("Block(8, 32))", "Block(8, 40))"))
    done = run("check", "--json", "found.json")
    assert done.returncode == 1
    assert "`fxmeter lock` takes over" in done.stderr
    found = json.loads(Path("found.json").read_text())
    assert found["model_changed"]
    assert found["reports_versions"] == []
    of_pass = {row["figure"]: (row["before"], row["after"]) for row in found["moved"] if row["module"] == ""}
    assert of_pass["matmul_flops"] == (2 * (2 * 5 * 8 * 32 * 2), 2 * 5 * 8 * (32 + 40) * 2)
    assert {row["module"] for row in found["moved"]} == {"", "1", "1.up", "1.down"}  # 1 itself has the relu
    text = run("check").stdout
    assert "the model has changed" in text
    assert "1.up" in text
    assert "| 1.up | matmul FLOPs |" in run("check", "--markdown").stdout


def test_an_upgrade_that_moves_a_figure_is_told_as_such(run, tmp_path):
    config, path = tmp_path / "config.json", tmp_path / "model.lock"
    config.write_text(json.dumps(LLAMA))
    run("lock", config, "--decode", 16, "--file", path)
    lock = json.loads(path.read_text())
    lock["versions"]["transformers"] = "5.20.0"
    lock["stages"][0]["cost"]["vector_flops"] -= 7
    write_as_locked(path, lock)
    done = run("check", path)
    assert done.returncode == 1
    said = " ".join(done.stdout.split())
    assert "the model is the same; changed are transformers 5.20.0 → " in said
    config.write_text(json.dumps({**LLAMA, "rms_norm_eps": 1e-3}))
    assert "the model has changed, and so have transformers" in " ".join(run("check", path).stdout.split())


def test_a_figure_may_move_by_its_tolerance(run, tmp_path):
    config, path = tmp_path / "config.json", tmp_path / "model.lock"
    config.write_text(json.dumps(LLAMA))
    run("lock", config, "--decode", 16, "--file", path, "--tolerance", "vector_flops=1%", "--tolerance", "flops=0.01")
    lock = json.loads(path.read_text())
    assert lock["lock"]["tolerances"] == {"vector_flops": 0.01, "flops": 0.01}
    vector = lock["stages"][0]["cost"]["vector_flops"]
    for less, code in ((vector // 200, 0), (vector // 50, 1)):
        lock["stages"][0]["cost"]["vector_flops"] = vector - less
        write_as_locked(path, lock)
        assert run("check", path).returncode == code


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lock: lock.pop("lock"), "is not whole"),
        (lambda lock: lock["lock"].pop("model"), "is not whole"),
        (lambda lock: lock["stages"][0]["cost"].update(flop=1), "is not whole"),
        (lambda lock: lock["lock"]["tolerances"].update(flop=0.1), "no figure is called flop; did you mean flops"),
        (lambda lock: lock["lock"]["tolerances"].update(flops="much"), "the tolerance of flops is 'much'"),
        (lambda lock: lock.update(schema_version=1), "is of schema 1"),
        (
            lambda lock: lock["stages"][0]["cost"].update(matmul_flops=9),
            "its figures are not those that `fxmeter lock`",
        ),
        (lambda lock: lock["stages"][0]["cost"].update(matmul_flops="9"), "matmul_flops is '9', no number"),
        (lambda lock: lock["stages"].pop(), "its figures are not those"),
    ],
)
def test_a_lock_edited_by_hand_is_one_line(run, mine, change, message):
    run("lock", "python:mine_locked:build")
    lock = json.loads(Path("fxmeter.lock").read_text())
    change(lock)
    Path("fxmeter.lock").write_text(json.dumps(lock))
    with pytest.raises(FxmeterError, match=message) as caught:
        read_lock(Path("fxmeter.lock"))
    assert "\n" not in str(caught.value)
    assert run("check").returncode == 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"options": ["--decode", "many"]}, "'many' is not a whole number"),
        ({"options": ["--decoed", "4"]}, "No such option: --decoed"),
        ({"model": "llama-9"}, "llama-9"),
        ({"model": "python:no.such.module:build"}, "cannot be imported"),
    ],
)
def test_what_a_lock_was_asked_with_edited_by_hand_is_one_line(run, mine, asked, message):
    run("lock", "python:mine_locked:build")
    lock = json.loads(Path("fxmeter.lock").read_text())
    lock["lock"].update(asked)
    Path("fxmeter.lock").write_text(json.dumps(lock))
    done = run("check")
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lock"], "lock takes one model, got 0"),
        (["lock", "a", "b"], "got 2"),
        (["lock", "llama-3.1-8b", "--decode", "16,32"], "'16,32' is not a whole number"),
        (["lock", "python:no_such_module:build"], "cannot be imported"),
        (["lock", "llama-3.1-8b", "--tolerance", "flops=all"], "is not a share such as 1%"),
        (["lock", "llama-3.1-8b", "--file", "no/such/folder/x"], "there is no folder"),
        (["check", "nowhere.lock"], "No such file"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(run, mine, arguments, message):
    done = run(*arguments)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(mine.glob("*.lock"))
