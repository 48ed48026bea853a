"""Evaluating closed forms at many points at once, exactly.

Arrays are of int64 as long as a bound shows that nothing can overflow, and of Python integers from there on. Sizes stay
in the shapes they were given and broadcast at the end, so that a grid costs what its axes cost wherever it can.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from fxmeter.annotators.symbolic import VARIABLES, Condition, Floor, Maximum, Real, atom_of, powers, terms_of
from fxmeter.models.errors import ScenarioError
from fxmeter.models.figures import counted_behind
from fxmeter.models.sizes import LARGEST_SIZE
from fxmeter.models.stage_cost import DERIVED, FIGURES, StageCost

if TYPE_CHECKING:
    from fxmeter.annotators.closed.form import ClosedForm, ModuleForm

SAFE = 2**62
"""Magnitudes below this are computed in int64."""


class Values:
    """Polynomials at arrays of points. ``sizes`` are int64 arrays that broadcast together."""

    def __init__(self, sizes: Sequence[np.ndarray]) -> None:
        self.sizes = [np.asarray(size) for size in sizes]
        self._parts: dict[int, tuple[np.ndarray, int]] = {}
        self._monomials: dict[int, tuple[Any, int]] = {0: (np.int64(1), 1)}

    def of(self, value: Any) -> Any:
        """A polynomial's values, int64 or Python integers; of a constant, a scalar."""
        terms = terms_of(value)
        denominator = math.lcm(*(v.denominator for v in terms.values() if isinstance(v, Fraction)), 1)
        parts = [(int(v * denominator), *self._monomial(key)) for key, v in terms.items()]
        if sum(abs(factor) * bound for factor, _, bound in parts) < SAFE:
            total: Any = np.int64(0)
            for factor, array, _ in parts:
                total = total + (factor if array.ndim == 0 and array == 1 else array * np.int64(factor))
        else:
            total = 0
            for factor, array, _ in parts:
                total = total + np.asarray(array).astype(object) * factor
        return np.asarray(total if denominator == 1 else total // denominator)

    def holds(self, condition: Condition) -> Any:
        """Where a condition does."""
        number = self.of(condition.value)
        return number >= 0 if condition.relation == ">=" else (number == 0) == (condition.relation == "==")

    def _monomial(self, key: int) -> tuple[Any, int]:
        if key not in self._monomials:
            array: Any = np.int64(1)
            bound = 1
            for index, exponent in powers(key):
                part, most = self._part(index)
                for _ in range(exponent):
                    bound *= max(1, most)
                    exact = bound < SAFE
                    array = array * part if exact else np.asarray(array).astype(object) * part.astype(object)
            self._monomials[key] = np.asarray(array), bound
        return self._monomials[key]

    def _part(self, index: int) -> tuple[np.ndarray, int]:
        if index not in self._parts:
            array = self.sizes[index] if index < VARIABLES else self._atom(index)
            most = max(abs(int(array.max())), abs(int(array.min()))) if array.size else 0
            self._parts[index] = array, most
        return self._parts[index]

    def _atom(self, index: int) -> np.ndarray:
        made = atom_of(index)
        if isinstance(made, Floor):
            return np.asarray(self.of(made.dividend) // self.of(made.divisor))
        if isinstance(made, Maximum):
            return np.asarray(functools.reduce(np.maximum, [self.of(value) for value in made.values]))
        rounded = np.rint(np.asarray(self._real(made.real), dtype=np.float64))
        if rounded.size and abs(rounded).max() >= float(SAFE):
            return np.asarray(np.frompyfunc(int, 1, 1)(rounded), dtype=object)
        return rounded.astype(np.int64)

    def _real(self, value: Any) -> Any:
        """Floats as Python computes them; a power, which numpy may round otherwise, by Python itself."""
        if isinstance(value, Real):
            left, right = self._real(value.left), self._real(value.right)
            return _power(left, right) if value.op == "**" else _ARITHMETIC[value.op](left, right)
        if isinstance(value, float):
            return value
        numbers = self.of(value)
        return numbers.astype(np.float64) if isinstance(numbers, np.ndarray) else float(numbers)


def _power(base: Any, exponents: Any) -> Any:
    """``base`` ** each, once for every different exponent."""
    different, places = np.unique(np.asarray(exponents), return_inverse=True)
    results = np.array([float(base) ** int(exponent) for exponent in different], dtype=np.float64)
    return results[places].reshape(np.shape(exponents))


_ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
}


class Grid:
    """Points at which forms are evaluated."""

    def __init__(self, sizes: Sequence[Any], form: ClosedForm) -> None:
        self._form = form
        least = (1, 0, 0) if form.stage == "vision" else (1, 1, 0)
        names = ("batch", "rows", "columns") if form.stage == "vision" else ("batch", "query_len", "past_len")
        self._sizes = [whole(*facts) for facts in zip(names, sizes, least, strict=True)]
        self._shape = broadcast(dict(zip(names, self._sizes, strict=True)))
        if form.stage == "vision" and bool(np.any((self._sizes[1] == 0) != (self._sizes[2] == 0))):
            raise ScenarioError("a grid of crops needs rows and columns, or 0, 0 for none")

    def evaluate(self, module: ModuleForm, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Every field at every point."""
        needed = named(fields)
        if not math.prod(self._shape):
            exact = {name: np.zeros(self._shape, dtype=np.int64) for name in needed}
            return figures(exact, fields)
        return figures(self._fields(module, needed), fields)

    def _fields(self, module: ModuleForm, needed: Sequence[str]) -> dict[str, np.ndarray]:
        """The piece of the last point, which is often the largest, everywhere; then what it is not right for."""
        piece = self._form.piece(self._point(-1))
        flat = [np.broadcast_to(size, self._shape).ravel() for size in self._sizes]
        left = np.arange(len(flat[0]))
        found: dict[str, list[tuple[Any, Any]]] = {name: [] for name in needed}
        if piece is not None:
            values, cost = Values(self._sizes), module.of(piece)
            for name in needed:
                array = np.broadcast_to(values.of(getattr(cost, name)), self._shape)
                found[name].append((slice(None), array))
            left = np.flatnonzero(~np.broadcast_to(_inside(piece, values), self._shape))
        if not len(left):
            return {name: array for name, [(_, array)] in found.items()}
        while len(left):
            point = self._point(int(left[0]))
            piece = self._form.piece(point)
            if piece is None:
                here = left[:1]
                stage = self._form.annotate(point)
                for name in needed:
                    cost = stage.modules[module.path].cost
                    found[name].append((here, np.array([getattr(cost, name)], dtype=object)))
            else:
                inside = np.broadcast_to(_inside(piece, Values([size[left] for size in flat])), left.shape)
                here = left[inside]
                values, cost = Values([size[here] for size in flat]), module.of(piece)
                for name in needed:
                    found[name].append((here, np.broadcast_to(values.of(getattr(cost, name)), here.shape)))
                left = left[~inside]
                continue
            left = left[1:]
        return {name: _together(parts, self._shape) for name, parts in found.items()}

    def _point(self, index: int) -> Any:
        place = np.unravel_index(index % math.prod(self._shape), self._shape)
        return tuple(int(np.broadcast_to(size, self._shape)[place]) for size in self._sizes)


def _inside(piece: Any, values: Values) -> Any:
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
