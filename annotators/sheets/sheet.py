"""A cost sheet: the priced closed form of one stage of a model, piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.sheets.piece import Piece, cost_at, uncosted_at
from fxmeter.annotators.sheets.region import Point
from fxmeter.annotators.sheets.tables import ModuleCosts, StageTables, op_costs
from fxmeter.annotators.symbolic import NotPolynomial, value_at
from fxmeter.annotators.symbolic.values import Values
from fxmeter.models.choices import Attention, StageName
from fxmeter.models.errors import ScenarioError, SheetError
from fxmeter.models.model_info import ModelInfo
from fxmeter.models.scenario import Scenario, VisionScenario
from fxmeter.models.stage_cost import Size

Find = Callable[[Point], Piece]
"""From a point to the piece that is right there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a sheet is about: the name of the model's class, which pass, by which conventions (those in force under the
    deployment), and what was asked for beside the default of what runs where, in words; ``encoder_len`` as for
    :func:`fxmeter.prefill`."""

    model_class: str
    stage: StageName
    attention: Attention
    conventions: Conventions
    deployment: Mapping[str, str] = field(default_factory=dict)
    encoder_len: int | None = None

    @property
    def sizes(self) -> tuple[str, str, str]:
        """Names of the three sizes that its costs depend on."""
        return ("B", "h", "w") if self.stage == "vision" else ("B", "S_q", "C")

    def scenario(self, point: Point) -> Scenario | VisionScenario:
        """The pass that a point, (batch, query_len, past_len) or (batch, rows, columns), stands for."""
        batch, x, y = point
        if self.stage == "vision":
            return VisionScenario(batch=batch, crops=(x, y))
        length = None if self.stage == "encode" else self.encoder_len  # there it is the pass's own
        return Scenario(stage=self.stage, batch=batch, query_len=x, past_len=y, encoder_len=length)


class Sheet:
    """Pieces of one stage, and whom to ask for others.

    Args:
        subject: what it is about.
        pieces: those that are known.
        timed: those that are known for time, with the kernels that a device launches.
        info: the model in one line; None where it is not known, or of a vision tower.
        beyond: makes the sheet that is asked for points that no piece of this one covers. Without it they are refused.
    """

    def __init__(
        self,
        subject: Subject,
        pieces: Iterable[Piece] = (),
        timed: Iterable[Piece] = (),
        *,
        info: ModelInfo | None = None,
        beyond: Callable[[], Sheet] | None = None,
    ) -> None:
        self.subject = subject
        self._info, self._beyond = info, beyond
        self._further: Sheet | None = None
        self._pieces: list[Piece] = []
        self._points: dict[Point, Piece] = {}
        self._used: dict[int, Piece] = {}
        self._timed = tuple(timed)
        self._for_time: Sheet | None = None
        for piece in pieces:
            self._keep(piece)

    @property
    def stage(self) -> StageName:
        """Which stage it is of."""
        return self.subject.stage

    @property
    def info(self) -> ModelInfo | None:
        """The model in one line; None where it is not known."""
        return self._info

    @property
    def for_time(self) -> Sheet:
        """The same pass with the kernels that a device launches, attention cores computing what their masks let
        through."""
        if self._for_time is None:
            exact = replace(self.subject, conventions=replace(self.subject.conventions, causal="exact"))
            beyond = None if self._beyond is None else lambda: self._asked().for_time
            self._for_time = Sheet(exact, self._timed, beyond=beyond)
        return self._for_time

    @property
    def known(self) -> tuple[Piece, ...]:
        """Every piece, those included that were found beyond the sheet."""
        own = (*self._pieces, *self._points.values())
        return own if self._further is None else (*own, *self._further.known)

    @property
    def has_grown(self) -> bool:
        """Whether it was asked for what it did not have."""
        return self._further is not None or (self._for_time is not None and self._for_time.has_grown)

    @property
    def used(self) -> tuple[Piece, ...]:
        """The pieces that the questions so far came to, in their order."""
        return tuple(self._used.values())

    @property
    def reason(self) -> str | None:
        """None, or why some points had to be recorded one by one."""
        return next((piece.recorded for piece in self.used if piece.recorded), None)

    @property
    def uncosted(self) -> int:
        """Executions without a rule in one pass, the most of those that were asked for."""
        return max((piece.uncosted_executions for piece in self.used), default=0)

    def polynomials(self, point: Point) -> Piece:
        """The polynomials that hold at a point. Raises NotPolynomial or TraceError where there are none, SheetError
        where that is not known."""
        piece = self._held(point)
        if piece is None:
            piece = self._asked(point).polynomials(point)
        if piece.recorded:
            raise NotPolynomial(piece.recorded)
        self._used[id(piece)] = piece
        return piece

    def piece(self, point: Point) -> Piece:
        """What is right at a point: polynomials, or what the point by itself was recorded to cost. Raises SheetError
        where that is not known."""
        piece = self._held(point)
        if piece is None:
            piece = self._asked(point).piece(point)
        self._used[id(piece)] = piece
        return piece

    def find_regions(self) -> None:
        """Find every region along the stage's own axis; what is written down has been found."""

    def over(self, sizes: Sequence[np.ndarray], find: Find | None = None) -> Iterator[tuple[Piece, np.ndarray]]:
        """Which piece is right at which of many points, given as three flat arrays; each point once.

        ``find`` is asked for the pieces: :meth:`piece`, unless it is given.
        """
        find = find or self.piece
        places = np.arange(len(sizes[0]))
        while len(places):
            batch, x, y = (int(size[places[0]]) for size in sizes)
            piece = find((batch, x, y))
            inside = piece.covers(Values([size[places] for size in sizes]))
            yield piece, places[inside]
            places = places[~inside]

    def tables(self, point: Point) -> StageTables:
        """What a report shows of the pass at a point, equal to what ``annotate`` gives."""
        piece = self.piece(point)
        modules = piece.modules.with_costs(lambda found_in: cost_at(found_in(piece.modules), point))
        return StageTables(
            scenario=self.subject.scenario(point),
            attention=self.subject.attention,
            conventions=self.subject.conventions,
            cost=modules[""].cost,
            modules=modules,
            ops=op_costs({op: (count, cost_at(cost, point)) for op, (count, cost) in piece.ops.items()}),
            kv_cache=tuple(piece.cache_at(point)),
            uncosted=uncosted_at(piece.uncosted, point),
            floor_io_bytes=value_at(piece.floor_io_bytes, point),
        )

    def some_modules(self) -> ModuleCosts:
        """The modules of one pass, whichever is known already."""
        known = next(iter(self.known), None)
        return (known or self.piece((1, 1, 0 if self.stage == "prefill" else 1))).modules

    def _held(self, point: Point) -> Piece | None:
        """The piece of this sheet that is right at a point."""
        if point in self._points:
            return self._points[point]
        return next((p for p in self._pieces if p.region.contains(*point) and p.holds(point)), None)

    def _keep(self, piece: Piece) -> None:
        if piece.recorded:
            self._points[piece.region.lower] = piece
        else:
            self._pieces.append(piece)

    def _asked(self, point: Point | None = None) -> Sheet:
        """The sheet that is asked for what this one does not cover."""
        if self._further is None:
            if self._beyond is None:
                subject = self.subject
                where = ", ".join(f"{name} = {size}" for name, size in zip(subject.sizes, point or (), strict=False))
                raise SheetError(
                    f"the cost sheet of {subject.model_class}, {subject.stage}, {subject.attention} does not cover "
                    f"{where}; annotate(...) records any pass"
                )
            self._further = self._beyond()
        return self._further

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
        if self.stage == "encode":
            length = self.subject.encoder_len or 0
            if past_len is not None or (query_len is not None and np.any(np.asarray(query_len) != length)):
                raise ScenarioError(f"this form is of {length:,} positions of the encoder, none cached")
            return batch, length if query_len is None else query_len, 0
        if self.stage == "decode":
            if past_len is None:
                raise ScenarioError("decode needs past_len, the number of cached tokens")
            return batch, 1 if query_len is None else query_len, past_len
        if query_len is None:
            raise ScenarioError("prefill needs query_len, the number of prompt tokens")
        return batch, query_len, 0 if past_len is None else past_len
