"""Kinds of values on the command line, each refused with what it should have been."""

from __future__ import annotations

import re
from typing import Any

import click

from fxmeter.models.sizes import LARGEST_SIZE


class Size(click.ParamType):
    """A whole number of at least ``least``; "4k" and "1M" are 4·1024 and 1024·1024."""

    name = "integer"

    def __init__(self, least: int) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number, or a usage error that says what is accepted."""
        text = str(value).strip().replace("_", "")
        factor = {"k": 2**10, "K": 2**10, "m": 2**20, "M": 2**20}.get(text[-1:], 1)
        try:
            number = int(text[:-1] if factor > 1 else text) * factor
        except ValueError:
            self.fail(f"{value!r} is not a whole number", param, ctx)
        if number < self.least:
            self.fail(f"{number} is too small: at least {self.least}", param, ctx)
        if number > LARGEST_SIZE:
            self.fail(f"{number} is too large: at most {LARGEST_SIZE:,}", param, ctx)
        return number


class Pair(click.ParamType):
    """Two whole numbers with an x between them, such as 1x2 crops or a page of 1280x640 pixels."""

    name = "pair"

    def __init__(self, example: str) -> None:
        self.example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Both numbers, or a usage error that shows an example."""
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d+)[xX×](\d+)", str(value).strip())
        if found is None:
            self.fail(f"{value!r} is not of the form {self.example}", param, ctx)
        first, second = int(found[1]), int(found[2])
        if max(first, second) > LARGEST_SIZE:
            self.fail(f"{value!r} is too large: at most {LARGEST_SIZE:,}", param, ctx)
        return first, second
