"""Pictures of time: kernels stay under their roofs, parts add up, curves say what the forms do."""

from __future__ import annotations

import itertools
import json
import xml.etree.ElementTree as ET

import pytest
from transformers import AutoConfig

from fxmeter import annotate, closed_form, decode, generation, load_model, prefill
from fxmeter.annotators.studies.axes import Axes
from fxmeter.annotators.studies.curves import HOST, OTHER, dots, latency_curves, parts, spread, throughput_curves
from fxmeter.annotators.studies.smooth import smooth
from fxmeter.annotators.studies.sweep import StageForms, run_sweep
from fxmeter.annotators.studies.times import StageTiming
from fxmeter.models.devices import device
from tests.tracer.tiny import LLAMA

pytest.importorskip("matplotlib")

H100 = device("h100")


def timings_of(stages, devices):
    return tuple(StageTiming(stage, stage.time(device)) for stage in stages for device in devices)


@pytest.fixture(scope="module")
def model():
    return load_model(AutoConfig.for_model(**LLAMA))


@pytest.fixture(scope="module")
def timings(model):
    return timings_of([annotate(model, prefill(512)), annotate(model, decode(512))], [H100])


def test_no_kernel_is_above_the_roofs(timings):
    found = dots(timings)
    assert {dot.stage for dot in found} == {"prefill", "decode"}
    for dot in found:
        assert dot.flops_per_s <= min(dot.intensity * 3.35e12, 989.4e12)
    assert 0.5 < sum(dot.share for dot in found if dot.stage == "decode") <= 1


def test_a_generation_is_drawn_by_its_last_step(model):
    (several,) = timings_of([annotate(model, generation(509, steps=4))], [H100])
    (last,) = timings_of([annotate(model, decode(512))], [H100])
    assert sorted(map(repr, dots([several]))) == sorted(map(repr, dots([last])))


def test_parts_add_up_and_the_engine_is_one_of_a_prefill(timings):
    first, step = timings
    for timing in timings:
        assert sum(parts(timing).values()) == pytest.approx(timing.time.estimate_s, rel=1e-12)
        small = {name: value for name, value in parts(timing).items() if value < 0.01 * timing.time.estimate_s}
        assert set(small) <= {OTHER}
    assert parts(first)[HOST] == pytest.approx(2e-3, rel=1e-9)
    assert HOST not in parts(step)
    assert {"self_attn", "mlp"} <= set(parts(step))


def test_curves_are_the_forms_and_end_where_memory_does(model):
    first, step = (closed_form(model, stage=stage) for stage in ("prefill", "decode"))
    (curve,) = latency_curves(first, [H100], [128, 4096])
    assert (curve.tokens[0], curve.tokens[-1]) == (128, 4096)
    assert {256, 512, 1024, 2048} <= set(curve.tokens.tolist())
    assert curve.estimate_s[-1] == pytest.approx(first.time(H100, query_len=4096).estimate_s, rel=1e-12)
    (batches,) = throughput_curves(step, [H100], 4096)
    assert batches.each[0] == batches.whole[0]
    held = [step.at(batch=int(size), past_len=4096) for size in batches.batch]
    assert [cost.kv_bytes + cost.weight_bytes <= 80e9 for cost in held] == batches.fits.tolist()


def test_curves_are_dense_and_round():
    assert spread(3, 3).tolist() == [3]
    points = spread(1, 1024).tolist()
    assert points == sorted(set(points))
    assert {2**k for k in range(11)} <= set(points)
    assert all(b <= 1.2 * a + 1 for a, b in itertools.pairwise(points))


def test_a_sweep_is_smooth_between_its_points(model):
    forms = StageForms.of_model(model)
    coarse = run_sweep(forms, Axes(prefill=(8, 512)), attentions=["flash"])
    fine = smooth(forms, coarse)
    assert len(fine.points) > 40
    assert coarse.figures == (fine.figures[0], fine.figures[-1])
    assert smooth(forms, run_sweep(forms, Axes(decode=(8,)), attentions=["flash"])).axes == Axes(decode=(8,))


def test_the_commands_draw(run, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(LLAMA))
    picture = tmp_path / "times.svg"
    shown = run("time", config, "--device", "h100", "--prefill", "64,512", "--decode", 64, "--plot", picture)
    assert shown.returncode == 0
    ET.fromstring(picture.read_bytes())
    other = tmp_path / "roofs.png"
    done = run("report", config, "--decode", 64, "--attention", "flash", "--device", "h100,l4", "--plot", other)
    assert done.returncode == 0
    assert other.read_bytes().startswith(b"\x89PNG")
    for arguments, message in (
        (["time", config, "--device", "h100", "--plot", "x.gif"], "name a .svg, .png, .pdf file"),
        (["report", config, "--plot", "x.svg"], "give --device"),
    ):
        failed = run(*arguments)
        assert failed.returncode == 2
        assert message in failed.stderr


def test_a_sweep_on_devices_has_pictures_of_times_and_an_index(run, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(LLAMA))
    out = tmp_path / "out"
    done = run("sweep", config, "--prefill", "64,512", "--attention", "flash", "--device", "h100", "--out", out)
    assert done.returncode == 0
    drawn = {path.name for path in (out / "plots").iterdir()}
    assert {"roofline.svg", "latency.png", "index.html", "flops.svg"} <= drawn
    assert "roofline.svg" in (out / "plots" / "index.html").read_text()
    refused = run("sweep", config, "--prefill", "64,512", "--device", "h100", "--no-plots", "--out", out)
    assert refused.returncode == 2
