"""What a sweep varies: lists and ranges of sizes, grids of crops, and the points they span."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fxmeter.models.errors import ScenarioError
from fxmeter.models.page import CropGrid, page_context, page_tokens
from fxmeter.models.sizes import LARGEST_SIZE, grid_of_crops, whole_number

MOST_POINTS = 10_000
"""More points than this are taken for a slip: their JSON would have hundreds of thousands of costs."""

_Value = TypeVar("_Value", int, CropGrid)


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """One request: a page or a prompt to prefill, tokens to decode after it, or both; None where a stage is left out.

    ``decode`` tokens are cached before the first of ``steps`` new ones. With ``crops``, prefill is the page's context.
    """

    batch: int
    crops: CropGrid | None
    prefill: int | None
    decode: int | None
    steps: int

    @property
    def image_tokens(self) -> int | None:
        """Tokens that the page becomes; None without one."""
        return None if self.crops is None else page_tokens(self.crops)

    def __str__(self) -> str:
        parts = [] if self.crops is None else [f"crops {self.crops[0]}x{self.crops[1]}"]
        parts += [] if self.prefill is None else [f"prefill {self.prefill}"]
        parts += [] if self.decode is None else [f"decode {self.decode}"]
        return ", ".join([f"batch {self.batch}", *parts, f"steps {self.steps}"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """The values along every axis. A sweep goes through all their combinations.

    ``crops`` (pages) stands alone: a page has its own context. ``prefill`` alone is a prompt with decode after it,
    ``decode`` alone is decode after so many tokens, both together are every pair.
    """

    batch: tuple[int, ...] = (1,)
    crops: tuple[CropGrid, ...] = ()
    prefill: tuple[int, ...] = ()
    decode: tuple[int, ...] = ()
    steps: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        for name, least in (("batch", 1), ("prefill", 1), ("decode", 0), ("steps", 1)):
            values = tuple(whole_number(name, value, least) for value in getattr(self, name))
            object.__setattr__(self, name, distinct(name, values, str))
        grids = tuple(grid_of_crops(grid) for grid in self.crops)
        object.__setattr__(self, "crops", distinct("crops", grids, _grid))
        if self.crops and (self.prefill or self.decode):
            raise ScenarioError("a page has its own context; leave prefill and decode out, or crops")
        if not (self.crops or self.prefill or self.decode):
            raise ScenarioError("nothing to go through: give crops, prefill or decode")
        longest = max((*self.prefill, *self.decode, *map(page_context, self.crops))) + max(self.steps, default=1)
        if longest > LARGEST_SIZE:
            raise ScenarioError(f"context and steps come to {longest:,}; the most accepted is {LARGEST_SIZE:,}")
        for name in ("batch", "steps"):
            if not getattr(self, name):
                raise ScenarioError(f"{name} has no values")
        if len(self) > MOST_POINTS:
            raise ScenarioError(f"{len(self):,} points are too many (at most {MOST_POINTS:,}); use larger steps")

    def __len__(self) -> int:
        count = 1
        for values in (self.batch, self.steps, self.crops or [None], self.prefill or [None], self.decode or [None]):
            count *= len(values)
        return count

    def points(self) -> tuple[SweepPoint, ...]:
        """Every combination; the context varies fastest, then the batch, then the steps."""
        return tuple(
            SweepPoint(batch=batch, steps=steps, **context)  # type: ignore[arg-type]
            for steps, batch, context in itertools.product(self.steps, self.batch, self._contexts())
        )

    def _contexts(self) -> list[dict[str, object]]:
        if self.crops:
            lengths = [(grid, page_context(grid)) for grid in self.crops]
            return [{"crops": grid, "prefill": length, "decode": length} for grid, length in lengths]
        if not self.decode:
            return [{"crops": None, "prefill": length, "decode": length} for length in self.prefill]
        prompts: Sequence[int | None] = self.prefill or [None]
        return [{"crops": None, "prefill": p, "decode": d} for p, d in itertools.product(prompts, self.decode)]


def parse_sizes(name: str, text: str, least: int) -> tuple[int, ...]:
    """ "1,2,4", "512:65536:512" (both ends, every 512), "1k:128k:*2" (each twice the last), or a mix with commas."""
    return _parsed(name, text, lambda item: _sizes(name, item, least), str)


def parse_grids(name: str, text: str) -> tuple[CropGrid, ...]:
    """ "1x2,3x3", "0x0" for a page without crops, or "1x1:20x20": every grid of rows and columns in between."""
    return _parsed(name, text, lambda item: _grids(name, item), _grid)


def _parsed(
    name: str, text: str, parse: Callable[[str], Iterator[_Value]], show: Callable[[_Value], str]
) -> tuple[_Value, ...]:
    found: list[_Value] = []
    for item in text.split(","):
        if not item.strip():
            raise ScenarioError(f"{name}: an empty item in {text!r}")
        found += itertools.islice(parse(item.strip()), MOST_POINTS + 1)
        if len(found) > MOST_POINTS:
            raise ScenarioError(f"{name}: {text!r} has more than {MOST_POINTS:,} values; use a larger step")
    return distinct(name, tuple(found), show)


def distinct(name: str, values: tuple[_Value, ...], show: Callable[[_Value], str]) -> tuple[_Value, ...]:
    """The values themselves; a ScenarioError names one that comes twice."""
    seen: set[_Value] = set()
    for value in values:
        if value in seen:
            raise ScenarioError(f"{name}: {show(value)} comes twice")
        seen.add(value)
    return values


def _sizes(name: str, item: str, least: int) -> Iterator[int]:
    parts = item.split(":")
    if len(parts) == 1:
        return iter([_size(name, item, least)])
    if len(parts) > 3:
        raise ScenarioError(f"{name}: {item!r} is not FIRST:LAST or FIRST:LAST:STEP")
    first, last = _size(name, parts[0], least), _size(name, parts[1], least)
    if first > last:
        raise ScenarioError(f"{name}: {item!r} runs backwards; write the smaller end first")
    if len(parts) == 2:
        return iter(range(first, last + 1))
    if not parts[2].startswith("*"):
        return iter(range(first, last + 1, _size(name, parts[2], 1, what="a step")))
    factor = _size(name, parts[2][1:], 2, what="a factor")
    if first == 0:
        raise ScenarioError(f"{name}: {item!r} never leaves 0; begin at 1")
    return _geometric(first, last, factor)


def _geometric(first: int, last: int, factor: int) -> Iterator[int]:
    while first <= last:
        yield first
        first *= factor


def _grids(name: str, item: str) -> Iterator[CropGrid]:
    ends = [_pair(name, end) for end in item.split(":")]
    if len(ends) == 1:
        return iter(ends)
    if len(ends) > 2:
        raise ScenarioError(f"{name}: {item!r} is not a grid such as 1x2, or a range such as 1x1:20x20")
    (h, w), (last_h, last_w) = ends
    if h > last_h or w > last_w:
        raise ScenarioError(f"{name}: {item!r} runs backwards; write the smaller end first")
    if h == 0:
        raise ScenarioError(f"{name}: {item!r} begins at no crops; write 0x0 as an item of its own")
    return itertools.product(range(h, last_h + 1), range(w, last_w + 1))


def _size(name: str, text: str, least: int, *, what: str = "a size") -> int:
    """A whole number; "4k" and "1M" are 4·1024 and 1024·1024."""
    found = re.fullmatch(r"(-?\d+)([kKmM]?)", text.strip().replace("_", ""))
    if found is None:
        raise ScenarioError(f"{name}: {text.strip()!r} is not {what}, a whole number")
    number = int(found[1]) * {"": 1, "k": 2**10, "m": 2**20}[found[2].lower()]
    if not least <= number <= LARGEST_SIZE:
        raise ScenarioError(f"{name}: {what} must be from {least} to {LARGEST_SIZE:,}, not {number}")
    return number


def _pair(name: str, text: str) -> CropGrid:
    found = re.fullmatch(r"(\d+)[xX×](\d+)", text.strip())
    if found is None:
        raise ScenarioError(f"{name}: {text.strip()!r} is not a grid such as 1x2")
    return grid_of_crops((int(found[1]), int(found[2])))


def _grid(grid: CropGrid) -> str:
    return f"{grid[0]}x{grid[1]}"
