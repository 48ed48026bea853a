"""Published timings: what can be expressed, and what is said of the rest."""

from __future__ import annotations

import pytest

from fxmeter import deploy
from fxmeter.models.devices import device_names
from fxmeter.models.presets import preset_names
from validation.published_points import DEVICES, MODELS, WEIGHTS, Prediction, UnexpressedError, points, predict
from validation.time_published import page


def test_names_are_those_of_presets_devices_and_formats():
    assert set(MODELS.values()) <= set(preset_names())
    assert set(DEVICES.values()) <= set(device_names())
    for name in filter(None, WEIGHTS.values()):
        assert deploy(weights=name).weights is not None


def test_a_product_is_expressed():
    (point,) = [p for p in points() if p["model"] == "fp16 GEMM 512x12288x12288" and p["device"] == "A100"]
    found = predict(point)
    assert found.measured_ms == pytest.approx(0.6118, rel=1e-3)
    bytes_s = 2 * (512 * 12288 + 12288 * 12288 + 512 * 12288) / (0.8 * 2.039e12)
    flops_s = 2 * 512 * 12288 * 12288 / (0.74 * 312e12)
    assert found.predicted_ms == pytest.approx(((bytes_s**2 + flops_s**2) ** 0.5 + 4.2e-6) * 1000, rel=1e-9)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"model": "X"}, "no preset of X"),
        ({"device": "X"}, "no device file of"),
        ({"dtype": "X"}, "no weight format X"),
    ],
)
def test_what_cannot_be_expressed_says_why(changed, reason):
    point = next(p for p in points() if p["cls"] == "decode-single")
    with pytest.raises(UnexpressedError, match=reason):
        predict({**point, **changed})


def test_errors_are_signed_and_relative_to_the_measured_time():
    point = next(p for p in points() if p["cls"] == "decode-single" and p["dtype"] == "bf16")
    text = page([Prediction(point, 8.0, 10.0), Prediction(point, 8.0, 10.0)], ["no preset of X"])
    assert text.count("| decode | 2 | +25.0% | 25.0% | 25.0% |") == 2
    assert "2 of 3 published points are expressed" in text
    assert "- 1 × no preset of X" in text
