"""``fxmeter time``: the tables, the JSON beside annotate, mistakes."""

from __future__ import annotations

import json

import pytest
from transformers import T5Config

from fxmeter import annotate, decode, encode, load_model, prefill


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


def test_prompts_in_chunks_take_what_the_report_says(run, preset_model):
    sizes = ("--prefill", 2000, "--batch", 2, "--cached", 100, "--chunk", 512)
    data = json.loads(run("time", "llama-3.1-8b", "--device", "h100", *sizes, "--json").stdout)
    assert (data["chunk"], data["cached"]) == (512, 100)
    (row,) = (row for row in data["times"] if row["stage"] == "prefill")
    prompt = prefill(2000, batch=2, past_len=100, chunk=512)
    timed = annotate(preset_model("llama-3.1-8b"), prompt, causal="exact", logits="last").time("h100")
    assert row["estimate_s"] == pytest.approx(timed.estimate_s, rel=1e-12)
    assert row["tokens_per_s"] == pytest.approx(2 * 2000 / timed.estimate_s, rel=1e-12)


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


def test_of_an_encoder_and_a_decoder_the_encoder_has_its_rows(run, tmp_path):
    model = load_model(write_t5(tmp_path))
    arguments = ("--device", "h100", "--prefill", 4, "--decode", 9, "--batch", "1,3", "--encoder-len", 12, "--json")
    data = json.loads(run("time", str(tmp_path), *arguments).stdout)
    assert [(row["stage"], row["length"]) for row in data["times"]] == [
        *[("encode", 12)] * 2,
        *[("prefill", 4)] * 2,
        *[("decode", 9)] * 2,
    ]
    makes = {"encode": lambda row: encode(12, batch=row["batch"])}
    makes["prefill"] = lambda row: prefill(4, batch=row["batch"], encoder_len=12)
    makes["decode"] = lambda row: decode(9, batch=row["batch"], encoder_len=12)
    for row in data["times"]:
        timed = annotate(model, makes[row["stage"]](row), causal="exact", logits="last").time("h100")
        assert row["estimate_s"] == pytest.approx(timed.estimate_s, rel=1e-12)


@pytest.mark.parametrize("command", ["time", "capacity", "sweep"])
def test_how_long_the_encoder_is_has_to_be_said_or_to_be_so(run, tmp_path, command):
    write_t5(tmp_path)
    more = {"time": ("--device", "h100"), "capacity": (), "sweep": ("--prefill", 4, "--out", str(tmp_path / "out"))}
    result = run(command, str(tmp_path), *more[command])
    assert result.returncode == 1 and result.stderr.count("\n") == 1 and "give --encoder-len N" in result.stderr
    result = run(command, "llama-3.1-8b", "--encoder-len", 4, *more[command])
    assert "no encoder-decoder model: leave --encoder-len out" in result.stderr


def test_what_is_of_decoders_alone_says_which_commands_are_not(run, tmp_path):
    write_t5(tmp_path)
    result = run("crosscheck", str(tmp_path))
    assert (
        result.returncode == 1
        and result.stderr.count("\n") == 1
        and "report, time, capacity, sweep and formula price both" in result.stderr
    )


def write_t5(folder):
    T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, vocab_size=96).save_pretrained(folder)
    return str(folder)
