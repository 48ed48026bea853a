"""Prices a recorded graph, rolls it up, reports it.

Names are imported on first use, so that ``fxmeter --help`` does not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from annotators.annotation import annotate, annotate_module
    from annotators.cost import Conventions, Cost
    from annotators.forms import closed_form
    from annotators.rollup import AnnotatedStage

_HOMES = {
    "annotate": "annotators.annotation",
    "annotate_module": "annotators.annotation",
    "closed_form": "annotators.forms",
    "AnnotatedStage": "annotators.rollup",
    "Conventions": "annotators.cost",
    "Cost": "annotators.cost",
}

__all__ = ["AnnotatedStage", "Conventions", "Cost", "annotate", "annotate_module", "closed_form"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
