"""Scenarios, costs, presets and hand-written layer models: plain Python, nothing imported from outside.

Names are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fxmeter.models.errors import FxmeterError as FxmeterError
    from fxmeter.models.errors import ModelError as ModelError
    from fxmeter.models.errors import RuleError as RuleError
    from fxmeter.models.errors import ScenarioError as ScenarioError
    from fxmeter.models.errors import TraceError as TraceError
    from fxmeter.models.hand import *  # noqa: F403
    from fxmeter.models.mixed_step import MixedStep as MixedStep
    from fxmeter.models.mixed_step import mixed as mixed
    from fxmeter.models.scenario import Scenario as Scenario
    from fxmeter.models.scenario import VisionScenario as VisionScenario
    from fxmeter.models.scenario import decode as decode
    from fxmeter.models.scenario import encode as encode
    from fxmeter.models.scenario import generation as generation
    from fxmeter.models.scenario import prefill as prefill
    from fxmeter.models.scenario import vision as vision
    from fxmeter.models.stage_cost import StageCost as StageCost

_NAMES = {
    "errors": "FxmeterError ModelError RuleError ScenarioError TraceError",
    "hand": "AttentionCore ClipEncoder DeepseekModel DeepseekOCRModel DeepseekOCRVision DeepseekV2AbsorbedAttention "
    "DeepseekV2Attention DeepseekV2DecoderLayer DeepseekV2Experts DeepseekV2MLP DeepseekV2MoE Embedding Linear "
    "LlamaAttention LlamaDecoderLayer LlamaFlashAttention2 LlamaMLP LlamaModel LlamaRotaryEmbedding MoEGate RMSNorm "
    "SamEncoder",
    "mixed_step": "MixedStep mixed",
    "scenario": "Scenario VisionScenario decode encode generation prefill vision",
    "stage_cost": "StageCost",
}
_HOMES = {name: f"fxmeter.models.{home}" for home, names in _NAMES.items() for name in names.split()}

if __name__ == "models":  # imported by its folder's name in a checkout: the same objects
    from fxmeter.checkout import stand_for

    stand_for(__name__)

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
