"""A report as plain JSON data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from fxmeter.annotators.documents.head import conventions_of, head, model_of, scenario_of
from fxmeter.annotators.documents.times import time_of
from fxmeter.annotators.sheets.steps import per_step
from fxmeter.annotators.sheets.tables import AtPeak, ReportedStage
from fxmeter.annotators.studies.comparing.compared import Pipelined, Served, Shared
from fxmeter.annotators.studies.report import Report
from fxmeter.annotators.studies.times import StageTiming
from fxmeter.models.names import Document
from fxmeter.models.stage_cost import PASS_FIGURES


def to_json(report: Report) -> Document:
    """The report as plain JSON data, schema version 2. A module's cost is for one instance; ``times`` are identical."""
    return {
        **head(),
        "model": model_of(report.model),
        "conventions": {
            **conventions_of(report.model, report.conventions),
            "assumptions": list(report.assumptions),
        },
        "warnings": list(report.warnings),
        "serving_kernels_differ": [_served(item) for item in report.served],
        "stages": [stage_of(stage, report.timings_of(stage)) for stage in report.stages],
        **({"shared": [_shared(item) for item in report.shared]} if report.shared else {}),
        **({"pipelines": [_pipelined(item) for item in report.pipelines]} if report.pipelines else {}),
        **({"end_to_end": [_total(report, attention) for attention in report.totals]} if report.totals else {}),
    }


def stage_of(stage: ReportedStage, timings: Sequence[StageTiming] = ()) -> Document:
    """One stage, as an item of a report's ``stages``, with its time on each device of ``timings``."""
    steps = getattr(stage.scenario, "steps", 1)
    return {
        **scenario_of(stage),
        **({"per_step": per_step(stage.cost, steps).to_dict()} if steps > 1 else {}),
        "cost": stage.cost.to_dict(),
        **{name: getattr(stage, name) for name in PASS_FIGURES},
        "peak": _peak(stage.at_peak),
        "modules": [
            {"path": m.path, "class": m.class_name, "times": m.times, "cost": m.cost.to_dict()}
            for m in stage.modules.values()
        ],
        "ops": [{"op": op.op, "count": op.count, "cost": op.cost.to_dict()} for op in stage.ops],
        "kv_cache": [
            {"layer": c.layer, "kind": c.kind, "shapes": [list(s) for s in c.shapes], "bytes": c.bytes}
            for c in stage.kv_cache
        ],
        "uncosted": [asdict(item) for item in stage.uncosted],
        **({"time": [time_of(timing) for timing in timings]} if timings else {}),
    }


def _shared(item: Shared) -> Document:
    return {
        **scenario_of(item),
        "ranks": item.ranks,
        "one_device": item.one.to_dict(),
        "all_ranks": item.all.to_dict(),
        "replicated_parameters": list(item.whole_parameters),
    }


def _pipelined(item: Pipelined) -> Document:
    return {
        **scenario_of(item),
        "pipeline_stages": [
            {
                "layers": [part.first, part.last],
                "cost": part.cost.to_dict(),
                "sent_bytes": part.sent_bytes,
                "estimate_s": {device: times[place].estimate_s for device, times in item.times.items()},
            }
            for place, part in enumerate(item.parts)
        ],
    }


def _served(item: Served) -> Document:
    figures = {"figure": item.figure, "transformers": item.transformers, "serving": item.serving}
    return {**scenario_of(item), **figures}


def _peak(peak: AtPeak | None) -> Document | None:
    """``bytes`` of an alive row are those of all ``count`` tensors together."""
    if peak is None:
        return None
    return {
        "bytes": peak.bytes,
        "node": peak.node,
        "op": peak.op,
        "module": peak.module,
        **({} if peak.past_len is None else {"past_len": peak.past_len}),
        "alive": [{**asdict(row), "shape": list(row.shape)} for row in peak.rows],
    }


def _total(report: Report, attention: str) -> Document:
    fullest = report.fullest_stages[attention].scenario
    return {
        "attention": attention,
        "cost": report.totals[attention].to_dict(),
        "peak_stage": None if fullest is None else fullest.stage,
    }
