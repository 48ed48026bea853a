"""What a sweep varies: lists and ranges of sizes, grids of crops, and the points they span."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from fxmeter.annotators.units import MOST_VALUES, distinct, items_of, read_pair
from fxmeter.models import scenario as make
from fxmeter.models.choices import StageName
from fxmeter.models.errors import ScenarioError
from fxmeter.models.page import CropGrid, page_context, page_tokens
from fxmeter.models.scenario import Scenario, VisionScenario
from fxmeter.models.sizes import LARGEST_SIZE, grid_of_crops, whole_number

MOST_POINTS = MOST_VALUES
"""More points than this are taken for a slip: their JSON would have hundreds of thousands of costs."""


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """One request: a page or a prompt to prefill, tokens to decode after it, or both; None where a stage is left out.

    ``decode`` tokens are cached before the first of ``steps`` new ones. With ``crops``, prefill is the page's context.
    ``encoder_len`` are the positions that the encoder of an encoder-decoder model runs on before a prompt; the prompt
    is processed in chunks of ``chunk`` tokens, None for all at once.
    """

    batch: int
    crops: CropGrid | None
    prefill: int | None
    decode: int | None
    steps: int
    encoder_len: int | None = None
    chunk: int | None = None

    @property
    def image_tokens(self) -> int | None:
        """Tokens that the page becomes; None without one."""
        return None if self.crops is None else page_tokens(self.crops)

    @property
    def stages(self) -> tuple[StageName, ...]:
        """What is done for the request, in this order."""
        encoded = None if self.prefill is None else self.encoder_len
        present = {"vision": self.crops, "encode": encoded, "prefill": self.prefill, "decode": self.decode}
        return tuple(stage for stage in get_args(StageName) if present[stage] is not None)

    def scenario(self, stage: StageName) -> Scenario | VisionScenario:
        """The pass, or the generation, that one of its stages is."""
        if stage == "vision":
            return make.vision(crops=self.crops or (0, 0), batch=self.batch)
        if stage == "encode":
            return make.encode(self.encoder_len or 0, batch=self.batch)
        if stage == "prefill":
            length = self.encoder_len
            return make.prefill(self.prefill or 0, batch=self.batch, encoder_len=length, chunk=self.chunk)
        return make.generation(self.decode or 0, steps=self.steps, batch=self.batch, encoder_len=self.encoder_len)

    @property
    def tokens(self) -> int:
        """The longest context that the request reaches."""
        return max(self.prefill or 0, 0 if self.decode is None else self.decode + self.steps)

    def __str__(self) -> str:
        parts = [] if self.crops is None else [f"crops {self.crops[0]}x{self.crops[1]}"]
        parts += [] if self.prefill is None else [f"prefill {self.prefill}"]
        parts += [] if self.decode is None else [f"decode {self.decode}"]
        return ", ".join([f"batch {self.batch}", *parts, f"steps {self.steps}"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """The values along every axis. A sweep goes through all their combinations.

    ``crops`` (pages) stands alone: a page has its own context. ``prefill`` alone is a prompt with decode after it,
    ``decode`` alone is decode after so many tokens, both together are every pair. ``encoder_len`` is one length for
    all, of an encoder-decoder model, and ``chunk`` the tokens of a pass of every prompt.
    """

    batch: tuple[int, ...] = (1,)
    crops: tuple[CropGrid, ...] = ()
    prefill: tuple[int, ...] = ()
    decode: tuple[int, ...] = ()
    steps: tuple[int, ...] = (1,)
    encoder_len: int | None = None
    chunk: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("batch", 1), ("prefill", 1), ("decode", 0), ("steps", 1)):
            values = tuple(whole_number(name, value, least) for value in getattr(self, name))
            object.__setattr__(self, name, distinct(name, values, str))
        for name in ("encoder_len", "chunk"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, whole_number(name, getattr(self, name), 1))
        grids = tuple(grid_of_crops(grid) for grid in self.crops)
        object.__setattr__(self, "crops", distinct("crops", grids, _grid))
        if self.crops and (self.prefill or self.decode):
            raise ScenarioError("a page has its own context; leave prefill and decode out, or crops")
        if self.chunk is not None and not (self.prefill or self.crops):
            raise ScenarioError("chunk is of prompts; give prefill or crops")
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
            SweepPoint(batch=batch, steps=steps, encoder_len=self.encoder_len, chunk=self.chunk, **context)  # type: ignore[arg-type]
            for steps, batch, context in itertools.product(self.steps, self.batch, self._contexts())
        )

    @property
    def stages(self) -> tuple[StageName, ...]:
        """The stages that every point has."""
        return self.points()[0].stages

    def _contexts(self) -> list[dict[str, object]]:
        if self.crops:
            lengths = [(grid, page_context(grid)) for grid in self.crops]
            return [{"crops": grid, "prefill": length, "decode": length} for grid, length in lengths]
        if not self.decode:
            return [{"crops": None, "prefill": length, "decode": length} for length in self.prefill]
        prompts: Sequence[int | None] = self.prefill or [None]
        return [{"crops": None, "prefill": p, "decode": d} for p, d in itertools.product(prompts, self.decode)]


def read_grids(text: str) -> tuple[CropGrid, ...]:
    """ "1x2,3x3", "0x0" for a page without crops, or "1x1:20x20": every grid of rows and columns in between."""
    return items_of(text, _grids, _grid)


def _grids(item: str) -> Iterator[CropGrid]:
    ends = [grid_of_crops(read_pair(end, "1x2")) for end in item.split(":")]
    if len(ends) == 1:
        return iter(ends)
    if len(ends) > 2:
        raise ScenarioError(f"{item!r} is not a grid such as 1x2, or a range such as 1x1:20x20")
    (h, w), (last_h, last_w) = ends
    if h > last_h or w > last_w:
        raise ScenarioError(f"{item!r} runs backwards; write the smaller end first")
    if h == 0:
        raise ScenarioError(f"{item!r} begins at no crops; write 0x0 as an item of its own")
    return itertools.product(range(h, last_h + 1), range(w, last_w + 1))


def _grid(grid: CropGrid) -> str:
    return f"{grid[0]}x{grid[1]}"
