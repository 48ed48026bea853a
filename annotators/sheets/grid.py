"""Evaluating closed forms at many points at once, exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from fxmeter.annotators.sheets.piece import Part, Piece
from fxmeter.annotators.sheets.region import Point
from fxmeter.annotators.sheets.sheet import Sheet
from fxmeter.annotators.symbolic.values import SAFE, Values, bounded
from fxmeter.models.errors import ScenarioError
from fxmeter.models.figures import counted_behind
from fxmeter.models.sizes import LARGEST_SIZE
from fxmeter.models.stage_cost import DERIVED, FIGURES, StageCost

Covered: TypeAlias = tuple[np.ndarray, Piece, Values]
"""Places in the flat array, the piece that is right at all of them, and their sizes."""

BLOCK = 2**15
"""Points that are evaluated together: a dozen arrays of that length are what a core's second cache holds."""


class ExactArray:
    """One figure of many points, or of many generations: int64 as long as nothing can overflow."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._array = np.zeros(shape, dtype=np.int64)
        self._bound = 0

    def put(self, places: np.ndarray | slice | None, values: np.ndarray) -> None:
        """Have ``values`` at ``places`` of the flat array, all different ones; None: everywhere."""
        if places is None:
            self._widen(values)
            self._array[...] = values
        else:
            self._flat(values)[places] = values

    def add(self, places: np.ndarray, values: np.ndarray) -> None:
        """Add ``values`` at ``places``."""
        self._bound += bounded(values)[1]
        self._flat(values)[places] += values

    def grow(self, places: np.ndarray, values: np.ndarray) -> None:
        """Have at least ``values`` at ``places``."""
        array = self._flat(values)
        array[places] = np.maximum(array[places], values)

    def array(self) -> np.ndarray:
        """The figure, of Python integers where one is too large for int64."""
        array = self._array
        exact = array.dtype == object and all(abs(value) < SAFE for value in array.flat)
        return array.astype(np.int64) if exact else array

    def _flat(self, values: np.ndarray) -> np.ndarray:
        self._widen(values)
        return self._array.reshape(-1)

    def _widen(self, values: np.ndarray) -> None:
        if self._array.dtype != object and (values.dtype == object or self._bound >= SAFE):
            self._array = self._array.astype(object)


class SizeGrid:
    """Points at which a stage, or a module in it, is evaluated: three arrays of sizes that broadcast to ``shape``."""

    def __init__(self, sizes: Sequence[ArrayLike], sheet: Sheet) -> None:
        self._sheet = sheet
        vision = sheet.stage == "vision"
        least = (1, 0, 0) if vision else (1, 1, 0)
        names = ("batch", "rows", "columns") if vision else ("batch", "query_len", "past_len")
        self._sizes = [whole(*facts) for facts in zip(names, sizes, least, strict=True)]
        self.shape = broadcast(dict(zip(names, self._sizes, strict=True)))
        if vision and bool(np.any((self._sizes[1] == 0) != (self._sizes[2] == 0))):
            raise ScenarioError("a grid of crops needs rows and columns, or 0, 0 for none")

    def parts(self) -> Iterator[Covered]:
        """All points, those of a piece together."""
        flat = [np.broadcast_to(size, self.shape).ravel() for size in self._sizes]
        for piece, places in self._sheet.over(flat):
            yield places, piece, Values([size[places] for size in flat])

    def evaluate(self, part: Part, fields: Sequence[str]) -> dict[str, np.ndarray]:
        """Every field of a part of the pass at every point."""
        figures = {name: ExactArray(self.shape) for name in counted(fields)}
        for block, sizes in self._blocks():
            self._put_all(figures, part, block, sizes)
        return with_derived({name: figure.array() for name, figure in figures.items()}, fields)

    def _blocks(self) -> Iterator[tuple[slice | None, Sequence[np.ndarray]]]:
        """The points in parts that stay in a core's caches, where no size is the same along an axis; a grid, whose
        axes are evaluated once each, as it is (None)."""
        count = math.prod(self.shape)
        if count <= BLOCK or any(size.size not in (1, count) for size in self._sizes):
            if count:
                yield None, self._sizes
            return
        flat = [size.ravel() for size in self._sizes]
        for start in range(0, count, BLOCK):
            block = slice(start, start + BLOCK)
            yield block, [size if size.size == 1 else size[block] for size in flat]

    def _put_all(
        self, figures: Mapping[str, ExactArray], part: Part, block: slice | None, sizes: Sequence[np.ndarray]
    ) -> None:
        """A part's figures at the points of a block: with the piece of the last point, which is often the largest,
        everywhere, then with others where that one does not hold."""
        values, shape = Values(sizes), np.broadcast_shapes(*(size.shape for size in sizes))
        flat = [np.broadcast_to(size, shape).ravel() for size in sizes]
        piece = self._sheet.piece(_point(flat, -1))
        _put(figures, block, values, piece.cost_of(part))
        uncovered = np.flatnonzero(~np.broadcast_to(piece.covers(values), shape))
        for piece, inside in self._sheet.over([size[uncovered] for size in flat]):
            places = uncovered[inside]
            first = 0 if block is None else block.start
            _put(figures, places + first, Values([size[places] for size in flat]), piece.cost_of(part))


def _point(flat: Sequence[np.ndarray], place: int) -> Point:
    batch, x, y = (int(size[place]) for size in flat)
    return batch, x, y


def _put(figures: Mapping[str, ExactArray], places: np.ndarray | slice | None, values: Values, cost: StageCost) -> None:
    for name, figure in figures.items():
        figure.put(places, values.of(getattr(cost, name)))


def counted(fields: Sequence[str]) -> list[str]:
    """The counted figures behind ``fields``, which may be derived."""
    unknown = [name for name in fields if name not in FIGURES]
    if unknown:
        raise ScenarioError(f"no field {unknown[0]!r} in a StageCost; there are {', '.join(FIGURES)}")
    return counted_behind(FIGURES, fields)


def with_derived(arrays: Mapping[str, np.ndarray], fields: Sequence[str]) -> dict[str, np.ndarray]:
    """The fields asked for, derived ones computed by StageCost itself, on arrays that cannot overflow."""
    exact = sum(bounded(array)[1] for array in arrays.values()) < SAFE
    wide = exact or not any(field in DERIVED for field in fields)
    cost = StageCost(**(arrays if wide else {name: array.astype(object) for name, array in arrays.items()}))
    return {field: arrays[field] if field in arrays else getattr(cost, field) for field in fields}


def broadcast(sizes: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    """The shape that named sizes broadcast to."""
    try:
        return np.broadcast_shapes(*(size.shape for size in sizes.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {size.shape}" for name, size in sizes.items())
        raise ScenarioError(f"sizes do not broadcast together: {shapes}") from None


def whole(name: str, value: ArrayLike, least: int) -> np.ndarray:
    """``value`` as an int64 array within the limits of a scenario."""
    array = np.asarray(value)
    if array.size and array.dtype.kind not in "iu":
        raise ScenarioError(f"{name} must be whole numbers, not {array.dtype}")
    if array.size and (array.min() < least or array.max() > LARGEST_SIZE):
        raise ScenarioError(f"{name} must be from {least} to {LARGEST_SIZE:,}, not {array.min()} to {array.max()}")
    return array.astype(np.int64)
