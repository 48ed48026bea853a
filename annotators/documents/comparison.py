"""A trace laid over its prediction, as plain JSON data."""

from __future__ import annotations

from fxmeter.annotators.documents.head import conventions_of, head, model_of, scenario_of
from fxmeter.annotators.studies.measured.comparison import Comparison, MeasuredOp, Part
from fxmeter.models.model_info import ModelInfo
from fxmeter.models.names import Document


def comparison_of(found: Comparison, model: ModelInfo) -> Document:
    """The whole comparison, schema version 2. Times that end in ``_ns`` are of all passes together and add up: the
    modules' ``own_ns`` and ``outside_ns`` to ``total_ns``; what ends in ``_s`` is a pass's."""
    return {
        **head(),
        "model": model_of(model),
        "conventions": conventions_of(model, found.stage.conventions),
        "stage": scenario_of(found.stage),
        "device": None if found.device is None else found.device.name,
        "times_of": "kernels" if found.on_device else "ops",
        "passes": found.passes,
        "wall_s": found.wall_s,
        "total_ns": found.total_ns,
        "outside_ns": found.outside_ns,
        "matched_ns": found.matched_ns,
        "matched_share": found.matched_share,
        "mfu": found.mfu if found.device else None,
        "predicted_mfu": found.predicted_mfu if found.device else None,
        "peak_allocated_bytes": found.peak_bytes,
        "warnings": list(found.warnings),
        "modules": [
            {"path": path, "own_ns": found.own[path].ns, **_figures(part)} for path, part in found.modules.items()
        ],
        "ops": [_op(op) for op in found.ops],
        "unmatched": [
            {"op": item.name, "module": item.module, "shapes": item.shapes, "count": item.count, "ns": item.ns}
            for item in found.unmatched
        ],
        "missing": [_op(op) for op in found.missing],
    }


def _op(op: MeasuredOp) -> Document:
    return {"name": op.name, "op": op.op, "module": op.module, "inputs": op.inputs, **_figures(op.part)}


def _figures(part: Part) -> Document:
    return {
        "ns": part.ns,
        "measured_s": part.seconds,
        "flops": part.flops,
        "io_bytes": part.io_bytes,
        "flops_per_s": part.flops_per_s,
        "bytes_per_s": part.bytes_per_s,
        "bound_s": part.bound_s,
        "estimate_s": part.estimate_s,
    }
