"""Which polynomials give the costs of a stage, and where.

    a few recordings ─▶ sizes as polynomials (regions) ─▶ the same rules ─▶ every cost a polynomial
                                                             │
                                                             └─ comparisons (a window, a peak) become guards

:class:`Pieces` finds regions and guards when a point first asks for them and keeps what it found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Literal

import networkx as nx
import numpy as np
from torch import nn

from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.pricing.price import price
from fxmeter.annotators.shapes.region import Point, SizeRegion
from fxmeter.annotators.shapes.regions import Regions, config_lengths
from fxmeter.annotators.stages.one_pass import annotate_pass, record_pass
from fxmeter.annotators.stages.rollup import AnnotatedStage, ModuleCosts, totals_of
from fxmeter.annotators.symbolic import Guard, Guards, NotPolynomial
from fxmeter.annotators.symbolic.values import Values
from fxmeter.annotators.timing.kernels import Kernel, kernels_of
from fxmeter.models.deployment import ONE_DEVICE, Deployment
from fxmeter.models.errors import DeploymentError, ScenarioError, TraceError
from fxmeter.models.scenario import Scenario, VisionScenario
from fxmeter.models.stage_cost import Size, StageCost
from fxmeter.tracer.capture.recording import Recording
from fxmeter.tracer.run.attention import Attention
from fxmeter.tracer.run.twin import on_meta

FARTHEST = 2**20 + 7
"""The longest length recorded to check that a region has no end: beyond every context that is served today, and no
round number, since code that works in blocks is the same at all of them."""
MOST_CROPS = 1000
"""The same of rows and columns of crops."""
FormStage = Literal["prefill", "decode", "vision"]


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Costs as polynomials, right wherever ``region`` and all ``guards`` hold.

    ``ops`` is op → executions and their cost; ``uncosted`` counts executions of ops that no rule knows. ``kernels`` are
    what a device launches, of pieces that are for time. ``graph`` has the ops one by one.
    """

    region: SizeRegion
    guards: tuple[Guard, ...]
    modules: ModuleCosts
    ops: Mapping[str, tuple[int, StageCost]]
    floor_io_bytes: Size
    uncosted: int
    kernels: tuple[Kernel, ...] = ()
    graph: nx.DiGraph = field(default_factory=nx.DiGraph, repr=False)

    def holds(self, point: Point) -> bool:
        """Whether it is right at a point of its region."""
        return all(guard.holds(point) for guard in self.guards)

    def covers(self, values: Values) -> np.ndarray:
        """At which of many points it is right, as far as their sizes have to be broadcast to tell."""
        inside = np.asarray(self.region.contains(*values.sizes))
        for guard in self.guards:
            inside = inside & values.holds(guard)
        return inside


class Pieces:
    """The pieces of one stage of a model. ``reason`` is None, or why some points had to be recorded after all."""

    def __init__(
        self,
        model: nn.Module,
        stage: FormStage,
        attention: Attention,
        conventions: Conventions,
        deployment: Deployment = ONE_DEVICE,
        encoder_len: int | None = None,
    ) -> None:
        self.encoder_len = encoder_len
        self.stage, self.attention, self.deployment = stage, attention, deployment
        self.conventions = conventions.under(deployment, stage)
        self.reason: str | None = None
        self._name = type(model).__name__
        self._model = on_meta(model, training=False) if stage == "vision" else model
        self._pieces: dict[SizeRegion, list[Piece]] = {}
        self._recorded: dict[Point, AnnotatedStage] = {}
        self._without: set[Point] = set()
        least, top = ((1, 1), (MOST_CROPS, MOST_CROPS)) if stage == "vision" else ((1, 0), (FARTHEST, FARTHEST))
        hints = config_lengths(getattr(model, "config", {}))
        self._regions = Regions(self._record, least=least, top=top, hints=hints)
        self._launches = False
        self._for_time: Pieces | None = None

    @property
    def for_time(self) -> Pieces:
        """The same, with the kernels that a device launches, attention cores computing what their masks let through.
        Regions are shared: nothing is recorded again."""
        if self._for_time is None:
            priced = copy(self)
            priced.conventions = replace(self.conventions, causal="exact")
            priced._pieces, priced._recorded, priced._launches = {}, {}, True
            self._for_time = priced
        return self._for_time

    @property
    def model_class(self) -> str:
        """The name of the model's class."""
        return self._name

    @property
    def recordings(self) -> int:
        """How many points were recorded to find what is known."""
        return len(self._regions.samples)

    @property
    def symbols(self) -> tuple[str, str, str]:
        """Names of the three sizes, as expressions show them."""
        return ("B", "h", "w") if self.stage == "vision" else ("B", "S_q", "C")

    @property
    def found(self) -> tuple[Piece, ...]:
        """Every piece found so far."""
        return tuple(piece for pieces in self._pieces.values() for piece in pieces)

    def scenario(self, point: Point) -> Scenario | VisionScenario:
        """The pass that a point, (batch, query_len, past_len) or (batch, rows, columns), stands for."""
        batch, x, y = point
        if self.stage == "vision":
            return VisionScenario(batch=batch, crops=(x, y))
        return Scenario(stage=self.stage, batch=batch, query_len=x, past_len=y, encoder_len=self.encoder_len)

    def piece(self, point: Point) -> Piece | None:
        """The polynomials that hold at a point; None where the point has to be recorded."""
        if point in self._without:
            return None
        try:
            region = self._regions.find(point)
            pieces = self._pieces.setdefault(region, [])
            for piece in pieces:
                if piece.holds(point):
                    return piece
            recording = self._regions.found[region]
            piece = _priced(region, recording, point, self.conventions, launches=self._launches)
        except (NotPolynomial, TraceError) as error:
            if self.deployment.ep > 1:
                raise DeploymentError(
                    f"{self.model_class}, {self.stage}: experts on other ranks get rounded rows, which no closed form "
                    "follows; price its passes one by one (annotate, report)"
                ) from error
            self.reason = self.reason or f"{self.model_class}, {self.stage}: {error}"
            self._without.add(point)
            return None
        pieces.append(piece)
        return piece

    def find_regions(self) -> bool:
        """Find every region along the stage's own axis, for several sequences, and price none yet. Whether sizes
        follow polynomials all the way."""
        try:
            self._regions.reach(0 if self.stage == "prefill" else 1)
        except (NotPolynomial, TraceError) as error:
            self.reason = self.reason or f"{self.model_class}, {self.stage}: {error}"
            return False
        return True

    def over(self, sizes: Sequence[np.ndarray]) -> Iterator[tuple[Piece | None, np.ndarray]]:
        """Which piece is right at which of many points, given as three flat arrays: each point once, and those that
        have to be recorded (None) one by one."""
        places = np.arange(len(sizes[0]))
        while len(places):
            batch, x, y = (int(size[places[0]]) for size in sizes)
            piece = self.piece((batch, x, y))
            inside = places == places[0] if piece is None else piece.covers(Values([size[places] for size in sizes]))
            yield piece, places[inside]
            places = places[~inside]

    def annotate(self, point: Point) -> AnnotatedStage:
        """The stage at a point, recorded and priced afresh (once)."""
        if point not in self._recorded:
            scenario, conventions = self.scenario(point), self.conventions
            self._recorded[point] = annotate_pass(
                self._model, scenario, conventions, attention=self.attention, deployment=self.deployment
            )
        return self._recorded[point]

    def some_modules(self) -> ModuleCosts:
        """The modules of one pass, whichever is known already."""
        for piece in self.found:
            return piece.modules
        return self.annotate(next(iter(self._recorded), (1, 1, 1))).modules

    def check(
        self, batch: Size, query_len: Size | None, past_len: Size | None, crops: tuple[Size, Size] | None
    ) -> tuple[Size, Size, Size]:
        """The three sizes, the stage's own where none is given."""
        if self.stage == "vision":
            if query_len is not None or past_len is not None:
                raise ScenarioError("a vision stage has crops=(rows, columns), no query_len or past_len")
            try:
                rows, columns = (0, 0) if crops is None else crops
            except (TypeError, ValueError):
                raise ScenarioError(f"crops must be (rows, columns), not {crops!r}") from None
            return batch, rows, columns
        if crops is not None:
            raise ScenarioError("crops belong to the vision stage")
        if self.stage == "decode":
            if past_len is None:
                raise ScenarioError("decode needs past_len, the number of cached tokens")
            return batch, 1 if query_len is None else query_len, past_len
        if query_len is None:
            raise ScenarioError("prefill needs query_len, the number of prompt tokens")
        return batch, query_len, 0 if past_len is None else past_len

    def _record(self, point: Point) -> Recording:
        scenario, conventions = self.scenario(point), self.conventions
        return record_pass(self._model, scenario, conventions, attention=self.attention, deployment=self.deployment)


def _priced(
    region: SizeRegion, recording: Recording, point: Point, conventions: Conventions, *, launches: bool
) -> Piece:
    """Price a region's recording: comparisons go as they do at ``point``. With ``launches``, its kernels too."""
    with Guards(point, region.lower, region.upper) as guards:
        graph = price(recording, conventions)
        totals = totals_of(recording, graph)
        kernels = kernels_of(recording, graph) if launches else ()
    uncosted = sum(item.count for item in totals.uncosted)
    return Piece(region, tuple(guards), totals.modules, totals.ops, totals.floor_io_bytes, uncosted, kernels, graph)
