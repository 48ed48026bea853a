"""Prices a recorded graph, rolls it up, reports it.

Names are imported on first use, so that ``fxmeter --help`` does not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fxmeter.annotators.closed.find import closed_form
    from fxmeter.annotators.conventions import Conventions
    from fxmeter.annotators.interactive.stage import annotate, annotate_module
    from fxmeter.annotators.stages.rollup import AnnotatedStage
    from fxmeter.models.stage_cost import Cost

_HOMES = {
    "annotate": "fxmeter.annotators.interactive.stage",
    "annotate_module": "fxmeter.annotators.interactive.stage",
    "closed_form": "fxmeter.annotators.closed.find",
    "AnnotatedStage": "fxmeter.annotators.stages.rollup",
    "Conventions": "fxmeter.annotators.conventions",
    "Cost": "fxmeter.models.stage_cost",
}

if __name__ == "annotators":  # imported by its folder's name in a checkout: the same objects
    from fxmeter.checkout import stand_for

    stand_for(__name__)

__all__ = ["AnnotatedStage", "Conventions", "Cost", "annotate", "annotate_module", "closed_form"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
