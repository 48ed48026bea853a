"""Sweeps: equal to annotating each point, the same in every file, whole files or none, sanity ratios that can break."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys

import pytest
from transformers import AutoConfig

from fxmeter.annotators import annotate
from fxmeter.annotators.documents.tables.sweep_files import prepare, write
from fxmeter.annotators.documents.tables.sweep_sql import read_run
from fxmeter.annotators.studies.axes import MOST_POINTS, Axes, read_grids
from fxmeter.annotators.studies.comparing.ratios import check
from fxmeter.annotators.studies.sweep import StageForms, run_sweep
from fxmeter.annotators.units import read_sizes
from fxmeter.models import FxmeterError, ScenarioError, generation, prefill, vision
from fxmeter.models.page import page_context
from fxmeter.models.stage_cost import DERIVED, FIELDS
from fxmeter.tracer import load_model
from fxmeter.tracer.load.vision import load_vision
from tests.tracer.tiny import DEEPSEEK, LLAMA


@pytest.fixture(scope="module")
def llama():
    return StageForms.of_model(load_model(AutoConfig.for_model(**LLAMA)))


@pytest.fixture(scope="module")
def small(llama):
    """Two batches, three prompts, two numbers of steps."""
    return run_sweep(llama, Axes(batch=(1, 3), prefill=(70, 100, 128), steps=(1, 5)))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "config.json"
    path.write_text(json.dumps(LLAMA))
    return path


# Axes


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("7", (7,)),
        ("1,2,4", (1, 2, 4)),
        ("4,2", (4, 2)),
        ("512:2048:512", (512, 1024, 1536, 2048)),
        ("5:8", (5, 6, 7, 8)),
        ("1:6:2", (1, 3, 5)),
        ("1k:8k:*2", (1024, 2048, 4096, 8192)),
        ("1,10:30:10", (1, 10, 20, 30)),
    ],
)
def test_sizes_are_lists_and_ranges(text, values):
    assert read_sizes(text, 1) == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty item"),
        ("1,,2", "an empty item"),
        ("9:3", "runs backwards"),
        ("9:3:1", "runs backwards"),
        ("1:9:0", "a step is at least 1"),
        ("1:9:*1", "a factor is at least 2"),
        ("1:9:-2", "a step is at least 1"),
        ("1,2,1", "1 comes twice"),
        ("4,2:6:2", "4 comes twice"),
        ("1:2:3:4", "is not FIRST:LAST"),
        ("many", "is not a whole number"),
        ("1.5", "is not a whole number"),
        ("0", "0 is too small: a size is at least 1"),
        ("9999999999", "is too large: a size is at most 1,000,000,000"),
        ("1:1000000", f"more than {MOST_POINTS:,} values"),
    ],
)
def test_what_is_no_list_of_sizes_is_refused(text, message):
    with pytest.raises(ScenarioError, match=message):
        read_sizes(text, 1)


def test_a_geometric_range_cannot_begin_at_0():
    with pytest.raises(ScenarioError, match="never leaves 0"):
        read_sizes("0:64:*2", 0)


def test_grids_are_lists_and_ranges():
    assert read_grids("1x2,3x3,0x0") == ((1, 2), (3, 3), (0, 0))
    assert read_grids("2x1:3x2") == ((2, 1), (2, 2), (3, 1), (3, 2))
    assert len(read_grids("1x1:20x20")) == 20 * 20


@pytest.mark.parametrize("text", ["", "3", "1x", "1x0", "2x2:1x3", "0x0:2x2", "1x1:2x2:3x3", "1x2,1x2"])
def test_what_is_no_list_of_grids_is_refused(text):
    with pytest.raises(ScenarioError):
        read_grids(text)


def test_points_are_all_combinations():
    points = Axes(batch=(1, 2), prefill=(8, 16), decode=(0, 4, 9), steps=(3,)).points()
    assert len(points) == len(set(points)) == 2 * 2 * 3
    assert {(p.batch, p.prefill, p.decode, p.steps) for p in points} >= {(2, 16, 0, 3), (1, 8, 9, 3)}
    (page,) = Axes(crops=((1, 2),)).points()
    assert page.prefill == page.decode == page_context((1, 2)) == 493
    assert page.image_tokens == 483


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({}, "nothing to go through"),
        ({"prefill": (1,), "crops": ((1, 2),)}, "a page has its own context"),
        ({"prefill": (5, 5)}, "5 comes twice"),
        ({"prefill": (5,), "batch": ()}, "batch has no values"),
        ({"prefill": (0,)}, "prefill must be at least 1"),
        ({"decode": (10**9,)}, "context and steps come to 1,000,000,001"),
        ({"prefill": range(1, 1001), "decode": range(1, 12)}, "11,000 points are too many"),
    ],
)
def test_axes_that_span_nothing_or_too_much_are_refused(axes, message):
    with pytest.raises(ScenarioError, match=message):
        Axes(**axes)


# Numbers


def test_every_point_equals_annotating_it(llama, small):
    assert [[f.key for f in found] for found in small.figures] == [
        [("prefill", "eager"), ("prefill", "flash"), ("decode", "eager"), ("decode", "flash")]
    ] * 12
    for index in (0, 5, 11):
        point = small.points[index]
        passes = {
            "prefill": prefill(point.prefill, batch=point.batch),
            "decode": generation(point.decode, steps=point.steps, batch=point.batch),
        }
        for found in small.figures[index]:
            expected = annotate(llama.model, passes[found.scenario.stage], attention=found.attention)
            assert found.cost == expected.cost, (point, found.scenario)
            assert found.scenario == passes[found.scenario.stage]


def test_a_page_equals_annotating_its_three_stages(preset_model):
    model, tower = preset_model("deepseek-ocr"), load_vision("deepseek-ocr")
    found = run_sweep(StageForms.of_model(model, tower=tower), Axes(crops=((2, 3),), steps=(4,)), attentions=["flash"])
    see, read, answer = (figures.cost for figures in found.figures[0])
    context = 16 * 17 + 1 + 10 * 2 * (10 * 3 + 1) + 10
    assert see == annotate(tower, vision(crops=(2, 3))).cost
    assert read == annotate(model, prefill(context)).cost
    assert read.matmul_flops == 1_148_190_720 * context + 61_440 * context**2
    assert answer == annotate(model, generation(context, steps=4)).cost


def test_pages_need_a_tower(llama):
    with pytest.raises(FxmeterError, match="vision tower"):
        run_sweep(llama, Axes(crops=((1, 2),)))


# Files


def test_json_and_sqlite_and_csv_hold_equal_content(small, tmp_path):
    data = write(small, prepare(tmp_path / "out"))
    text = json.loads((tmp_path / "out/sweep.json").read_text())
    assert text == data == read_run(tmp_path / "out/sweep.sqlite")
    assert set(text) == {
        "schema_version", "analytic_model_version", "run", "created", "versions", "model", "config_sha256",
        "conventions", "axes", "uncosted", "recorded", "points",
    }  # fmt: skip
    assert len(text["points"]) == 12
    assert list(text["points"][0]["stages"][0]["cost"]) == [*FIELDS, *DERIVED]
    assert text["points"][7]["stages"][3]["cost"] == small.figures[7][3].cost.to_dict()
    with (tmp_path / "out/sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    stages = [stage for point in text["points"] for stage in point["stages"]]
    assert len(rows) == len(stages) == 12 * 4
    for row, stage in zip(rows, stages, strict=True):
        assert (row["stage"], row["attention"]) == (stage["stage"], stage["attention"])
        assert {name: json.loads(row[name]) for name in FIELDS} == {name: stage["cost"][name] for name in FIELDS}


def test_a_folder_is_extended_by_a_further_run(small, tmp_path):
    folder = prepare(tmp_path)
    first = write(small, folder)
    second = write(dataclasses.replace(small, attentions=("flash",)), prepare(tmp_path))
    assert (first["run"], second["run"]) == (1, 2)
    assert read_run(folder / "sweep.sqlite", 1) == first
    assert read_run(folder / "sweep.sqlite") == second == json.loads((folder / "sweep.json").read_text())
    assert sorted(p.name for p in folder.iterdir()) == ["sweep.csv", "sweep.json", "sweep.sqlite"]


def test_numbers_beyond_64_bits_are_kept(llama, tmp_path):
    huge = run_sweep(llama, Axes(batch=(10**9,), prefill=(10**9 - 1,)), attentions=["flash"])
    cost = huge.figures[0][0].cost
    assert cost.flops > 2**63
    data = write(huge, prepare(tmp_path))
    assert read_run(tmp_path / "sweep.sqlite") == data == json.loads((tmp_path / "sweep.json").read_text())
    assert data["points"][0]["stages"][0]["cost"]["flops"] == cost.flops
    with sqlite3.connect(tmp_path / "sweep.sqlite") as database:
        kinds = "SELECT typeof(flops), typeof(weight_bytes), flops FROM stage_costs WHERE stage = 'prefill'"
        assert database.execute(kinds).fetchone() == ("text", "integer", str(cost.flops))
    database.close()


def test_sqlite_has_indexed_tables(small, tmp_path):
    write(small, prepare(tmp_path))
    with sqlite3.connect(tmp_path / "sweep.sqlite") as database:
        query = "SELECT point, kv_bytes FROM stage_costs WHERE run = 1 AND stage = 'decode' AND attention = 'flash'"
        plan = database.execute(f"EXPLAIN QUERY PLAN {query} ORDER BY point").fetchall()
        largest = database.execute(f"{query} ORDER BY kv_bytes DESC").fetchone()
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    database.close()
    assert tables - {"sqlite_stat1"} == {"runs", "points", "stage_costs"}
    assert "INDEX costs_by_stage" in plan[0][-1]
    assert largest == (11, 2 * 2 * 3 * (128 + 5) * 3 * 2 * 8)  # bfloat16... two per layer, 3 layers, B, S, heads, size


BROKEN_FOLDERS = {
    "a file": (lambda out: out.write_text("x"), "is no folder"),
    "not a database": (lambda out: (out.mkdir(), (out / "sweep.sqlite").write_text("no database" * 500)), "not a data"),
    "empty": (lambda out: (out.mkdir(), (out / "sweep.sqlite").touch()), "is no database of sweeps"),
    "only JSON": (lambda out: (out.mkdir(), (out / "sweep.json").write_text("{}")), "no sweep.sqlite to extend"),
}


@pytest.mark.parametrize("kind", BROKEN_FOLDERS)
def test_a_folder_that_cannot_be_extended_is_refused_and_left_alone(kind, run, config, tmp_path):
    make, message = BROKEN_FOLDERS[kind]
    out = tmp_path / "out"
    make(out)
    before = {p: p.read_bytes() for p in [out, *out.rglob("*")] if p.is_file()}
    done = run("sweep", config, "--prefill", 8, "--out", out, "--no-plots")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert {p: p.read_bytes() for p in [out, *out.rglob("*")] if p.is_file()} == before


def test_a_database_with_the_figures_of_another_release_is_refused_and_left_alone(small, tmp_path):
    write(small, prepare(tmp_path))
    with sqlite3.connect(tmp_path / "sweep.sqlite") as database:
        database.execute("ALTER TABLE stage_costs DROP COLUMN fused_io_bytes")
    database.close()
    before = (tmp_path / "sweep.sqlite").read_bytes()
    with pytest.raises(FxmeterError, match="has the figures of another release of fxmeter; name another folder"):
        prepare(tmp_path)
    assert (tmp_path / "sweep.sqlite").read_bytes() == before


def test_a_database_cut_short_is_refused_and_left_alone(small, run, config, tmp_path):
    write(small, prepare(tmp_path))
    whole = (tmp_path / "sweep.sqlite").read_bytes()
    (tmp_path / "sweep.sqlite").write_bytes(whole[: len(whole) // 2])
    done = run("sweep", config, "--prefill", 8, "--out", tmp_path, "--no-plots")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "sweep.sqlite").read_bytes() == whole[: len(whole) // 2]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(run, config, tmp_path):
    tmp_path.chmod(0o500)
    done = run("sweep", config, "--prefill", 8, "--out", tmp_path, "--no-plots")
    assert done.returncode == 1
    assert "not writable" in done.stderr


@pytest.mark.parametrize("file", ["sweep.sqlite", "sweep.json"])
def test_a_full_disk_changes_nothing(file, small, tmp_path):
    folder = prepare(tmp_path)
    write(small, folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before[file]) - 100, hard))
        with pytest.raises(FxmeterError, match="nothing was changed there"):
            write(small, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_an_interruption_leaves_no_file(config, tmp_path):
    code = (
        "import time; from fxmeter.annotators.documents.tables import sweep_files\n"
        "write_table = sweep_files.to_csv\n"
        "def slow(data):\n    print('writing', flush=True); time.sleep(60); return write_table(data)\n"
        "sweep_files.to_csv = slow\n"
        "from fxmeter.annotators.cli.main import main; main()\n"
    )
    out = tmp_path / "out"
    arguments = ["sweep", str(config), "--prefill", "8", "--attention", "flash", "--out", str(out), "--no-plots"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip().splitlines()[-1] == "fxmeter: interrupted"
    assert list(out.iterdir()) == []


# Sanity ratios


def broken(sweep, stage, attention, index, **changed):
    """The sweep with some figures of one stage of one point changed."""
    found = list(sweep.figures)
    found[index] = tuple(
        dataclasses.replace(f, cost=dataclasses.replace(f.cost, **changed)) if f.key == (stage, attention) else f
        for f in found[index]
    )
    return dataclasses.replace(sweep, figures=tuple(found))


def test_ratios_hold_of_what_is_sound(small):
    for verdict in check(small):
        assert verdict.broken is None
        assert verdict.skipped is None
        assert verdict.compared > 0


@pytest.mark.parametrize(
    ("ratio", "stage", "attention", "changed"),
    [
        (0, "decode", "flash", lambda cost: {"activation_bytes": cost.activation_bytes + 1}),
        (1, "prefill", "flash", lambda _: {"activation_bytes": 10}),
        (2, "prefill", "eager", lambda _: {"activation_bytes": 10}),
        (2, "decode", "eager", lambda cost: {"matmul_flops": cost.matmul_flops - 1}),
        (3, "decode", "eager", lambda cost: {"matmul_flops": 100 * cost.matmul_flops}),
        (4, "decode", "flash", lambda cost: {"kv_bytes": cost.kv_bytes // 2}),
    ],
)
def test_a_ratio_that_breaks_names_its_point(small, ratio, stage, attention, changed):
    index = 2
    (cost,) = (f.cost for f in small.figures[index] if f.key == (stage, attention))
    verdict = check(broken(small, stage, attention, index, **changed(cost)))[ratio]
    assert verdict.broken is not None
    assert str(small.points[index]) in verdict.broken


def test_the_mistake_of_a_context_for_a_token_breaks_a_ratio(small):
    """Decode activations as if all cached tokens were new ones, and nothing else wrong."""
    found = small
    for index, point in enumerate(small.points):
        (cost,) = (f.cost for f in small.figures[index] if f.key == ("decode", "flash"))
        found = broken(found, "decode", "flash", index, activation_bytes=cost.activation_bytes * point.decode)
    assert check(found)[0].broken is not None


def test_a_cache_that_the_model_expands_is_no_mistake():
    """Latent attention writes, and reads, keys and values of the whole context at every step."""
    latent = StageForms.of_model(load_model(AutoConfig.for_model(**DEEPSEEK)))
    constant, *others = check(run_sweep(latent, Axes(prefill=(256, 400)), attentions=["flash"]))
    assert constant.skipped is not None
    assert "B of activations more per cached token" in constant.skipped
    assert all(verdict.broken is None for verdict in others)


def test_check_fails_the_command_with_the_point(run, config, tmp_path, monkeypatch):
    from fxmeter.annotators.studies.comparing import ratios

    monkeypatch.setattr(ratios, "TIMES", 10**6)
    done = run("sweep", config, "--prefill", "100,200", "--out", tmp_path, "--no-plots", "--check")
    assert done.returncode == 1
    assert "a decode step far below prefill does not hold at batch 1, prefill 100" in done.stderr
    assert (tmp_path / "sweep.json").exists()


# Command


def test_the_command_writes_everything_and_says_so(run, config, tmp_path):
    out = tmp_path / "new" / "out"
    done = run("sweep", config, "--prefill", "64,80", "--steps", 2, "--out", out, "--no-plots", "--check")
    assert done.returncode == 0
    assert "2 points, 8 stage costs, run 1" in done.stdout
    assert "warning:" not in done.stdout
    assert done.stdout.count("✓") == 5
    assert done.stderr == ""
    assert sorted(p.name for p in out.iterdir()) == ["sweep.csv", "sweep.json", "sweep.sqlite"]


def test_a_length_beyond_the_model_is_a_warning(run, config, tmp_path):
    done = run("sweep", config, "--decode", "64,255", "--steps", 2, "--out", tmp_path, "--no-plots")
    assert "warning: 257 tokens are more than this model's max_position_embeddings, 256" in done.stdout


BAD = [
    (["--prefill", "9:3"], "runs backwards"),
    (["--prefill", "1:9:0"], "a step is at least 1"),
    (["--prefill", ""], "an empty item"),
    (["--batch", "2,2", "--prefill", "5"], "2 comes twice"),
    (["--prefill", "1:9999999"], "more than"),
    (["--prefill", "1:5000", "--batch", "1,2,3"], "15,000 points are too many"),
    (["--crops", "3x"], "is not of the form 1x2"),
    (["--crops", "1x2", "--decode", "9"], "a page has its own context"),
    (["--context", "5"], "No such option"),
    ([], "nothing to go through"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_a_mistake_is_one_line_and_leaves_no_folder(run, config, tmp_path, arguments, message):
    done = run("sweep", config, *arguments, "--out", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_pages_of_a_model_without_a_tower_are_refused(run, config, tmp_path):
    done = run("sweep", config, "--crops", "1x2", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "no vision tower is known" in done.stderr.splitlines()[0]
    assert list((tmp_path).iterdir()) == []


def test_every_option_has_help_and_an_example():
    from fxmeter.annotators.cli.commands.sweep import sweep

    for option in sweep.params:
        if option.param_type_name == "option":
            assert "e.g. " in option.help, option.name
