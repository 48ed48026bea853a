"""A cross-check as plain JSON data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fxmeter.annotators.documents.head import head
from fxmeter.annotators.studies.crosscheck import Comparison, StageCheck
from fxmeter.models.scenario import Scenario, VisionScenario


def to_json(model: str, checks: Sequence[StageCheck]) -> dict[str, object]:
    """Every comparison of every module, stage by stage."""
    return {
        **head(),
        "model": model,
        "ok": not any(check.failures for check in checks),
        "stages": [
            {
                "stage": check.stage.scenario.stage if check.stage.scenario else "module",
                "attention": check.stage.attention,
                **_sizes(check.stage.scenario),
                "ok": not check.failures,
                "modules": [
                    {"path": path, "times": next(iter(fields.values())).times, "fields": _fields(fields)}
                    for path, fields in check.by_module().items()
                ],
            }
            for check in checks
        ],
    }


def _sizes(scenario: Scenario | VisionScenario | None) -> dict[str, object]:
    if isinstance(scenario, VisionScenario):
        return {"batch": scenario.batch, "crops": list(scenario.crops)}
    if scenario is None:
        return {}
    return {"batch": scenario.batch, "query_len": scenario.query_len, "past_len": scenario.past_len}


def _fields(fields: Mapping[str, Comparison]) -> dict[str, object]:
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
