"""Evaluating closed forms at many points at once, exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fxmeter.annotators.shapes.pieces import Piece, Pieces
from fxmeter.annotators.symbolic.values import SAFE, Values
from fxmeter.models.errors import ScenarioError
from fxmeter.models.figures import counted_behind
from fxmeter.models.sizes import LARGEST_SIZE
from fxmeter.models.stage_cost import DERIVED, FIGURES, StageCost


class Grid:
    """Points at which forms are evaluated."""

    def __init__(self, sizes: Sequence[Any], pieces: Pieces) -> None:
        self._pieces = pieces
        least = (1, 0, 0) if pieces.stage == "vision" else (1, 1, 0)
        names = ("batch", "rows", "columns") if pieces.stage == "vision" else ("batch", "query_len", "past_len")
        self._sizes = [whole(*facts) for facts in zip(names, sizes, least, strict=True)]
        self._shape = broadcast(dict(zip(names, self._sizes, strict=True)))
        if pieces.stage == "vision" and bool(np.any((self._sizes[1] == 0) != (self._sizes[2] == 0))):
            raise ScenarioError("a grid of crops needs rows and columns, or 0, 0 for none")

    def evaluate(self, path: str, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Every field at every point."""
        needed = named(fields)
        if not math.prod(self._shape):
            exact = {name: np.zeros(self._shape, dtype=np.int64) for name in needed}
            return figures(exact, fields)
        return figures(self._fields(path, needed), fields)

    def _fields(self, path: str, needed: Sequence[str]) -> dict[str, np.ndarray]:
        """The piece of the last point, which is often the largest, everywhere; then what it is not right for."""
        piece = self._pieces.piece(self._point(-1))
        flat = [np.broadcast_to(size, self._shape).ravel() for size in self._sizes]
        left = np.arange(len(flat[0]))
        found: dict[str, list[tuple[Any, Any]]] = {name: [] for name in needed}
        if piece is not None:
            values, cost = Values(self._sizes), piece.modules[path].cost
            for name in needed:
                array = np.broadcast_to(values.of(getattr(cost, name)), self._shape)
                found[name].append((slice(None), array))
            left = np.flatnonzero(~np.broadcast_to(_inside(piece, values), self._shape))
        if not len(left):
            return {name: array for name, [(_, array)] in found.items()}
        while len(left):
            point = self._point(int(left[0]))
            piece = self._pieces.piece(point)
            if piece is None:
                here = left[:1]
                stage = self._pieces.annotate(point)
                for name in needed:
                    cost = stage.modules[path].cost
                    found[name].append((here, np.array([getattr(cost, name)], dtype=object)))
            else:
                inside = np.broadcast_to(_inside(piece, Values([size[left] for size in flat])), left.shape)
                here = left[inside]
                values, cost = Values([size[here] for size in flat]), piece.modules[path].cost
                for name in needed:
                    found[name].append((here, np.broadcast_to(values.of(getattr(cost, name)), here.shape)))
                left = left[~inside]
                continue
            left = left[1:]
        return {name: _together(parts, self._shape) for name, parts in found.items()}

    def _point(self, index: int) -> Any:
        place = np.unravel_index(index % math.prod(self._shape), self._shape)
        return tuple(int(np.broadcast_to(size, self._shape)[place]) for size in self._sizes)


def _inside(piece: Piece, values: Values) -> Any:
    """Where a piece is right, as far as the sizes have to be broadcast to tell."""
    inside = piece.region.contains(*values.sizes)
    for condition in piece.conditions:
        inside = inside & values.holds(condition).astype(bool)
    return inside


def _together(parts: list[tuple[Any, Any]], shape: tuple[int, ...]) -> np.ndarray:
    """One array: later parts go over earlier ones. Of int64 where every part is, or can be."""
    exact = all(array.dtype != object or all(abs(int(v)) < SAFE for v in array.flat) for _, array in parts)
    out = np.empty(math.prod(shape), dtype=np.int64 if exact else object)
    for places, array in parts:
        out[places] = array.reshape(-1).astype(out.dtype)
    return out.reshape(shape)


def named(fields: Sequence[str]) -> list[str]:
    """The exact fields behind ``fields``, which may be derived."""
    unknown = [name for name in fields if name not in FIGURES]
    if unknown:
        raise ScenarioError(f"no field {unknown[0]!r} in a StageCost; there are {', '.join(FIGURES)}")
    return counted_behind(FIGURES, fields)


def figures(exact: Mapping[str, np.ndarray], fields: Sequence[str]) -> dict[str, np.ndarray]:
    """The fields asked for, derived ones computed by StageCost itself, on arrays that cannot overflow."""
    safe = exact
    bound = sum(abs(int(a.max())) for a in exact.values() if a.size)
    if bound >= SAFE and any(field in DERIVED for field in fields):
        safe = {name: array.astype(object) for name, array in exact.items()}
    cost = StageCost(**safe)
    return {field: exact[field] if field in exact else getattr(cost, field) for field in fields}


def broadcast(sizes: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    """The shape that named sizes broadcast to."""
    try:
        return np.broadcast_shapes(*(size.shape for size in sizes.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {size.shape}" for name, size in sizes.items())
        raise ScenarioError(f"sizes do not broadcast together: {shapes}") from None


def whole(name: str, value: Any, least: int) -> np.ndarray:
    """``value`` as an int64 array within the limits of a scenario."""
    array = np.asarray(value)
    if array.size and array.dtype.kind not in "iu":
        raise ScenarioError(f"{name} must be whole numbers, not {array.dtype}")
    if array.size and (array.min() < least or array.max() > LARGEST_SIZE):
        raise ScenarioError(f"{name} must be from {least} to {LARGEST_SIZE:,}, not {array.min()} to {array.max()}")
    return array.astype(np.int64)
