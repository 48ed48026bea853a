"""A piece: what a stage costs as polynomials, and where they are right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fxmeter.annotators.sheets.region import Point, SizeRegion
from fxmeter.annotators.sheets.tables import CacheLayer, ModuleCosts, PipelineStage, Uncosted
from fxmeter.annotators.symbolic import Guard, value_at
from fxmeter.annotators.symbolic.values import Values
from fxmeter.annotators.timing.kernel import Kernel
from fxmeter.models.stage_cost import FIELDS, Size, StageCost

Part: TypeAlias = str | int
"""A module, by its path ("" is the whole pass), or a pipeline stage, by its place."""


@dataclass(frozen=True, slots=True)
class UncostedOp:
    """Executions of an op that no rule knows; ``inputs`` has (dtype, sizes) of each tensor that it reads."""

    op: str
    count: int
    module: str
    inputs: tuple[tuple[str, tuple[Size, ...]], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Costs as polynomials, right wherever ``region`` and all ``guards`` hold.

    Attributes:
        ops: op → executions and their cost.
        uncosted: executions of ops that no rule knows.
        kv_cache: what the pass leaves in the cache, its sizes polynomials.
        kernels: what a device launches, of pieces that are for time.
        pipeline: the stages that a deployment deals the layers out to, their costs and what they send polynomials.
        recorded: why no polynomial gives the sizes at the one point that the piece is of; "" for any other piece.
    """

    region: SizeRegion
    guards: tuple[Guard, ...]
    modules: ModuleCosts
    ops: Mapping[str, tuple[int, StageCost]]
    floor_io_bytes: Size
    uncosted: tuple[UncostedOp, ...]
    kv_cache: tuple[CacheLayer, ...]
    kernels: tuple[Kernel, ...] = ()
    pipeline: tuple[PipelineStage, ...] = ()
    recorded: str = ""

    def cost_of(self, part: Part) -> StageCost:
        """What a part of the pass costs."""
        return self.modules[part].cost if isinstance(part, str) else self.pipeline[part].cost

    def holds(self, point: Point) -> bool:
        """Whether it is right at a point of its region."""
        return all(guard.holds(point) for guard in self.guards)

    def covers(self, values: Values) -> np.ndarray:
        """At which of many points it is right, as far as their sizes have to be broadcast to tell."""
        inside = np.asarray(self.region.contains(*values.sizes))
        for guard in self.guards:
            inside = inside & values.holds(guard)
        return inside

    @property
    def uncosted_executions(self) -> int:
        """How many executions no rule knows."""
        return sum(item.count for item in self.uncosted)

    def cache_at(self, point: Point) -> Iterator[CacheLayer]:
        """What the pass leaves in the cache at a point of it."""
        for layer in self.kv_cache:
            shapes = tuple(tuple(value_at(size, point) for size in shape) for shape in layer.shapes)
            yield CacheLayer(layer.layer, layer.kind, shapes, value_at(layer.bytes, point), layer.names)


def uncosted_at(items: Iterable[UncostedOp], point: Point) -> tuple[Uncosted, ...]:
    """Executions that no rule knows, by module and by their shapes at a point."""
    counts: dict[tuple[str, str, str], int] = {}
    for item in items:
        key = (item.op, item.module, ", ".join(_text(dtype, sizes, point) for dtype, sizes in item.inputs))
        counts[key] = counts.get(key, 0) + item.count
    return tuple(Uncosted(op, count, module, shapes) for (op, module, shapes), count in counts.items())


def cost_at(cost: StageCost, point: Point) -> StageCost:
    """A cost of polynomials at a point."""
    return StageCost(**{name: value_at(getattr(cost, name), point) for name in FIELDS})


def _text(dtype: str, sizes: tuple[Size, ...], point: Point) -> str:
    return f"{dtype}[{', '.join(str(value_at(size, point)) for size in sizes)}]"
