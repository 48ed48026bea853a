"""A measured machine is a device file like any other."""

from __future__ import annotations

import json

import pytest

from fxmeter import annotate, decode
from fxmeter.annotators.documents.devices import to_json
from fxmeter.annotators.timing import benchmarks
from fxmeter.annotators.timing import calibrate as module
from fxmeter.models.devices import device
from fxmeter.models.devices.device import device_from
from fxmeter.models.errors import DeviceError


@pytest.fixture
def small(monkeypatch):
    sizes = {
        "ROWS": (1, 128),
        "QUERIES": (1, 16),
        "WIDTH": {"cpu": 64},
        "WEIGHTS_BYTES": 2**16,
        "STREAM": 2**16,
        "KEYS": 64,
    }
    for name, value in {**sizes, "CACHED": (2**10, 2**12)}.items():
        monkeypatch.setattr(benchmarks, name, value)
    monkeypatch.setattr(module, "FRESH", (2**12,))


@pytest.mark.usefixtures("small")
def test_a_measured_machine_works_as_a_device(preset_model, tmp_path, run):
    file = tmp_path / "mine.json"
    done = run("calibrate", "--out", file, "--seconds", 1)
    assert done.returncode == 0
    mine = device(file)
    assert set(mine.matrix_flops_per_s) == {"fp32", "bf16"}
    for share in (mine.efficiency.bandwidth, mine.efficiency.attention, *mine.efficiency.matrix.values()):
        assert 0 < share <= 1
    assert "measured by fxmeter calibrate" in mine.efficiency.source
    timed = annotate(preset_model("llama-3.1-8b"), decode(64)).time(file)
    assert 0 < timed.bound_s <= timed.estimate_s
    measured = json.loads(file.read_text())["measured"]
    assert measured["spread"]["launch"] >= 0
    assert set(measured["products"]["fp32"]) == set(benchmarks.FORMS)
    assert set(mine.efficiency.by_rows) == {"fp32", "bf16"}
    assert device_from("again", json.loads(json.dumps(to_json(mine)))).efficiency.by_rows == mine.efficiency.by_rows


def test_a_device_that_is_not_here_is_refused():
    with pytest.raises(DeviceError, match="cannot measure 'tpu'"):
        module.calibrate("tpu")


def test_a_file_that_cannot_be_written_is_refused_before_the_work(run, tmp_path):
    done = run("calibrate", "--out", tmp_path / "none" / "mine.json")
    assert done.returncode == 1
    assert "there is no folder" in done.stderr
