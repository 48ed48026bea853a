"""Scenarios, costs, presets and hand-written layer models: plain Python, nothing imported from outside."""

from models.errors import FxmeterError, ModelError, RuleError, ScenarioError, TraceError
from models.scenario import Scenario, VisionScenario, decode, generation, prefill, vision
from models.stage_cost import StageCost

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
