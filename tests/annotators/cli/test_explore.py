"""``fxmeter explore`` and ``report --set`` as a user meets them."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tracer.tiny import LLAMA


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "config.json"
    path.write_text(json.dumps(LLAMA))
    return path


def test_explore_says_what_it_found_and_where(run, config, tmp_path):
    command = ["explore", config, "--set", "num_hidden_layers=1:3", "--set", "hidden_size=32,48,50", "--prefill", 24]
    command += ["--decode", 40, "--set", "intermediate_size=8*hidden_size//3", "--device", "h100"]
    command += ["--keep", "num_hidden_layers*hidden_size<144", "--pareto", "tpot,parameters", "--out", tmp_path / "o"]
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert "5 architectures priced; 7 gone through now" in " ".join(done.stdout.split())
    assert "refused 2: " in done.stdout
    assert "is not a multiple of the number of" in " ".join(done.stdout.split())
    assert "Pareto front, least time per output token and most parameters" in done.stdout
    assert "serving kernels" in done.stdout
    assert {"explore.sqlite", "pareto.csv"} <= {path.name for path in (tmp_path / "o").iterdir()}
    again = run(*command)
    assert "5 architectures priced; 0 gone through now" in " ".join(again.stdout.split())
    with sqlite3.connect(tmp_path / "o" / "explore.sqlite") as database:
        widths = database.execute("SELECT fields ->> '$.hidden_size' FROM architectures WHERE complete").fetchall()
    assert sorted(width for (width,) in widths) == [32, 32, 32, 48, 48]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "hidden_size=__import__('os')"], "is not allowed"),
        (["--set", "hidden_size"], "is not of the form FIELD=VALUE"),
        (["--set", "hidden_size=3", "--set", "hidden_size=4"], "hidden_size is set twice"),
        (["--set", "hidden_size=3", "--pareto", "tpot,parameters"], "no figure is called tpot; it needs --device"),
        (["--set", "hidden_size=3", "--jobs", "2", "--scheduler", "tcp://x:1"], "give one"),
        ([], "--set"),
    ],
)
def test_a_slip_is_one_line_and_leaves_no_folder(run, config, tmp_path, options, message):
    done = run("explore", config, *options, "--out", tmp_path / "o")
    assert done.returncode in (1, 2)
    assert message in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_a_report_takes_another_value_of_a_field(run, config):
    data = json.loads(run("report", config, "--set", "num_hidden_layers=2", "--decode", 8, "--json").stdout)
    assert data["model"]["layers"] == 2
    assert data["model"]["name"].endswith("with num_hidden_layers=2")
    whole = json.loads(run("report", config, "--decode", 8, "--json").stdout)
    assert whole["model"]["layers"] == 3
    many = run("report", config, "--set", "num_hidden_layers=1:2", "--decode", 8)
    assert many.returncode == 1 and "`fxmeter explore` goes through them" in many.stderr


@pytest.mark.slow
def test_an_interrupted_search_goes_on_and_loses_nothing(config, tmp_path):
    command = [sys.executable, "-m", "fxmeter", "explore", str(config), "--set", "num_hidden_layers=1:60"]
    command += ["--set", "hidden_size=32,64", "--jobs", "2", "--out"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}

    def begun(folder):
        return subprocess.Popen(
            [*command, str(folder)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def rows(folder):
        with sqlite3.connect(f"file:{folder / 'explore.sqlite'}?mode=ro", uri=True) as database:
            return dict(database.execute("SELECT key, decode_flops FROM architectures"))

    first = begun(tmp_path / "parts")
    while first.poll() is None and not ((tmp_path / "parts").exists() and _count(rows, tmp_path / "parts")):
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does, which tells the processes too
    _, said = first.communicate(timeout=120)
    before = rows(tmp_path / "parts")
    assert first.returncode == 130
    assert [line for line in said.splitlines() if line] == [  # click ends the line of ^C
        f"fxmeter: {len(before):,} more architectures are in {tmp_path / 'parts'}; the same command goes on",
        "fxmeter: interrupted",
    ]
    assert 0 < len(before) < 120
    second, whole = begun(tmp_path / "parts"), begun(tmp_path / "whole")
    printed, _ = second.communicate(timeout=300)
    whole.communicate(timeout=300)
    assert f"120 architectures priced; {120 - len(before)} gone through now" in printed
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    assert len(rows(tmp_path / "whole")) == 120


def _count(rows, folder):
    try:
        return len(rows(folder))
    except sqlite3.Error:  # not made yet
        return 0
