"""``report --device``: the answer in words, the tables, the JSON, mistakes."""

from __future__ import annotations

import json

import pytest

from fxmeter import annotate, decode


def test_the_first_line_answers_in_words(run, preset_model):
    done = run("report", "llama-3.1-8b", "--decode", 4096, "--attention", "flash", "--device", "h100,a100")
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    timed = annotate(preset_model("llama-3.1-8b"), decode(4096)).time("h100")
    first = f"decode at 4,096 tokens is bound by memory: {timed.estimate_s * 1000:.3f} ms a token on h100-sxm5-80g, "
    assert text.startswith(first + f"{1 / timed.estimate_s:.1f} tokens/s; weights are 9")
    for piece in ("a100-sxm4-80g, efficiency from", "ridge", "Time by module", "Heaviest ops by time", "295.3"):
        assert piece in text
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_the_json_has_the_time_of_every_stage_on_every_device(run):
    done = run("report", "llama-3.1-8b", "--prefill", 64, "--attention", "flash", "--device", "h100,t4", "--json")
    (stage,) = json.loads(done.stdout)["stages"]
    assert [time["device"] for time in stage["time"]] == ["h100-sxm5-80g", "t4-16g"]
    for time in stage["time"]:
        assert 0 < time["bound_s"] < time["estimate_s"]
        assert sum(time["roofs_s"].values()) == pytest.approx(time["estimate_s"])
        assert time["tokens_per_s"] == pytest.approx(64 / time["estimate_s"])
        assert time["modules"] and {part["path"] for part in time["modules"]} >= {"", "lm_head"}
    assert "time" not in json.loads(run("report", "llama-3.1-8b", "--prefill", 64, "--json").stdout)["stages"][0]


def test_a_stage_that_does_not_fit_in_its_device_is_told_so(run):
    options = ("--decode", 64, "--attention", "flash", "--device")
    text = " ".join(run("report", "llama-2-13b", *options, "rtx4090-24g").stdout.split())
    assert "warning: decode C=64 takes 24.2" in text  # GiB: 13,015,864,320 parameters of 2 bytes, and a little
    assert "more than the 22.35 GiB of rtx4090-24g" in text
    assert "warning" not in run("report", "llama-2-13b", *options, "h100").stdout


def test_ops_are_ranked_by_what_is_asked(run):
    for by, title in (("time", "by time"), ("flops", "by FLOPs"), ("bytes", "by bytes moved")):
        done = run("report", "llama-3.1-8b", "--decode", 64, "--attention", "flash", "--device", "h100", "--ops-by", by)
        assert f"Heaviest ops {title}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--device", "h101"], 1, "no device named 'h101'"),
        (["--device", "h100,"], 1, "no device named ''"),
        (["--ops-by", "time"], 2, "needs a --device"),
    ],
)
def test_a_mistake_is_one_line(run, arguments, code, message):
    done = run("report", "llama-3.1-8b", *arguments)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (code, "", 1)
    assert message in done.stderr
