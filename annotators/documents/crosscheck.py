"""A cross-check as plain JSON data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fxmeter.annotators.documents.head import head, scenario_of
from fxmeter.annotators.studies.comparing.crosscheck import Comparison, StageCheck
from fxmeter.models.names import Document


def to_json(model: str, checks: Sequence[StageCheck]) -> Document:
    """Every comparison of every module, stage by stage."""
    return {
        **head(),
        "model": model,
        "ok": not any(check.failures for check in checks),
        "stages": [
            {
                **scenario_of(check.stage),
                "ok": not check.failures,
                "modules": [
                    {"path": path, "times": next(iter(fields.values())).times, "fields": _fields(fields)}
                    for path, fields in check.by_module().items()
                ],
            }
            for check in checks
        ],
    }


def _fields(fields: Mapping[str, Comparison]) -> Document:
    return {
        name: {
            "traced": row.traced,
            "hand_written": row.hand_written,
            "difference": row.difference,
            "band": None if row.band is None else list(row.band),
            "ok": row.ok,
        }
        for name, row in fields.items()
    }
