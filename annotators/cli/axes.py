"""Options for many sizes at once, and the models behind them, shared by ``sweep`` and ``capacity``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from fxmeter.annotators.studies.axes import Axes, parse_grids, parse_sizes
from fxmeter.models.errors import ScenarioError

if TYPE_CHECKING:
    from fxmeter.annotators.studies.sweep import Forms


class Sizes(click.ParamType):
    """Whole numbers: a list "1,2,4", a range "512:65536:512", a geometric one "1k:128k:*2"."""

    name = "sizes"

    def __init__(self, axis: str, least: int) -> None:
        self.axis, self.least = axis, least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The numbers, or a usage error that says what is accepted."""
        try:
            return value if isinstance(value, tuple) else parse_sizes(self.axis, str(value), self.least)
        except ScenarioError as error:
            raise click.UsageError(str(error), ctx) from None


class Grids(click.ParamType):
    """Grids of crops: a list "1x2,3x3", or a range "1x1:20x20"."""

    name = "grids"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[int, int], ...]:
        """The (rows, columns), or a usage error that says what is accepted."""
        try:
            return value if isinstance(value, tuple) else parse_grids("--crops", str(value))
        except ScenarioError as error:
            raise click.UsageError(str(error), ctx) from None


_OPTIONS = (
    click.option(
        "--prefill", type=Sizes("--prefill", 1), metavar="LIST", help="Prompt lengths, e.g. --prefill 512:65536:512."
    ),
    click.option(
        "--decode", type=Sizes("--decode", 0), metavar="LIST", help="Cached tokens, e.g. --decode 1k:128k:*2."
    ),
    click.option(
        "--crops", type=Grids(), metavar="LIST", help="Pages by their grids, rows x columns, e.g. --crops 1x1:20x20."
    ),
    click.option(
        "--batch",
        type=Sizes("--batch", 1),
        default="1",
        metavar="LIST",
        show_default=True,
        help="Sequences, e.g. --batch 1,8,64.",
    ),
    click.option(
        "--steps",
        type=Sizes("--steps", 1),
        default="1",
        metavar="LIST",
        show_default=True,
        help="Tokens to decode, one at a time, e.g. --steps 100.",
    ),
)


def axis_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--prefill, --decode, --crops, --batch and --steps."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def axes_of(given: dict[str, Any]) -> Axes:
    """The axes that the options of a command give; a usage error where they do not go together."""
    try:
        return Axes(**{name: values for name, values in given.items() if values is not None})
    except ScenarioError as error:
        raise click.UsageError(str(error)) from None


def forms_of(model: str, axes: Axes, conventions: dict[str, Any]) -> Forms:
    """The closed forms of a model by its name, with its vision tower where the axes have pages."""
    from fxmeter.annotators.studies.sweep import Forms
    from fxmeter.tracer.load.loading import load_model
    from fxmeter.tracer.load.vision import load_vision

    dtype = conventions.pop("dtype")
    tower = load_vision(model, dtype=dtype) if axes.crops else None
    return Forms(load_model(model, dtype=dtype), tower=tower, **conventions)
