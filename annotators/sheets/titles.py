"""Scenarios in a few words, as headings of tables have them."""

from __future__ import annotations

from fxmeter.models.mixed_step import MixedStep
from fxmeter.models.scenario import Scenario, VisionScenario


def title(scenario: Scenario | MixedStep | VisionScenario) -> str:
    """ "prefill S=2048", "decode C=2048, B=8": what is passed, and the sizes that say something."""
    if isinstance(scenario, VisionScenario):
        rows, columns = scenario.crops
        text = f"vision {rows}x{columns} crops" if rows else "vision, no crops"
    elif isinstance(scenario, MixedStep):
        steps = [f"{one.batch}×C={one.past_len}" for one in scenario.decodes]
        return f"mixed {', '.join([*steps, _prefill(scenario.prefill)])}"
    elif scenario.stage == "encode":
        text = f"encode S={scenario.query_len}"
    elif scenario.stage == "prefill":
        text = _prefill(scenario)
    else:
        text = f"decode C={scenario.past_len}"
        text += f", S={scenario.query_len}" if scenario.query_len > 1 else ""
        text += f", K={scenario.steps}" if scenario.steps > 1 else ""
    if isinstance(scenario, Scenario) and scenario.encoder_len is not None:
        text += f", E={scenario.encoder_len}"
    return text + (f", B={scenario.batch}" if scenario.batch > 1 else "")


def _prefill(scenario: Scenario) -> str:
    text = f"prefill S={scenario.query_len}"
    text += f", C={scenario.past_len}" if scenario.past_len else ""
    return text + (f" by {scenario.chunk}" if scenario.chunk is not None else "")
