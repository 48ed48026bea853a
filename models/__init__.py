"""Scenarios, costs, presets and hand-written layer models: plain Python, nothing imported from outside."""

from fxmeter.models.errors import FxmeterError, ModelError, RuleError, ScenarioError, TraceError
from fxmeter.models.scenario import Scenario, VisionScenario, decode, generation, prefill, vision
from fxmeter.models.stage_cost import StageCost

if __name__ == "models":  # imported by its folder's name in a checkout: the same objects
    from fxmeter.checkout import stand_for

    stand_for(__name__)

__all__ = [
    "FxmeterError",
    "ModelError",
    "RuleError",
    "Scenario",
    "ScenarioError",
    "StageCost",
    "TraceError",
    "VisionScenario",
    "decode",
    "generation",
    "prefill",
    "vision",
]
