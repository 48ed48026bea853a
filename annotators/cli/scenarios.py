"""The stages that ``fxmeter report`` is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from fxmeter.annotators.cli.engine import engine_options, engine_stages
from fxmeter.annotators.cli.options import batch_option, encoder_len_option
from fxmeter.annotators.cli.values import gathered, pair, size
from fxmeter.models import scenario as make
from fxmeter.models.errors import ScenarioError
from fxmeter.models.mixed_step import MixedStep
from fxmeter.models.names import Kwargs
from fxmeter.models.page import crop_grid, page_context
from fxmeter.models.scenario import Scenario, VisionScenario

DEFAULT_LENGTH = 2048


Scenarios = tuple[Scenario | MixedStep | VisionScenario, ...]
WithinPositions = Callable[[int], Scenarios]


def scenarios_of(
    prefill: int | None,
    decode: int | None,
    steps: int | None,
    crops: tuple[int, int] | None,
    page: tuple[int, int] | None,
    batch: int,
    encoder_len: int | None,
    **engine: Any,
) -> Scenarios:
    """The stages that the options of ``report`` ask for; ``engine`` has those of :data:`engine_options`."""
    if crops is not None and page is not None:
        raise ScenarioError("--crops and --page both say how the page is cropped; give one")
    grid = crop_grid(*page) if page is not None else crops
    if grid is not None:
        if prefill is not None or decode is not None:
            raise ScenarioError("a page has its own context; leave --prefill and --decode out, or --crops and --page")
        if engine["beside"] is not None:
            raise ScenarioError("--beside is for a prompt of text; leave it out, or --crops and --page")
        prefill = decode = page_context(grid)
    elif prefill is None and decode is None:
        cached = engine["cached"] or 0
        prefill, decode = DEFAULT_LENGTH, DEFAULT_LENGTH + cached
        shorter: WithinPositions = lambda limit: scenarios_of(  # noqa: E731  a function of one line, kept for later
            max(1, min(DEFAULT_LENGTH, limit - cached)),
            max(0, min(DEFAULT_LENGTH + cached, limit - 1)),
            steps,
            None,
            None,
            batch,
            encoder_len,
            **engine,
        )
        click.get_current_context().meta[__name__] = shorter
    elif decode is None and steps is not None:
        decode = (prefill or 0) + (engine["cached"] or 0)
    stages: Scenarios = () if grid is None else (make.vision(crops=grid, batch=batch),)
    sizes: Kwargs = {"batch": batch, "encoder_len": encoder_len}
    return stages + engine_stages(prefill, decode, steps, sizes, **engine)


def within_positions(scenarios: Scenarios, positions: Callable[[], int | None]) -> Scenarios:
    """``scenarios``, and where nobody asked for lengths, those that a model of so many positions has."""
    shorter: WithinPositions | None = click.get_current_context().meta.get(__name__)
    limit = None if shorter is None else positions()
    return scenarios if shorter is None or limit is None or limit > DEFAULT_LENGTH else shorter(limit)


scenario_options = gathered(
    "scenarios",
    scenarios_of,
    click.option("--prefill", type=size(1), metavar="S", help="Prompt tokens to process, e.g. --prefill 4096."),
    click.option("--decode", type=size(0), metavar="C", help="Cached tokens before the new one, e.g. --decode 4096."),
    click.option(
        "--steps", type=size(1), metavar="K", help="Tokens to decode, one at a time, e.g. --decode 493 --steps 100."
    ),
    click.option(
        "--crops",
        type=pair("1x2"),
        metavar="HxW",
        help="Read a page: global view and H rows of W crops, e.g. --crops 1x2.",
    ),
    click.option(
        "--page",
        type=pair("1280x640"),
        metavar="WIDTHxHEIGHT",
        help="Read a page of that many pixels, cropped as the vendor does, e.g. --page 1280x640.",
    ),
    batch_option,
    encoder_len_option,
    *engine_options,
)
