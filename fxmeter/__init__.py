"""What one forward pass of an LLM decoder costs, and how long it takes, from its ``config.json`` alone.

Three floors, each importing only from those below it: ``fxmeter.annotators`` prices, ``fxmeter.tracer`` records,
``fxmeter.models`` has scenarios, costs and presets. Names are imported on first use: ``import fxmeter`` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fxmeter.models.version import VERSION

if TYPE_CHECKING:
    from fxmeter import annotators, models, tracer
    from fxmeter.annotators.closed.find import closed_form
    from fxmeter.annotators.closed.form import load_sheet
    from fxmeter.annotators.interactive.difference import diff
    from fxmeter.annotators.interactive.stage import annotate, annotate_module
    from fxmeter.annotators.studies.architectures.explore import explore
    from fxmeter.annotators.studies.measured.run import measured
    from fxmeter.models.deployment import deploy
    from fxmeter.models.errors import FxmeterError
    from fxmeter.models.mixed_step import mixed
    from fxmeter.models.scenario import decode, encode, generation, prefill, vision
    from fxmeter.tracer.load.loading import load_model

__version__ = VERSION
_HOMES = {
    "FxmeterError": "fxmeter.models.errors",
    "annotate": "fxmeter.annotators.interactive.stage",
    "annotate_module": "fxmeter.annotators.interactive.stage",
    "closed_form": "fxmeter.annotators.closed.find",
    "load_sheet": "fxmeter.annotators.closed.form",
    "decode": "fxmeter.models.scenario",
    "deploy": "fxmeter.models.deployment",
    "diff": "fxmeter.annotators.interactive.difference",
    "encode": "fxmeter.models.scenario",
    "explore": "fxmeter.annotators.studies.architectures.explore",
    "generation": "fxmeter.models.scenario",
    "load_model": "fxmeter.tracer.load.loading",
    "measured": "fxmeter.annotators.studies.measured.run",
    "mixed": "fxmeter.models.mixed_step",
    "prefill": "fxmeter.models.scenario",
    "vision": "fxmeter.models.scenario",
}
_FLOORS = ("annotators", "models", "tracer")

__all__ = [
    "FxmeterError",
    "__version__",
    "annotate",
    "annotate_module",
    "annotators",
    "closed_form",
    "decode",
    "deploy",
    "diff",
    "encode",
    "explore",
    "generation",
    "load_model",
    "load_sheet",
    "measured",
    "mixed",
    "models",
    "prefill",
    "tracer",
    "vision",
]


def __getattr__(name: str) -> Any:
    if name in _FLOORS:
        return import_module(f"fxmeter.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
