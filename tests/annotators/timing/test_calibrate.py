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
        "WIDTHS": {"cpu": (32, 64)},
        "HEADS": {"cpu": (1, 2)},
        "KEYS": {"cpu": 64},
        "WEIGHTS_BYTES": 2**16,
        "STREAM": 2**16,
        "STREAMED": {"cpu": (2**10, 2**12)},
        "HOST_WIDTHS": (32, 64),
    }
    for name, value in sizes.items():
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
    assert json.loads(file.read_text())["measured"]["spread"]["tiny"] >= 0
    products = mine.efficiency.product_flops_per_s
    assert set(products) == set(mine.efficiency.elementwise_bytes_per_s) == {"fp32", "bf16"}
    assert set(products["fp32"]) == set(benchmarks.FORMS)
    assert set(products["fp32"]["mm_t"]) == {32 * 32, 64 * 64}
    assert set(products["fp32"]["mm_t"][32 * 32]) == {1, 128}
    assert len(mine.efficiency.host_us) == 2
    again = device_from("again", json.loads(json.dumps(to_json(mine)))).efficiency
    assert (again.product_flops_per_s, again.elementwise_bytes_per_s, again.host_us) == (
        products,
        mine.efficiency.elementwise_bytes_per_s,
        mine.efficiency.host_us,
    )


def test_the_wider_the_decoder_the_more_of_a_step_is_its_weights():
    one, other = (benchmarks.host_step(width) for width in (32, 64))
    assert one.ops == other.ops > 50
    per_layer = 4 * 64 * 64 + 3 * 64 * 192  # projections of attention, and of the gated part three times as wide
    assert other.bytes_per_op == 4 * (2 * per_layer + 64 * 64) // other.ops


def test_a_device_that_is_not_here_is_refused():
    with pytest.raises(DeviceError, match="cannot measure 'tpu'"):
        module.calibrate("tpu")


def test_a_file_that_cannot_be_written_is_refused_before_the_work(run, tmp_path):
    done = run("calibrate", "--out", tmp_path / "none" / "mine.json")
    assert done.returncode == 1
    assert "there is no folder" in done.stderr
