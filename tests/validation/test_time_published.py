"""Published timings: what can be expressed, and what is said of the rest."""

from __future__ import annotations

from fxmeter.models.devices import device_names
from fxmeter.models.presets import preset_names
from validation.time_published import DEVICES, PRESETS, obstacle, page, points


def test_names_are_those_of_presets_and_devices():
    assert set(PRESETS.values()) <= set(preset_names())
    assert set(DEVICES.values()) <= set(device_names())


def test_a_point_is_expressed_or_the_reason_is_named():
    reasons = [obstacle(point) for point in points()]
    assert len(reasons) == 87
    assert 20 < reasons.count(None) < 87
    assert "tensor parallelism is not recorded" in reasons


def test_errors_are_signed_and_relative_to_the_measured_time():
    point = next(point for point in points() if obstacle(point) is None)
    text = page([(point, point["t_ms"] * 1.25), (point, point["t_ms"] * 1.25)], ["no preset of X"])
    assert "| decode | 2 | +25.0% | 25.0% | 25.0% |" in text
    assert "- 1 × no preset of X" in text
