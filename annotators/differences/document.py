"""A difference as plain JSON data."""

from __future__ import annotations

from dataclasses import asdict

from fxmeter.annotators.differences.difference import Change, Difference, StageDifference
from fxmeter.annotators.differences.lock import Checked
from fxmeter.annotators.differences.pairs import Pair, every
from fxmeter.annotators.differences.parts import SUMMED
from fxmeter.annotators.documents.head import head
from fxmeter.models.names import Document


def to_json(difference: Difference) -> Document:
    """A difference, schema version 2: every figure of every stage, then what differs of facts, modules and ops."""
    return {
        **head(),
        "same": difference.same,
        "before": difference.before,
        "after": difference.after,
        "facts": [_change(change) for change in difference.facts if change.differs],
        "reports_versions": [_change(change) for change in difference.versions if change.differs],
        "stages": [_stage(stage) for stage in difference.stages],
    }


def check_to_json(found: Checked) -> Document:
    """What has moved since a lock was written, schema version 2; ``module`` is "" for a pass as a whole."""
    return {
        **head(),
        "moved": [asdict(item) for item in found.moved],
        "model_changed": found.model_changed,
        "reports_versions": [_change(change) for change in found.versions],
        "difference": to_json(found.difference),
    }


def _change(change: Change) -> Document:
    """``ratio`` is after as a multiple of before."""
    return {
        "name": change.name,
        "before": change.before,
        "after": change.after,
        "change": change.change,
        "ratio": change.ratio,
    }


def _stage(stage: StageDifference) -> Document:
    pairs = [] if stage.parts is None else [pair for pair in every(stage.parts) if not pair.alike]
    return {
        "before": stage.before,
        "after": stage.after,
        "headline": stage.headline,
        "figures": [_change(change) for change in stage.figures],
        "modules": [_module(pair) for pair in pairs],
        "ops": [
            {
                "op": op.op,
                "count": _change(op.count),
                "figures": [_change(change) for change in op.figures.values() if change.differs],
            }
            for op in stage.ops
        ],
    }


def _module(pair: Pair) -> Document:
    """Amounts are of all instances; ``own_change`` is what no child of it has."""
    return {
        "before": None if pair.before is None else _part(pair.before.path, pair.before.class_name, pair.before.count),
        "after": None if pair.after is None else _part(pair.after.path, pair.after.class_name, pair.after.count),
        "change": {name: pair.change(name) for name in SUMMED},
        "own_change": {name: pair.own_change(name) for name in SUMMED},
    }


def _part(path: str, class_name: str, count: int) -> Document:
    return {"path": path, "class": class_name, "times": count}
