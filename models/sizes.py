"""What counts as a size: a whole number that somebody may have meant."""

from __future__ import annotations

import operator
from typing import Any, TypeAlias

from fxmeter.models.errors import ScenarioError

Size: TypeAlias = Any
"""A length, or a count of elements, bytes or FLOPs: an ``int``; or what computes like one, which a type checker has no
common name for: a polynomial in the sizes of a pass, a sympy expression, a numpy array. Of a mean, a ``float``."""

LARGEST_SIZE = 10**9
"""A batch or length above this is taken for a slip of the keyboard (10^9 tokens is 100 times any context sold)."""


GLOBAL_SIDE = 1024
"""Pixels along a side of the global view of a page (DeepSeek-OCR)."""

CROP_SIDE = 640
"""Pixels along a side of a crop."""


def whole_number(name: str, value: object, at_least: int) -> int:
    """``value`` as an int in [at_least, LARGEST_SIZE], or a ScenarioError that names it."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ScenarioError(f"{name} must be a whole number, not {value!r}") from None
    if number < at_least:
        raise ScenarioError(f"{name} must be at least {at_least}, not {number}")
    if number > LARGEST_SIZE:
        raise ScenarioError(f"{name} is {number}; the largest accepted is {LARGEST_SIZE:,}")
    return number


def grid_of_crops(crops: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of crops, (0, 0) for none, or a ScenarioError."""
    rows, columns = (whole_number(f"crop {name}", n, 0) for name, n in zip(("rows", "columns"), crops, strict=True))
    if (rows == 0) != (columns == 0):
        raise ScenarioError(f"a grid of crops must have rows and columns, or be (0, 0) for none, not {crops!r}")
    return rows, columns
