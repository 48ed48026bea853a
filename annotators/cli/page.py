"""``--html``: the page of a model, from its cost sheets."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import click

from fxmeter.annotators.cli.output import complain
from fxmeter.annotators.page.content import MOST_STEPS
from fxmeter.annotators.page.page import Alternative, Start, check_installed, page_html
from fxmeter.annotators.studies.axes import Axes
from fxmeter.annotators.units import read_size
from fxmeter.models.choices import Attention, StageName
from fxmeter.models.deployment import Deployment, Kernels
from fxmeter.models.devices import device, device_names
from fxmeter.models.errors import ScenarioError
from fxmeter.models.formats import weight_formats
from fxmeter.models.page import page_context
from fxmeter.models.scenario import Scenario, VisionScenario, decode, prefill, vision

if TYPE_CHECKING:
    from fxmeter.annotators.cli.session import Session
    from fxmeter.annotators.conventions import Conventions
    from fxmeter.models.devices import Device
    from fxmeter.models.mixed_step import MixedStep

STAGES: tuple[StageName, ...] = ("prefill", "decode")
html_option = click.option(
    "--html",
    "html_path",
    metavar="FILE",
    help="One page that opens offline and works out any batch and length, e.g. --html page.html.",
)
also_option = click.option(
    "--also",
    default="",
    callback=lambda context, option, text: tuple(filter(None, map(str.strip, text.split(",")))),
    metavar="LIST",
    help="Kernels, weight formats and tensor parallelism to choose from in the page, e.g. --also serving,fp8,tp=8.",
)


def check_page(path: str | None, asked: Deployment, also: Sequence[str]) -> list[Deployment]:
    """The deployments of the page, and a refusal before the work of what could not be made after it."""
    if path is not None:
        check_installed()
    elif also:
        raise click.UsageError("--also says what can be chosen in a page; give --html")
    return deployments_of(asked, also)


def first_passes(axes: Axes) -> tuple[Scenario | VisionScenario, ...]:
    """A prompt and a decode step at the first sizes of a sweep, and its first page."""
    pages = tuple(map(page_context, axes.crops))
    prompts, contexts = axes.prefill or axes.decode or pages, axes.decode or axes.prefill or pages
    batch = axes.batch[0]
    seen = [vision(crops=crops, batch=batch) for crops in axes.crops[:1]]
    return *seen, prefill(max(1, prompts[0]), batch=batch), decode(contexts[0], batch=batch)


def deployments_of(asked: Deployment, also: Sequence[str]) -> list[Deployment]:
    """The deployment that was asked for, and all combinations with the words of --also.

    Raises:
        DeploymentError: a word is no kernels and no weight format. ScenarioError: a size that is none.
    """
    kernels, weights, tp = [asked.kernels], [asked.weights], [asked.tp]
    for word in also:
        if word in get_args(Kernels):
            kernels += [kind for kind in get_args(Kernels) if kind == word]
        elif word.startswith("tp="):
            tp.append(read_size(word.removeprefix("tp="), 1, "tp"))
        else:
            weights.append(weight_formats(word))
    combined = (
        replace(asked, kernels=one, weights=stored, tp=size)
        for one, stored, size in itertools.product(kernels, weights, tp)
    )
    return list({repr(each): each for each in combined}.values())


def page_of(
    work: Session,
    scenarios: Sequence[Scenario | MixedStep | VisionScenario],
    attentions: Sequence[Attention],
    conventions: Conventions,
    deployments: Sequence[Deployment],
    devices: Sequence[Device],
) -> str:
    """The page as text. It begins at the last of the scenarios that a page has: prompts and decode steps.

    Raises:
        ScenarioError: there is none. NoFormula: the model's costs have no closed form.
    """
    passes = [one for one in scenarios if isinstance(one, Scenario)]
    seen = next((one for one in scenarios if isinstance(one, VisionScenario)), None)
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
        steps=min(last.steps, MOST_STEPS),
        rows=seen.crops[0] if seen else 0,
        columns=seen.crops[1] if seen else 0,
    )
    stages: tuple[StageName, ...] = (*STAGES, "vision") if seen else STAGES
    alternatives = []
    for deployment in deployments:
        info = work.info(deployment)
        served: Sequence[Attention] = ("flash",) if deployment.kernels == "serving" else attentions
        for stage, attention in itertools.product(stages, served):
            form = work.form(stage, attention, conventions, deployment, encoder_len=last.encoder_len, use="formula")
            alternatives.append(Alternative(form, info))
    for what in _left_out(passes):
        complain(f"not in the page: {what}")
    work.say("writing the page")
    known = [device(name) for name in device_names()]
    own = [one for one in devices if one.name not in device_names()]
    return page_html(alternatives, [*own, *known], start)


def _left_out(passes: Sequence[Scenario]) -> list[str]:
    """What of the passes that were asked for no page has, each in words."""
    said = {
        f"more than {MOST_STEPS} steps; it begins with so many": any(one.steps > MOST_STEPS for one in passes),
        "drafted tokens; its steps are of one": any(one.stage == "decode" and one.query_len > 1 for one in passes),
        "chunks; its prompts are processed whole": any(one.chunk is not None for one in passes),
        "a cached prefix; its prompts begin with an empty cache": any(
            one.stage == "prefill" and one.past_len for one in passes
        ),
    }
    return [what for what, asked in said.items() if asked]
