"""The times of a sweep's model on devices, as pictures beside those of its costs."""

from __future__ import annotations

from collections.abc import Sequence

from fxmeter.annotators.plots.speed import latency_plot, report_plot
from fxmeter.annotators.sheets.times import time_of_pass
from fxmeter.annotators.studies.axes import Axes
from fxmeter.annotators.studies.curves import latency_curves, throughput_curves
from fxmeter.annotators.studies.sweep import StageForms
from fxmeter.annotators.studies.times import StageTiming
from fxmeter.models.choices import Attention
from fxmeter.models.devices import Device
from fxmeter.models.scenario import Scenario


def draw_times(forms: StageForms, axes: Axes, attention: Attention, devices: Sequence[Device]) -> dict[str, bytes]:
    """Name → content: the stages of the last point at the first batch under the roofs of each device, and, where there
    are prompts and decode, first tokens and throughput."""
    point = next(point for point in reversed(axes.points()) if point.batch == axes.batch[0])
    timings = []
    for stage in point.stages:
        scenario, sheet = point.scenario(stage), forms.of(stage, attention).sheet
        sizes = (scenario.query_len, scenario.past_len) if isinstance(scenario, Scenario) else scenario.crops
        place = (scenario.batch, *sizes)
        tables = sheet.tables(place)
        timings += [StageTiming(tables, time_of_pass(sheet, place, device)) for device in devices]
    title = f"{forms.info.name}, {forms.info.weights}"
    files = {f"plots/roofline.{kind}": report_plot(timings, title, kind) for kind in ("svg", "png")}
    if {"prefill", "decode"} <= set(point.stages):
        first = latency_curves(forms.of("prefill", attention), devices, [each.prefill or 1 for each in axes.points()])
        batches = throughput_curves(forms.of("decode", attention), devices, point.decode or 0)
        files |= {f"plots/latency.{kind}": latency_plot(first, batches, title, kind) for kind in ("svg", "png")}
    return files
