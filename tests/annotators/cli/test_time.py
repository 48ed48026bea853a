"""``fxmeter time``: the tables, the JSON beside annotate, mistakes."""

from __future__ import annotations

import json

import pytest

from fxmeter import annotate, decode, prefill


def test_times_are_those_of_annotate_and_turns_are_exact(run, preset_model):
    sizes = ("--prefill", 2048, "--decode", 4096, "--batch", "1,8")
    data = json.loads(run("time", "llama-3.1-8b", "--device", "h100,a100", *sizes, "--json").stdout)
    assert len(data["times"]) == 2 * 2 * 2
    model = preset_model("llama-3.1-8b")
    for row in data["times"]:
        make = prefill if row["stage"] == "prefill" else decode
        stage = annotate(model, make(row["length"], batch=row["batch"]), causal="exact", logits="last")
        timed = stage.time(row["device"])
        assert row["estimate_s"] == pytest.approx(timed.estimate_s, rel=1e-12)
        assert row["bound_by"] == timed.bound_by
        assert row["tokens_per_s"] == pytest.approx(row["batch"] * row["tokens_per_s_each"])
    turn = data["decode_turns_compute_bound"][0]
    if turn["batch"] is not None:
        at = [annotate(model, decode(4096, batch=b)).time("h100").bound_by for b in (turn["batch"] - 1, turn["batch"])]
        assert at[0] != "compute" and at[1] == "compute"
    one, eight = data["cache_traffic_equals_weights"]
    weights = annotate(model, decode(64)).cost.weight_read_bytes
    token = 2 * 32 * 8 * 128 * 2  # keys and values, layers, heads, width, bytes
    assert one["context"] - 1 <= weights / token <= one["context"] + 1
    assert eight["context"] < one["context"]


def test_a_turn_is_where_decode_stays_bound_by_compute(run, preset_model):
    sizes = ("--prefill", 512, "--decode", 1024, "--batch", 1)
    data = json.loads(run("time", "llama-3.1-8b", "--device", "a100", *sizes, "--json").stdout)
    model = preset_model("llama-3.1-8b")
    there, back = (annotate(model, decode(1024, batch=size)).time("a100").bound_by for size in (160, 4096))
    assert (there, back) == ("compute", "memory")  # each sequence's cache takes longer to read than its products take
    assert data["decode_turns_compute_bound"] == [{**data["decode_turns_compute_bound"][0], "batch": None}]


def test_tables_and_markdown_fit_and_name_the_bound(run):
    arguments = ("time", "llama-3.1-8b", "--device", "h100", "--prefill", 512, "--decode", 512, "--batch", 1)
    shown = run(*arguments).stdout
    assert max(map(len, shown.splitlines())) <= 100
    text = run(*arguments, "--markdown").stdout
    for piece in ("Time to first token", "Time per output token", "turns compute-bound", "memory", "efficiency from"):
        assert piece in shown and piece in text
    assert "| tokens | batch |" in text


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "Missing option '--device'"),
        (["--device", "h101"], 1, "no device named 'h101'"),
        (["--device", "h100", "--batch", "0"], 2, "0 is too small"),
        (["--device", "h100", "--markdown", "--json"], 2, "give one"),
    ],
)
def test_a_mistake_is_one_line(run, arguments, code, message):
    done = run("time", "llama-3.1-8b", *arguments)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (code, "", 1)
    assert message in done.stderr
