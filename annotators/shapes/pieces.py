"""Which polynomials give the costs of a stage, and where.

    a few recordings ─▶ sizes as polynomials (regions) ─▶ the same rules ─▶ every cost a polynomial
                                                             │
                                                             └─ comparisons (a window, a peak) become guards

:class:`Pieces` finds regions and guards when a point first asks for them and keeps what it found.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, fields, replace

import networkx as nx
from torch import nn

from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.pricing.price import price
from fxmeter.annotators.shapes.regions import Regions, config_lengths
from fxmeter.annotators.sheets.piece import Piece
from fxmeter.annotators.sheets.region import Point, SizeRegion
from fxmeter.annotators.sheets.sheet import Sheet, Subject
from fxmeter.annotators.sheets.tables import ModuleCosts, PipelineStage
from fxmeter.annotators.stages.model_info import model_info
from fxmeter.annotators.stages.one_pass import annotate_pass, record_pass
from fxmeter.annotators.stages.pipeline import Dealt
from fxmeter.annotators.stages.rollup import AnnotatedStage, cache_layers, totals_of
from fxmeter.annotators.symbolic import Guards, NotPolynomial, value_at
from fxmeter.annotators.timing.kernel import Kernel
from fxmeter.annotators.timing.kernels import kernels_of
from fxmeter.models.choices import StageName
from fxmeter.models.deployment import ONE_DEVICE, Deployment
from fxmeter.models.errors import TraceError
from fxmeter.models.model_info import ModelInfo
from fxmeter.tracer.capture.recording import Recording
from fxmeter.tracer.graph.shares import sharing
from fxmeter.tracer.run.patches.attention import Attention
from fxmeter.tracer.run.twin import on_meta

FARTHEST = 2**20 + 7
"""The longest length recorded to check that a region has no end: beyond every context that is served today, and no
round number, since code that works in blocks is the same at all of them."""
MOST_CROPS = 1000
"""The same of rows and columns of crops."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PricedPiece(Piece):
    """A piece with the graph whose costs were added up, its sizes polynomials."""

    graph: nx.DiGraph = field(repr=False)


class Pieces(Sheet):
    """The pieces of one stage of a model, found by recording it."""

    def __init__(
        self,
        model: nn.Module,
        stage: StageName,
        attention: Attention,
        conventions: Conventions,
        deployment: Deployment = ONE_DEVICE,
        encoder_len: int | None = None,
    ) -> None:
        subject = Subject(
            model_class=type(model).__name__,
            stage=stage,
            attention=attention,
            conventions=conventions.under(deployment, stage),
            deployment=deployment.asked,
            encoder_len=encoder_len,
        )
        super().__init__(subject)
        self._given, self._deployment = model, deployment
        self._model = on_meta(model, training=False) if stage == "vision" else model
        self._recorded: dict[Point, AnnotatedStage] = {}
        self._without: dict[Point, str] = {}
        least, top = ((1, 1), (MOST_CROPS, MOST_CROPS)) if stage == "vision" else ((1, 0), (FARTHEST, FARTHEST))
        if stage == "encode":  # of one length, which may be the only one that the encoder takes
            least = top = (encoder_len or 1, 0)
        hints = config_lengths(getattr(model, "config", {}))
        self._regions = Regions(self._record, least=least, top=top, hints=hints)
        self._launches = False

    @property
    def info(self) -> ModelInfo | None:
        """The model in one line; None of a vision tower."""
        if self._info is None and self.stage != "vision":
            self._info = model_info(self._given, deployment=self._deployment)
        return self._info

    @property
    def for_time(self) -> Sheet:
        """The same, with the kernels that a device launches, attention cores computing what their masks let through.
        Regions are shared: nothing is recorded again."""
        if self._for_time is None:
            priced = copy(self)
            priced.subject = replace(self.subject, conventions=replace(self.subject.conventions, causal="exact"))
            priced._pieces, priced._points, priced._used, priced._without = [], {}, {}, {}
            priced._recorded, priced._launches = {}, True
            self._for_time = priced
        return self._for_time

    @property
    def has_grown(self) -> bool:
        """All of it is new."""
        return True

    @property
    def recordings(self) -> int:
        """How many points were recorded to find what is known."""
        return len(self._regions.samples)

    def polynomials(self, point: Point) -> PricedPiece:
        """The polynomials that hold at a point. Raises NotPolynomial or TraceError where there are none."""
        piece = self._held(point)
        if not isinstance(piece, PricedPiece):
            piece = self._found(point)
        self._used[id(piece)] = piece
        return piece

    def find_regions(self) -> None:
        """Find every region along the stage's own axis, for several sequences, and price none yet. Raises NotPolynomial
        or TraceError where sizes do not follow polynomials all the way."""
        self._regions.reach(0 if self.stage == "prefill" else 1)

    def piece(self, point: Point) -> Piece:
        """What is right at a point: polynomials, or what the point by itself was recorded to cost."""
        piece = self._points.get(point)
        if piece is None:
            try:
                return self.polynomials(point)
            except (NotPolynomial, TraceError) as error:
                piece = self._alone(point, f"{self.subject.model_class}, {self.stage}: {error}")
                self._keep(piece)
        self._used[id(piece)] = piece
        return piece

    def annotate(self, point: Point) -> AnnotatedStage:
        """The stage at a point, recorded and priced afresh (once)."""
        if point not in self._recorded:
            subject = self.subject
            self._recorded[point] = annotate_pass(
                self._model,
                subject.scenario(point),
                subject.conventions,
                attention=subject.attention,
                deployment=self._deployment,
            )
        return self._recorded[point]

    def _found(self, point: Point) -> PricedPiece:
        if point in self._without:
            raise NotPolynomial(self._without[point])
        try:
            region = self._regions.find(point)
            piece = self._priced(region, self._regions.found[region], point)
        except (NotPolynomial, TraceError) as error:
            self._without[point] = str(error)
            raise
        self._keep(piece)
        return piece

    def _alone(self, point: Point, reason: str) -> Piece:
        """A point by itself. Raises TraceError where it cannot be recorded."""
        region = SizeRegion(point, point, (point[1] + point[2],) * 2)
        priced = self._priced(region, self._regions.samples.recording(point), point)
        return replace(Piece(**{each.name: getattr(priced, each.name) for each in fields(Piece)}), recorded=reason)

    def _record(self, point: Point, more: int = 0) -> Recording:
        """A pass; the fullest rank's part of what ranks share unevenly has ``more`` rows than it has."""
        subject = self.subject
        with sharing(more):
            return record_pass(
                self._model,
                subject.scenario(point),
                subject.conventions,
                attention=subject.attention,
                deployment=self._deployment,
            )

    def _priced(self, region: SizeRegion, recording: Recording, point: Point) -> PricedPiece:
        """Price a recording with sizes that are polynomials: comparisons go as they do at ``point``."""
        with Guards(point, region.lower, region.upper) as guards:
            priced = price(recording, self.subject.conventions)
            totals, graph = totals_of(recording, priced), priced.graph
            kernels = kernels_of(recording, graph) if self._launches else ()
            return PricedPiece(
                region=region,
                guards=tuple(guards),
                modules=totals.modules,
                ops=totals.ops,
                floor_io_bytes=totals.floor_io_bytes,
                uncosted=totals.uncosted,
                kv_cache=cache_layers(recording),
                kernels=kernels,
                pipeline=self._pipeline(recording, graph, totals.modules, kernels, point),
                graph=graph,
            )

    def _pipeline(
        self, recording: Recording, graph: nx.DiGraph, modules: ModuleCosts, kernels: Sequence[Kernel], point: Point
    ) -> tuple[PipelineStage, ...]:
        """The stages of a deployment that has several, of a pass of the layers that they share."""
        stages = self._deployment.pp
        if stages == 1 or self.stage not in ("prefill", "decode"):
            return ()
        dealt = Dealt.of(recording, graph, modules, stages, lambda size: int(value_at(size, point)))
        return dealt.parts(graph, modules, self._deployment.ranks, kernels)
