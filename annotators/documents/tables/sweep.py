"""A sweep as plain JSON data, and that as CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict

from fxmeter.annotators.documents.head import conventions_of, head, model_of
from fxmeter.annotators.studies.axes import SweepPoint
from fxmeter.annotators.studies.sweep import StageFigures, Sweep
from fxmeter.models.names import Document, Fields


def to_json(sweep: Sweep, run: int) -> Document:
    """A sweep as plain JSON data, schema version 2. A decode's cost is the sum over its steps."""
    given = asdict(sweep.axes)
    single = {name: given.pop(name) for name in ("encoder_len", "chunk")}
    axes: Document = {name: list(values) for name, values in given.items()}
    axes |= {name: value for name, value in single.items() if value is not None}
    return {
        **head(),
        "run": run,
        "created": sweep.created,
        "model": model_of(sweep.model),
        "config_sha256": sweep.model.config_sha256,
        "conventions": conventions_of(sweep.model, sweep.conventions),
        "axes": {**axes, "crops": [list(grid) for grid in sweep.axes.crops], "attention": list(sweep.attentions)},
        "uncosted": sweep.uncosted,
        "recorded": list(sweep.recorded),
        "points": [
            {"point": index, **sizes_of(point), "stages": [_stage(stage) for stage in stages]}
            for index, (point, stages) in enumerate(zip(sweep.points, sweep.figures, strict=True))
        ],
    }


def sizes_of(point: SweepPoint) -> Document:
    """The sizes of one input shape."""
    return {
        "batch": point.batch,
        "crops": None if point.crops is None else list(point.crops),
        "image_tokens": point.image_tokens,
        "prefill": point.prefill,
        "decode": point.decode,
        "steps": point.steps,
    }


def _stage(figures: StageFigures) -> Document:
    return {
        "stage": figures.scenario.stage,
        "attention": figures.attention,
        "query_len": getattr(figures.scenario, "query_len", None),
        "past_len": getattr(figures.scenario, "past_len", None),
        "steps": figures.steps,
        "cost": figures.cost.to_dict(),
    }


def to_csv(data: Fields) -> str:
    """The document's points as CSV, a line for each stage."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for point in data["points"]:
        for stage in point["stages"]:
            sizes = {k: v for k, v in point.items() if k not in ("stages", "crops", "steps")}
            rows, columns = point["crops"] or (None, None)
            place = {"rows": rows, "columns": columns, **{k: v for k, v in stage.items() if k != "cost"}}
            line = {"run": data["run"], "model": data["model"]["name"], **sizes, **place, **stage["cost"]}
            if out.tell() == 0:
                writer.writerow(line)
            writer.writerow(line.values())
    return out.getvalue()
