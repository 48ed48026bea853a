"""The command that lays a trace over the prediction."""

import gzip
import json
import os
import re
import subprocess
import sys

import pytest

from tests.annotators.studies.measured.real import MODELS, PROMPT, WIDER, real_run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A config, and the trace of a decode step of its model."""
    folder = tmp_path_factory.mktemp("compare")
    fields = {**MODELS["llama"], **WIDER, "dtype": "float32", "architectures": ["LlamaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(fields))
    real_run("llama", "eager", "decode").save(folder / "trace.json.gz")
    return folder / "config.json", folder / "trace.json.gz"


def test_a_trace_says_itself_what_it_is_of(run, files):
    config, trace = files
    done = run("compare", config, "--trace", trace, "--device", "h100")
    assert done.returncode == 0
    for words in (f"decode C={PROMPT}", "eager", "1 pass", "matched: ", "MFU", "self_attn", "mm.default", "of the"):
        assert words in done.stdout, words


def test_the_document_adds_up(run, files):
    config, trace = files
    document = json.loads(run("compare", config, "--trace", trace, "--decode", PROMPT, "--batch", 2, "--json").stdout)
    inside = sum(module["own_ns"] for module in document["modules"])
    assert inside + document["outside_ns"] == document["total_ns"]
    left = sum(item["ns"] for item in document["unmatched"])
    assert document["matched_ns"] + left == inside
    assert document["matched_ns"] == sum(op["ns"] for op in document["ops"])
    assert document["device"] is document["mfu"] is None


def test_the_timeline_has_the_pass_and_under_it_the_prediction(run, files, tmp_path):
    config, trace = files
    done = run("compare", config, "--trace", trace, "--device", "h100", "--timeline", tmp_path / "both.json", "--json")
    document = json.loads(done.stdout)
    slices = [event for event in json.loads((tmp_path / "both.json").read_text())["traceEvents"] if event["ph"] == "X"]
    for track, total_s in ((1, document["modules"][0]["measured_s"]), (2, document["modules"][0]["estimate_s"])):
        ops = [event for event in slices if event["tid"] == track and event["cat"] == "op"]
        lasted = sum(event["dur"] for event in ops) / 1e6
        # what an op taken apart takes itself is in none of its parts; what did not run is in the prediction alone
        assert total_s / 2 < lasted < 1.02 * total_s
        around = [e for e in slices if e["tid"] == track and e["name"] == "model.layers.1.self_attn.q_proj"]
        (products,) = [e for e in ops if e["args"]["module"] == around[0]["name"] and "mm" in e["name"]]
        assert around[0]["ts"] <= products["ts"] + 1e-6
        assert products["ts"] + products["dur"] <= around[0]["ts"] + around[0]["dur"] + 1e-3


def test_mistakes_are_one_line(run, files, tmp_path):
    config, trace = files
    (tmp_path / "cut.json.gz").write_bytes(trace.read_bytes()[:5000])
    (tmp_path / "other.json.gz").write_bytes(gzip.compress(b"no trace"))
    for name, text in (("empty", ""), ("without", '{"traceEvents": []}'), ("odd", '{"traceEvents": {"a": 1}}')):
        (tmp_path / f"{name}.json").write_text(text)
    for arguments, code, words in (
        (["--trace", tmp_path / "cut.json.gz"], 1, "cut off"),
        (["--trace", tmp_path / "other.json.gz"], 1, "is no Chrome trace"),
        (["--trace", tmp_path / "empty.json"], 1, "is no Chrome trace"),
        (["--trace", tmp_path / "odd.json"], 1, "is no Chrome trace"),
        (["--trace", tmp_path / "without.json"], 1, "is a trace without ops"),
        (["--trace", tmp_path], 1, "Is a directory"),
        (["--trace", config], 1, "is no Chrome trace"),
        (["--trace", tmp_path / "none.json"], 1, "No such file"),
        (["--trace", trace, "--decode", "9"], 1, "no pass in it is of this model"),
        (["--trace", trace, "--prefill", "9", "--decode", "9"], 2, "one at a time"),
        (["--trace", trace, "--device", "h100,a100"], 2, "give one --device"),
        ([], 2, "--trace"),
    ):
        done = run("compare", config, *arguments)
        assert (done.returncode, done.stdout) == (code, "")
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_trace_of_300_megabytes_is_read_in_little_more_memory_than_a_small_one(files, tmp_path):
    """The same pass again and again, a thousand times."""
    config, trace = files
    events = [each for each in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"] if "dur" in each]
    apart = max(each["ts"] + each["dur"] for each in events) - min(each["ts"] for each in events) + 10
    text, most = json.dumps(events)[1:-1], {}
    for name, size in (("small", 1), ("large", 300 * 10**6)):
        with (tmp_path / name).open("w") as file:
            passes = 0
            while file.tell() < size:
                file.write(", " if passes else '{"traceEvents": [')
                later = passes * apart
                file.write(
                    re.sub(r'"ts": ([\d.]+)', lambda found, later=later: f'"ts": {float(found[1]) + later}', text)
                )
                passes += 1
            file.write("]}")
        command = [sys.executable, "-m", "fxmeter", "compare", config, "--trace", tmp_path / name]
        command += ["--decode", str(PROMPT), "--batch", "2", "--attention", "eager", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            document = json.loads(process.stdout.read())
            _, code, used = os.wait4(process.pid, 0)
            process.returncode = code
        assert (code, document["passes"]) == (0, passes)
        most[name] = used.ru_maxrss * 1024
    assert passes > 500
    assert most["large"] - most["small"] < 60 * 2**20


def test_every_option_has_an_example():
    from fxmeter.annotators.cli.commands.compare import compare

    for option in compare.params:
        if option.param_type_name == "option":
            assert "e.g. " in option.help, option.name
