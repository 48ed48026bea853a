"""``--html``: the page of a model, from its cost sheets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fxmeter.annotators.page.page import Alternative, Start, check_installed, page_html
from fxmeter.models.devices import device, device_names
from fxmeter.models.errors import ScenarioError
from fxmeter.models.scenario import Scenario

if TYPE_CHECKING:
    from fxmeter.annotators.cli.session import Session
    from fxmeter.annotators.conventions import Conventions
    from fxmeter.models.choices import Attention
    from fxmeter.models.deployment import Deployment
    from fxmeter.models.devices import Device
    from fxmeter.models.mixed_step import MixedStep
    from fxmeter.models.scenario import VisionScenario

__all__ = ["check_installed", "page_of"]


def page_of(
    work: Session,
    scenarios: Sequence[Scenario | MixedStep | VisionScenario],
    attentions: Sequence[Attention],
    conventions: Conventions,
    deployment: Deployment,
    devices: Sequence[Device],
) -> str:
    """The page as text. It begins at the last of the scenarios that a page has: prompts and decode steps.

    Raises:
        ScenarioError: there is none. NoFormula: the model's costs have no closed form.
    """
    passes = [one for one in scenarios if isinstance(one, Scenario)]
    if not passes:
        raise ScenarioError("--html shows prompts and decode steps: give --prefill or --decode")
    last = passes[-1]
    first = attentions[-1]
    start = Start(
        stage=last.stage,
        attention=first,
        batch=last.batch,
        prefill=next((one.query_len for one in passes if one.stage == "prefill"), max(1, last.past_len)),
        decode=next((one.past_len for one in passes if one.stage == "decode"), last.query_len),
        device=devices[0].name if devices else "",
    )
    alternatives = []
    info = work.info(deployment)
    for stage in ("prefill", "decode"):
        for attention in attentions:
            form = work.form(stage, attention, conventions, deployment, encoder_len=last.encoder_len, use="formula")
            alternatives.append(Alternative(form, info))
    work.say("writing the page")
    known = [device(name) for name in device_names()]
    own = [one for one in devices if one.name not in device_names()]
    return page_html(alternatives, [*own, *known], start)
