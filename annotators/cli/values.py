"""What options are made of: types of values, choices, several options as one argument."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any, Generic, TypeVar, get_args

import click

from fxmeter.annotators.units import read_pair, read_size, read_sizes
from fxmeter.models.errors import DeploymentError, ScenarioError

Command = Callable[..., Any]


Decorator = Callable[[Command], Command]


Value = TypeVar("Value")


class Read(click.ParamType, Generic[Value]):
    """What ``read`` makes of a text; where it raises a ScenarioError, a usage error with its message."""

    def __init__(self, name: str, read: Callable[[str], Value]) -> None:
        self.name, self.read = name, read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Value:
        """The value of the text."""
        try:
            return self.read(str(value))
        except ScenarioError as error:
            self.fail(str(error), param, ctx)


def size(least: int) -> Read[int]:
    """A whole number of at least ``least``; "4k" and "1M" are 4·1024 and 1024·1024."""
    return Read("integer", functools.partial(read_size, least=least))


def sizes(least: int) -> Read[tuple[int, ...]]:
    """Whole numbers: a list "1,2,4", a range "512:65536:512", a geometric one "1k:128k:*2"."""
    return Read("sizes", functools.partial(read_sizes, least=least))


def pair(example: str) -> Read[tuple[int, int]]:
    """Two whole numbers with an x between them, such as 1x2 crops or a page of 1280x640 pixels."""
    return Read("pair", functools.partial(read_pair, example=example))


def gathered(name: str, make: Callable[..., object], *options: Decorator) -> Decorator:
    """The values of several options as one argument ``name`` of the command, ``make(**values)``.

    What ``make`` refuses is a usage error: the values do not go together.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_gathered(**given: Any) -> Any:
            values = {option: given.pop(option) for option in names if option in given}  # but for what one inside made
            try:
                gathered = make(**values)
            except (ScenarioError, DeploymentError) as error:
                raise click.UsageError(str(error), click.get_current_context()) from None
            return command(**given, **{name: gathered})

        declared_before = len(getattr(command, "__click_params__", ()))
        decorated: Command = with_gathered
        for option in reversed(options):
            decorated = option(decorated)
        names = [parameter.name for parameter in decorated.__click_params__[declared_before:]]  # type: ignore[attr-defined]
        return decorated

    return decorate


def each_once(command: click.Command) -> click.Command:
    """``command``, which refuses an option of one value that is given several: click would keep the last."""
    make = command.make_parser

    def make_parser(context: click.Context) -> Any:
        parser: Any = make(context)
        parse = parser.parse_args

        def parse_args(args: list[str]) -> tuple[dict[str, Any], list[str], list[click.Parameter]]:
            found: tuple[dict[str, Any], list[str], list[click.Parameter]] = parse(args=args)
            for option, times in Counter(found[2]).items():
                if times > 1 and isinstance(option, click.Option) and not (option.is_flag or option.multiple):
                    flag = option.opts[-1]
                    raise click.UsageError(f"{flag} is given {times} times, and takes one value: give it once", context)
            return found

        parser.parse_args = parse_args
        return parser

    command.make_parser = make_parser  # type: ignore[method-assign, assignment]
    return command


def choice(flag: str, words: Any, help: str, **more: Any) -> Decorator:
    """One of the words of a ``Literal``."""
    return click.option(flag, type=click.Choice(get_args(words)), help=help, **more)
