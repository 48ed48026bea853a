"""Options for the passes that serving engines run: cached beginnings, chunks, drafted tokens, mixed steps."""

from __future__ import annotations

import click

from fxmeter.annotators.cli.values import Read, size
from fxmeter.annotators.units import read_size
from fxmeter.models.errors import ScenarioError
from fxmeter.models.mixed_step import MixedStep, mixed
from fxmeter.models.names import Kwargs
from fxmeter.models.scenario import Scenario, decode, generation, prefill


def read_contexts(text: str) -> tuple[tuple[int, int], ...]:
    """(sequences, cached tokens of each) of "31x4096,100": 31 sequences with 4,096 tokens, and one with 100."""
    found = []
    for part in text.split(","):
        count, times, context = part.rpartition("x")
        found.append((read_size(count, least=1) if times else 1, read_size(context, least=0)))
    return tuple(found)


def read_probability(text: str) -> float:
    """A number from 0 to 1, both included, or a ScenarioError."""
    try:
        value = float(text)
    except ValueError:
        raise ScenarioError(f"{text!r} is not a number") from None
    if not 0 <= value <= 1:
        raise ScenarioError(f"{text!r} is not a probability, from 0 to 1")
    return value


cached_option = click.option(
    "--cached",
    type=size(0),
    metavar="P",
    help="Tokens before the prompt that a prefix cache has, e.g. --prefill 1k --cached 8k.",
)
chunk_option = click.option(
    "--chunk", type=size(1), metavar="N", help="Prefill in passes of N tokens, e.g. --prefill 8k --chunk 1k."
)
draft_option = click.option(
    "--draft", type=size(1), metavar="K", help="Drafted tokens that a decode step checks, e.g. --decode 4k --draft 4."
)
acceptance_option = click.option(
    "--acceptance",
    type=Read("probability", read_probability),
    metavar="A",
    help="Probability that a drafted token is accepted, e.g. --draft 4 --acceptance 0.8.",
)
engine_options = (
    cached_option,
    chunk_option,
    draft_option,
    acceptance_option,
    click.option(
        "--beside",
        type=Read("contexts", read_contexts),
        metavar="LIST",
        help="Sequences that decode in the pass of the prefill, e.g. --prefill 512 --beside 31x4096,100.",
    ),
)


def engine_stages(
    prompt: int | None,
    context: int | None,
    steps: int | None,
    sizes: Kwargs,
    *,
    cached: int | None,
    chunk: int | None,
    draft: int | None,
    acceptance: float | None,
    beside: tuple[tuple[int, int], ...] | None,
) -> tuple[Scenario | MixedStep, ...]:
    """A prefill and a decode step, or the one that both are, as these options have them. ``sizes`` has the batch.

    Raises ScenarioError where options do not go together.
    """
    of_prefill = {"--cached": cached, "--chunk": chunk, "--beside": beside}
    for flag, value in of_prefill.items():
        if value is not None and prompt is None:
            raise ScenarioError(f"{flag} is for a prefill; give --prefill too")
    if draft is not None and (context is None or steps is not None):
        raise ScenarioError("--draft is for one decode step; give --decode too, and leave --steps out")
    if acceptance is not None and draft is None:
        raise ScenarioError("--acceptance is of drafted tokens; give --draft too")
    stages: tuple[Scenario | MixedStep, ...] = ()
    if prompt is not None:
        first = prefill(prompt, past_len=cached or 0, chunk=chunk, **sizes)
        decodes = [decode(length, batch=count) for count, length in beside or ()]
        stages = (mixed(decodes, first) if decodes else first,)
    if context is not None and draft is not None:
        return (*stages, decode(context, query_len=draft + 1, acceptance=acceptance, **sizes))
    return stages if context is None else (*stages, generation(context, steps=steps or 1, **sizes))
