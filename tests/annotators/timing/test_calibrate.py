"""A measured machine is a device file like any other."""

from __future__ import annotations

import json

import pytest

from fxmeter import annotate, decode
from fxmeter.annotators.timing import calibrate as module
from fxmeter.models.devices import device
from fxmeter.models.errors import DeviceError


@pytest.fixture
def small(monkeypatch):
    for name, value in (("ROWS", (1, 128, 256)), ("WIDTH", 256), ("STREAM", 2**16), ("ATTENTION", (1, 2, 64, 16))):
        monkeypatch.setattr(module, name, value)


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
    assert len(measured["products"]["fp32"]) == 3


def test_a_device_that_is_not_here_is_refused():
    with pytest.raises(DeviceError, match="cannot measure 'tpu'"):
        module.calibrate("tpu")


def test_a_file_that_cannot_be_written_is_refused_before_the_work(run, tmp_path):
    done = run("calibrate", "--out", tmp_path / "none" / "mine.json")
    assert done.returncode == 1
    assert "there is no folder" in done.stderr
