"""The command line as a user meets it: exit codes, one-line errors, JSON, pipes, what is on the screen."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fxmeter.models.stage_cost import DERIVED, FIELDS
from tests.tracer.tiny import DEEPSEEK, LLAMA

FXMETER = Path(sys.executable).parent / "fxmeter"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "config.json"
    path.write_text(json.dumps({**DEEPSEEK, "max_position_embeddings": 4096}))
    return path


def test_help_is_fast_and_imports_no_torch():
    code = "import sys; sys.argv = ['fxmeter', '--help']\nfrom fxmeter.annotators.cli.main import main\n"
    code += "try: main()\nfinally: print('TORCH' if 'torch' in sys.modules else 'LIGHT')"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert time.perf_counter() - started < 5  # under one second on an idle machine; this one may be busy
    assert "LIGHT" in done.stdout
    assert "fxmeter report deepseek-ocr" in done.stdout


@pytest.mark.parametrize("command", ["report", "ops", "models"])
def test_every_commands_help_has_an_example(run, command):
    done = run(command, "--help")
    assert done.returncode == 0
    assert f"fxmeter {command}" in done.stdout.replace("Usage: fxmeter", "")


def test_every_option_of_report_has_help_and_an_example():
    from fxmeter.annotators.cli.main import report

    for option in report.params:
        if option.param_type_name == "option":
            assert "e.g. " in option.help, option.name


def test_the_report_shows_stages_modules_ops_and_what_was_not_costed(run, tiny):
    both = run("report", tiny, "--prefill", 16, "--decode", 16)
    assert both.returncode == 0
    text = both.stdout
    for piece in ["prefill S=16", "decode C=16", "eager", "flash", "matmul", "KV read", "FLOP per byte"]:
        assert piece in text
    assert "layers.1-2 (2×)" in text
    assert "torch 2." in text
    assert "causal full · logits all · routing uniform" in text
    assert "Every op was costed" in text
    assert max(map(len, text.splitlines())) <= 100
    assert both.stderr == ""
    assert "\x1b" not in text


def test_json_has_the_promised_shape(run, tiny):
    done = run("report", tiny, "--prefill", 16, "--decode", 8, "--batch", 2, "--json")
    data = json.loads(done.stdout)
    assert list(data) == [
        "schema_version",
        "analytic_model_version",
        "versions",
        "model",
        "conventions",
        "warnings",
        "serving_kernels_differ",
        "stages",
    ]
    assert data["schema_version"] == 2
    assert set(data["versions"]) == {"fxmeter", "torch", "transformers", "python"}
    assert set(data["model"]) == {
        "name",
        "model_type",
        "parameters",
        "active_parameters",
        "weight_bytes",
        "layers",
        "source_sha256",
        "left_out",
    }
    assert [(s["stage"], s["attention"]) for s in data["stages"]] == [
        ("prefill", "eager"),
        ("prefill", "flash"),
        ("decode", "eager"),
        ("decode", "flash"),
    ]
    for stage in data["stages"]:
        assert (stage["batch"], stage["query_len"] + stage["past_len"]) in [(2, 16), (2, 9)]
        assert list(stage["cost"]) == [*FIELDS, *DERIVED]
        assert stage["modules"][0]["path"] == ""
        assert stage["modules"][0]["cost"] == stage["cost"]
        layer = next(m for m in stage["modules"] if m["path"] == "model.layers.1")
        assert (layer["class"], layer["times"]) == ("DeepseekV3DecoderLayer", 2)
        assert sum(op["cost"]["flops"] for op in stage["ops"]) == stage["cost"]["flops"]
        assert [c["layer"] for c in stage["kv_cache"]] == [0, 1, 2]
        assert sum(c["bytes"] for c in stage["kv_cache"]) == stage["cost"]["kv_bytes"]
        assert stage["uncosted"] == []


def test_json_to_a_file_is_the_same_and_leaves_stdout_empty(run, tiny, tmp_path):
    target = tmp_path / "cost.json"
    done = run("report", tiny, "--decode", 8, "--json", target)
    assert (done.returncode, done.stdout) == (0, "")
    assert json.loads(target.read_text()) == json.loads(run("report", tiny, "--decode", 8, "--json").stdout)
    assert [p.name for p in tmp_path.iterdir()] == ["cost.json"]


BAD = [
    (["report", "lama-2-7b"], 1, "did you mean llama-2-7b"),
    (["report", "{tmp}"], 1, "has no config.json"),
    (["report", "{tmp}/nothing.json"], 1, "no such file"),
    (["report", "deepseek-ocr", "--prefill", "0"], 2, "0 is too small"),
    (["report", "deepseek-ocr", "--prefill", "-3"], 2, "-3 is too small"),
    (["report", "deepseek-ocr", "--decode", "1.5"], 2, "'1.5' is not a whole number"),
    (["report", "deepseek-ocr", "--decode", "9" * 30], 2, "is too large"),
    (["report", "deepseek-ocr", "--batch", "many"], 2, "'many' is not a whole number"),
    (["report", "deepseek-ocr", "--attention", "sparse"], 2, "'sparse' is not one of"),
    (["report", "deepseek-ocr", "--dtype", "int4"], 2, "'int4' is not one of"),
    (["report", "deepseek-ocr", "--json", "{tmp}/no/where.json"], 1, "there is no folder"),
    (["report", "deepseek-ocr", "--json", "{tmp}"], 1, "is a folder"),
    (["report", "--json", "deepseek-ocr"], 2, "put MODEL first"),
    (["report"], 2, "Missing argument 'MODEL'"),
    (["reprot", "deepseek-ocr"], 2, "No such command 'reprot'"),
    (["report", "deepseek-ocr", "--sequence", "3"], 2, "No such option"),
    (["ops", "no_such_op"], 1, "no rule for an op with 'no_such_op'"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), BAD, ids=[" ".join(a)[:40] for a, _, _ in BAD])
def test_a_mistake_is_one_line_and_an_exit_code(run, arguments, code, message, tmp_path):
    done = run(*[a.format(tmp=tmp_path) for a in arguments])
    assert done.returncode == code
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("fxmeter: ")
    assert message in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_a_length_beyond_the_model_is_a_warning(run, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    done = run("report", tmp_path, "--decode", 1000, "--attention", "flash")
    assert done.returncode == 0
    warning = "1,001 tokens are more than this model's max_position_embeddings, 256"
    assert f"\nwarning: {warning}\n" in re.sub(" +\n", "\n", done.stdout)
    assert done.stderr == ""
    piped = run("report", tmp_path, "--decode", 1000, "--attention", "flash", "--json")
    assert json.loads(piped.stdout)["warnings"] == [warning]
    assert piped.stderr == f"fxmeter: warning: {warning}\n"
    assert json.loads(run("report", tmp_path, "--decode", 255, "--json").stdout)["warnings"] == []


def test_a_preset_is_found_whatever_its_case(run):
    done = run("report", "Llama-3.1-8B", "--decode", 8, "--attention", "flash", "--json")
    assert json.loads(done.stdout)["model"]["name"] == "llama-3.1-8b"


def test_a_file_is_written_through_a_link_and_into_a_device(run, tiny, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "real" / "cost.json")
    assert run("report", tiny, "--decode", 8, "--attention", "flash", "--json", tmp_path / "link.json").returncode == 0
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "real" / "cost.json").read_text())["schema_version"] == 2
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE, text=True) as reader:
        assert run("report", tiny, "--decode", 8, "--attention", "flash", "--json", tmp_path / "pipe").returncode == 0
        assert json.loads(reader.communicate(timeout=60)[0])["schema_version"] == 2
    assert (tmp_path / "pipe").is_fifo()


def test_a_closed_pipe_is_no_error(tiny):
    command = f"{FXMETER} report {tiny} --json | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["{", "0"]
    assert done.stderr == ""


def test_a_full_disk_is_one_line():
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([FXMETER, "models", "--json"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"fxmeter: .*No space left on device\n", done.stderr)


def test_ctrl_c_is_one_line_and_130(tiny):
    process = subprocess.Popen(
        [FXMETER, "report", str(tiny)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    maps = Path(f"/proc/{process.pid}/maps")  # of Linux; elsewhere two seconds have to do
    until = time.monotonic() + (30 if maps.exists() else 2)
    while time.monotonic() < until and not (maps.exists() and "libtorch" in maps.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip() == "fxmeter: interrupted"
    assert out == ""


def test_models_and_ops_list_everything(run):
    listed = run("models").stdout
    from fxmeter.models.presets import preset_names

    assert all(name in listed for name in preset_names())
    table = " ".join(run("ops").stdout.split())  # a name is as wide as two thirds of a file, so equations fold
    assert "aten.mm.default out[M, N] = self[M, K] @ mat2[K, N]" in table
    assert "aten.view.default 0: a view" in table


def test_the_peak_of_every_stage_is_in_the_json_with_all_that_is_alive_there(run, tiny):
    stages = json.loads(run("report", tiny, "--prefill", 16, "--decode", 8, "--steps", 3, "--json").stdout)["stages"]
    assert len(stages) == 4
    for stage in stages:
        peak = stage["peak"]
        assert peak["bytes"] == stage["cost"]["peak_activation_bytes"] == sum(row["bytes"] for row in peak["alive"])
        assert [row["bytes"] for row in peak["alive"]] == sorted((row["bytes"] for row in peak["alive"]), reverse=True)
        assert sum(row["share"] for row in peak["alive"]) == pytest.approx(1)
        widths = {"bfloat16": 2, "float32": 4, "int64": 8, "int32": 4, "bool": 1}
        for row in peak["alive"]:
            # a storage is as large as the tensor, or larger where the tensor is a part of it
            assert row["bytes"] >= row["count"] * widths[row["dtype"]] * math.prod(row["shape"]) > 0
        groups = [(row["module"], row["op"], tuple(row["shape"]), row["dtype"]) for row in peak["alive"]]
        assert len(set(groups)) == len(groups)
        assert ("past_len" in peak) == (stage["stage"] == "decode")
        assert peak.get("past_len", 10) == 10  # the last of three steps after 8 tokens


def test_at_peak_lists_what_is_alive_in_every_stage_shown(run, tiny):
    plain = run("report", tiny, "--prefill", 300, "--decode", 16).stdout
    assert "Alive at the peak" not in plain
    text = run("report", tiny, "--prefill", 300, "--decode", 16, "--at-peak").stdout
    titles = [line for line in text.splitlines() if line.startswith("Alive at the peak")]
    assert [title.strip() for title in titles] == [
        f"Alive at the peak: {stage}, {attention}"
        for stage in ("prefill S=300", "decode C=16")
        for attention in ("eager", "flash")
    ]
    eager = text[text.index(titles[0]) : text.index(titles[1])]
    assert re.search(r"layers\.\d\.self_attn +_softmax +1×4×300×300 +float32 +1 +1\.373 MiB", eager)
    assert "while _softmax runs in model.layers." in eager
    flash = text[text.index(titles[1]) : text.index(titles[2])]
    assert "300×300" not in flash
    assert max(map(len, text.splitlines())) <= 100


def test_the_peak_of_a_page_is_that_of_its_largest_stage(run):
    done = run("report", "deepseek-ocr", "--crops", "1x1", "--steps", 2, "--attention", "flash", "--json")
    data = json.loads(done.stdout)
    (total,) = data["end_to_end"]
    peaks = {stage["stage"]: stage["peak"]["bytes"] for stage in data["stages"]}
    assert list(peaks) == ["vision", "prefill", "decode"]
    assert total["cost"]["peak_activation_bytes"] == max(peaks.values()) == peaks[total["peak_stage"]]
    assert total["peak_stage"] == "vision"


def test_the_table_of_stages_says_how_much_traffic_is_the_frameworks_doing(run, tiny):
    stage = json.loads(run("report", tiny, "--prefill", 64, "--attention", "eager", "--json").stdout)["stages"][0]
    text = run("report", tiny, "--prefill", 64, "--attention", "eager").stdout
    unfused, fused, floor = (stage["cost"]["io_bytes"], stage["cost"]["fused_io_bytes"], stage["floor_io_bytes"])
    rows = [re.split(r"  +", line.strip()) for line in text.splitlines()]
    at = next(i for i, row in enumerate(rows) if row[0] == "I/O if fused")
    assert rows[at + 1] == ["of the I/O", f"{fused / unfused:.1%}"]
    assert rows[at + 2][0] == "I/O floor"
    assert rows[at + 3] == ["of the I/O", f"{floor / unfused:.1%}"]
    assert rows[[row[0] for row in rows].index("peak alive") + 1][0] == "ideal peak"


@pytest.mark.parametrize(
    "words",
    [
        ["report", "M", "--decode", "10", "--decode", "20"],
        ["report", "M", "--prefill", "10", "--decode=3", "--prefill=10"],
        ["time", "M", "--device", "h100", "--device", "a100"],
        ["formula", "M", "--stage", "decode", "--stage", "prefill"],
    ],
)
def test_an_option_of_one_value_is_given_once(run, words):
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{words[2]} is given 2 times" in done.stderr and done.stderr.count("\n") == 1


def test_lengths_that_nobody_asked_for_are_within_the_positions(run, tmp_path):
    path = tmp_path / "config.json"
    fields = {"model_type": "gpt2", "n_positions": 48, "n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 40}
    path.write_text(json.dumps(fields))
    done = run("report", path, "--json", "--attention", "flash", "--no-cache")
    scenarios = json.loads(done.stdout)["stages"]
    assert (done.returncode, done.stderr) == (0, "")
    assert [(scenario["query_len"], scenario["past_len"]) for scenario in scenarios] == [(48, 0), (1, 47)]
    beyond = run("report", path, "--json", "--attention", "flash", "--decode", "48", "--no-cache")
    assert (
        "49 tokens are more than this model's max_position_embeddings, 48" in beyond.stderr
    )  # who asks for more is told
