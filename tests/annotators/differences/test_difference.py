"""Two reports side by side: the figures, the parts of the same role, the ops."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from transformers import AutoConfig

from fxmeter import FxmeterError, annotate, decode, deploy, diff, load_model, prefill
from fxmeter.annotators.differences.pairs import every
from fxmeter.annotators.differences.parts import SUMMED
from fxmeter.annotators.differences.rows import part_rows
from tests.tracer.tiny import DEEPSEEK, LLAMA


def built(config, **changed):
    return load_model(AutoConfig.for_model(**{**config, **changed}))


@pytest.fixture(scope="module")
def layers():
    """Stages of models with two and with three layers."""
    return [annotate(built(LLAMA, num_hidden_layers=count), prefill(8), attention="flash") for count in (2, 3)]


@pytest.fixture
def reports(run, tmp_path):
    """Saved reports of the two presets."""
    paths = [tmp_path / f"{name}.json" for name in ("llama-3.1-8b", "qwen3-8b")]
    for path in paths:
        run("report", path.stem, "--prefill", 4096, "--attention", "flash", "--json", path)
    return paths


def change(difference, name):
    return next(item for item in difference.stages[0].figures if item.name == name)


def test_llama_and_qwen(reports):
    found = diff(*reports)
    cache = change(found, "kv_bytes_per_token")
    assert (cache.before, cache.after) == (32 * 2 * 8 * 128 * 2, 36 * 2 * 8 * 128 * 2)
    layers = next(item for item in found.facts if item.name == "layers")
    assert (layers.before, layers.after, layers.change, layers.ratio) == (32, 36, 4, 36 / 32)
    root = found.stages[0].parts
    decoder = next(pair for pair in every(root) if pair.path == "model.layers.0")
    assert (decoder.before.count, decoder.after.count) == (32, 36)
    norms = {pair.path.rpartition(".")[2] for pair in every(root) if pair.before is None}
    assert norms == {"q_norm", "k_norm"}  # what Qwen 3 has and Llama has not


def test_own_changes_add_up_to_the_whole(reports):
    stage = diff(*reports).stages[0]
    for name in SUMMED:
        assert sum(pair.own_change(name) for pair in every(stage.parts)) == change(diff(*reports), name).change
    rows = part_rows(stage, 1)
    assert sum(row.change for row in rows if row.depth == 1) == rows[0].change == stage.parts.change("flops")
    assert sum(row.share for row in rows if row.depth == 1) == pytest.approx(1)


def test_a_report_differs_from_itself_in_nothing(run, reports):
    assert diff(reports[0], reports[0]).same
    done = run("diff", reports[0], reports[0])
    assert (done.returncode, done.stdout) == (0, "no figure differs\n")
    assert run("diff", *reports).returncode == 1


def test_layers_of_different_counts_are_one_role(layers):
    found = diff(*layers)
    assert change(found, "weight_bytes").change > 0
    changed = [pair.path for pair in every(found.stages[0].parts) if not pair.alike]
    assert changed[:3] == ["", "model", "model.layers.0"]
    assert "lm_head" not in changed
    assert found.stages[0].heaviest(1)[0].path.startswith("model.layers.0.")


def test_layers_recorded_in_full_are_what_a_folded_one_says(layers):
    model = built(LLAMA, num_hidden_layers=2)
    full = annotate(model, prefill(8), attention="flash", fold=False)
    assert len(full.modules) > len(layers[0].modules)
    assert diff(layers[0], full).same


def test_kernels_are_told_by_the_attention():
    model = built(DEEPSEEK)
    served = deploy(kernels="serving")
    pair = annotate(model, decode(64), attention="flash"), annotate(model, decode(64), deployment=served)
    stage = diff(*pair).stages[0]
    assert {pair.path.split(".")[3] for pair in stage.heaviest(3, "flops")} == {"self_attn"}
    assert stage.ops[0].figures["flops"].change != 0


def test_two_classes_of_layers_against_one():
    """DeepSeek's first layer is dense and the others have experts; the larger share is the counterpart of Llama's."""
    mixed, plain = (annotate(built(config), prefill(8), attention="flash") for config in (DEEPSEEK, LLAMA))
    pairs = [
        pair for pair in every(diff(mixed, plain).stages[0].parts) if pair.before and ".layers." in pair.before.path
    ]
    groups = [pair for pair in pairs if pair.before.path.count(".") == 2]
    matched = {pair.before.path: pair.after for pair in groups}
    flops = {pair.before.path: pair.before.amounts["flops"] for pair in groups}
    largest = max(flops, key=flops.__getitem__)
    assert [path for path, after in matched.items() if after is not None] == [largest]
    assert len(groups) == 2


def test_two_values_of_an_option_are_of_the_two_sides(run, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(LLAMA))
    found = tmp_path / "found.json"
    done = run("diff", config, "--decode", "16,32", "--kv=fp8", "--json", found)
    assert done.returncode == 1
    stage = json.loads(found.read_text())["stages"][0]
    assert (stage["before"], stage["after"]) == ("decode C=16, flash", "decode C=32, flash")
    resident = next(row for row in stage["figures"] if row["name"] == "kv_bytes")
    assert resident["after"] * 17 == resident["before"] * 33  # 16 + 1 tokens, and 32 + 1
    text = run("diff", config, "--decode", "16,32", "--markdown").stdout
    assert "| KV cache after | " in text
    assert all(line.count("|") >= 4 for line in text.splitlines() if line.startswith("|"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "diff takes two models or saved reports"),
        (["a", "b", "c"], "got 3"),
        (["llama-3.1-8b", "--decode", "8"], "name one beside llama-3.1-8b"),
        (["llama-3.1-8b", "--decode"], "'--decode' requires a value"),
        (["llama-3.1-8b", "--decode", "1,2,3"], "one value for both or one for each"),
        (["llama-3.1-8b", "--bogus", "1"], "No such option: --bogus"),
        (["llama-3.1-8b", "qwen3-8b", "--device", "h100", "--plot", "both.svg"], "No such option: --plot"),
        (["llama-3.1-8b", "qwen3-8b", "--html", "page.html"], "No such option: --html"),
        (["no-such-model", "llama-3.1-8b"], "no-such-model"),
    ],
)
def test_bad_input_is_one_line(run, arguments, message):
    done = run("diff", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema_version": 2, "stages"', "is no whole JSON file"),
        ('{"schema_version": 1, "stages": []}', "is of schema 1, and this fxmeter reads 2"),
        ('{"schema_version": 2}', "has no stages"),
        ('{"schema_version": 2, "stages": [{"stage": "decode"}]}', "is not whole"),
        ("[]", "is not what `fxmeter report MODEL --json FILE` writes"),
    ],
)
def test_a_damaged_report_is_one_line(reports, tmp_path, text, message):
    path = tmp_path / "damaged.json"
    path.write_text(text)
    with pytest.raises(FxmeterError, match=message):
        diff(reports[0], path)


@pytest.mark.parametrize(
    "change", [lambda one: one.pop("model"), lambda one: one["stages"][0]["cost"].update(flops="x")]
)
def test_a_report_edited_by_hand_is_one_line(run, reports, tmp_path, change):
    document = json.loads(reports[0].read_text())
    change(document)
    (tmp_path / "edited.json").write_text(json.dumps(document))
    done = run("diff", reports[0], tmp_path / "edited.json")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "is not whole" in done.stderr


def test_saved_reports_are_compared_without_torch(reports):
    code = "import sys, fxmeter; fxmeter.diff(*sys.argv[1:]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, *map(str, reports)], timeout=60).returncode == 0


def test_a_difference_shows_itself_and_names_are_priced_first(reports):
    assert "\nFigures that differ: " in repr(diff(*reports))
    with pytest.raises(FxmeterError, match="a model is priced first"):
        diff("llama-3.1-8b", "qwen3-8b")
