"""One recording, every shape: the cost of a stage as exact expressions in its sizes.

    a few recordings ─▶ sizes as polynomials (regions) ─▶ the same rules ─▶ every cost a polynomial
                                                             │
                                                             └─ comparisons (a window, a peak) become conditions

A :class:`ClosedForm` finds regions and conditions when a point first asks for them and keeps what it found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import nn

from fxmeter.annotators.api import annotate
from fxmeter.annotators.closed.generation import evaluate_generation
from fxmeter.annotators.closed.grid import Grid
from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.pricing.price import price
from fxmeter.annotators.shapes.region import NotPolynomial, Point, Region
from fxmeter.annotators.shapes.regions import Regions, config_lengths
from fxmeter.annotators.stages.rollup import AnnotatedStage, ModuleCost, ModuleCosts, module_costs, op_totals
from fxmeter.annotators.symbolic import Condition, Path, value_at
from fxmeter.models.errors import FxmeterError, ScenarioError, TraceError
from fxmeter.models.scenario import Scenario, VisionScenario, generation
from fxmeter.models.stage_cost import EXACT, FIELDS, StageCost
from fxmeter.tracer.capture.recording import Recording
from fxmeter.tracer.load.vision import page_pixels
from fxmeter.tracer.run.attention import Attention
from fxmeter.tracer.run.passes import on_meta, record, record_twin

if TYPE_CHECKING:
    import sympy

TOTALS = EXACT
"""What ``evaluate`` returns unless told otherwise: every exact field and the two exact sums."""

FARTHEST = 2**20 + 7
MOST_CROPS = 1000
FormStage = Literal["prefill", "decode", "vision"]


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Costs as polynomials, right wherever ``region`` and all ``conditions`` hold.

    ``ops`` is op → executions and their cost; ``uncosted`` counts executions of ops that no rule knows.
    """

    region: Region
    conditions: tuple[Condition, ...]
    modules: Mapping[str, ModuleCost]
    ops: Mapping[str, tuple[int, StageCost]]
    floor_io_bytes: Any
    uncosted: int

    @property
    def cost(self) -> StageCost:
        """Of the whole stage."""
        return self.modules[""].cost

    def holds(self, point: Point) -> bool:
        """Whether it is right at a point of its region."""
        return all(condition.holds(point) for condition in self.conditions)


def closed_form(
    model: nn.Module,
    *,
    stage: FormStage = "decode",
    attention: Attention = "flash",
    causal: Literal["full", "exact"] = "full",
    logits: Literal["all", "last"] = "all",
    routing: Literal["uniform", "worst"] = "uniform",
) -> ClosedForm:
    """The cost of a stage for every batch, query length and past length (of a vision tower: batch and grid of crops).

    The options are those of :func:`fxmeter.annotators.annotate`, and ``form.at(...)`` equals its cost in every
    field. Where the
    sizes of a model's tensors follow no polynomial, ``form.reason`` says so, and ``at`` records the point.
    """
    conventions = Conventions(causal=causal, logits=logits, routing=routing)
    if stage not in ("prefill", "decode", "vision"):
        raise ScenarioError(f"stage must be 'prefill', 'decode' or 'vision', not {stage!r}")
    return ClosedForm(model, stage, attention, conventions)


class ClosedForm:
    """Exact costs of one stage. ``reason`` is None, or why some points had to be recorded after all."""

    def __init__(self, model: nn.Module, stage: FormStage, attention: Attention, conventions: Conventions) -> None:
        self.stage, self.attention, self.conventions = stage, attention, conventions
        self.reason: str | None = None
        self._model = model
        self._twin: nn.Module | None = None
        self._pieces: dict[Region, list[Piece]] = {}
        self._recorded: dict[Point, AnnotatedStage] = {}
        self._without: set[Point] = set()
        least, top = ((1, 1), (MOST_CROPS, MOST_CROPS)) if stage == "vision" else ((1, 0), (FARTHEST, FARTHEST))
        hints = config_lengths(getattr(model, "config", {}))
        self._regions = Regions(self._record, least=least, top=top, hints=hints)
        self._whole = ModuleForm(self, "")

    # Scenario and point: (batch, query_len, past_len), or (batch, rows, columns)

    def scenario(self, point: Point) -> Scenario | VisionScenario:
        """The pass that a point stands for."""
        batch, x, y = point
        if self.stage == "vision":
            return VisionScenario(batch=batch, crops=(x, y))
        return Scenario(stage=self.stage, batch=batch, query_len=x, past_len=y)

    @property
    def symbols(self) -> tuple[str, str, str]:
        """Names of the three sizes, as expressions show them."""
        return ("B", "h", "w") if self.stage == "vision" else ("B", "S_q", "C")

    def _record(self, point: Point) -> Recording:
        scenario = self.scenario(point)
        if isinstance(scenario, VisionScenario):
            pixels = page_pixels(scenario.crops, batch=scenario.batch, dtype=next(self._model.parameters()).dtype)
            if self._twin is None:
                self._twin = on_meta(self._model)
            return record_twin(self._twin, pixels, {}, attention=self.attention)
        return record(self._model, scenario, attention=self.attention, logits=self.conventions.logits)

    def annotate(self, point: Point) -> AnnotatedStage:
        """The stage at a point, recorded and priced afresh (once)."""
        if point not in self._recorded:
            options = asdict(self.conventions)
            self._recorded[point] = annotate(self._model, self.scenario(point), attention=self.attention, **options)
        return self._recorded[point]

    # Pieces

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
            piece = _priced(region, point, self.conventions)
        except (NotPolynomial, TraceError, TypeError, ArithmeticError) as error:
            self.reason = self.reason or f"{type(self._model).__name__}, {self.stage}: {error}"
            self._without.add(point)
            return None
        pieces.append(piece)
        return piece

    def pieces(self) -> tuple[Piece, ...]:
        """Every piece found so far."""
        return tuple(piece for pieces in self._pieces.values() for piece in pieces)

    def some_modules(self) -> ModuleCosts:
        """The modules of one pass, whichever is known already."""
        for piece in self.pieces():
            return ModuleCosts(piece.modules, piece.region.recording.folds())
        point = (1, 1, 1)
        for point in self._recorded:  # noqa: B007
            break
        return self.annotate(point).modules

    def check(self, batch: Any, query_len: Any, past_len: Any, crops: Any) -> tuple[Any, Any, Any]:
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

    # What the whole stage costs

    def at(
        self, *, batch: int = 1, query_len: int | None = None, past_len: int | None = None, crops: Any = None
    ) -> StageCost:
        """The cost of one pass, equal to what ``annotate`` gives. Decode has query_len 1 unless told otherwise, prefill
        past_len 0; a vision tower takes crops=(rows, columns)."""
        return self._whole.at(batch=batch, query_len=query_len, past_len=past_len, crops=crops)

    def evaluate(
        self, *, batch: Any = 1, query_len: Any = None, past_len: Any = None, crops: Any = None, fields: Any = TOTALS
    ) -> dict[str, np.ndarray]:
        """Costs for arrays of sizes, which broadcast: field → array, of int64 where nothing can overflow, else of
        Python integers. ``fields`` may also name derived figures."""
        return self._whole.evaluate(batch=batch, query_len=query_len, past_len=past_len, crops=crops, fields=fields)

    def generation(self, *, past_len: int, steps: int, batch: int = 1) -> StageCost:
        """The cost of ``steps`` decode steps of one token each, ``past_len`` tokens cached before the first: FLOPs and
        traffic summed, memory of the last step. Equal to what ``annotate`` gives for
        :func:`fxmeter.models.generation`."""
        return self._whole.generation(past_len=past_len, steps=steps, batch=batch)

    def evaluate_generation(
        self, *, batch: Any = 1, past_len: Any, steps: Any, fields: Any = TOTALS
    ) -> dict[str, np.ndarray]:
        """The same for arrays of sizes, which broadcast; see :meth:`evaluate`."""
        return self._whole.evaluate_generation(batch=batch, past_len=past_len, steps=steps, fields=fields)

    @property
    def expressions(self) -> Mapping[str, sympy.Expr]:
        """Every field as a sympy expression in B, S_q and C (decode has S_q = 1, prefill C = 0; vision B, h and w)."""
        return self._whole.expressions

    @property
    def modules(self) -> ModuleForms:
        """The same for every module: path → form of one instance."""
        return ModuleForms(self)

    def default_pieces(self) -> tuple[Piece, ...]:
        """Every piece of the stage as it is usually meant: one query token, no past, or any grid of crops.

        Raises NotPolynomial where there is none.
        """
        from fxmeter.annotators.shapes.mesh import explore

        return explore(self)


class ModuleForm:
    """Exact costs of one module, for one instance of it; ``path`` "" is the whole stage."""

    def __init__(self, form: ClosedForm, path: str) -> None:
        self.form, self.path = form, path
        self._expressions: Mapping[str, Any] | None = None

    def at(
        self, *, batch: int = 1, query_len: int | None = None, past_len: int | None = None, crops: Any = None
    ) -> StageCost:
        """The module's part of a pass."""
        point = self.form.check(batch, query_len, past_len, crops)
        scenario = self.form.scenario(point)  # refuses what cannot be
        if isinstance(scenario, Scenario):
            point = (scenario.batch, scenario.query_len, scenario.past_len)
        piece = self.form.piece(point)
        if piece is None:
            return self.form.annotate(point).modules[self.path].cost
        cost = self.of(piece)
        return StageCost(**{name: value_at(getattr(cost, name), point) for name in FIELDS})

    def of(self, piece: Piece) -> StageCost:
        """The module's polynomials."""
        return ModuleCosts(piece.modules, piece.region.recording.folds())[self.path].cost

    def evaluate(
        self, *, batch: Any = 1, query_len: Any = None, past_len: Any = None, crops: Any = None, fields: Any = TOTALS
    ) -> dict[str, np.ndarray]:
        """Costs for arrays of sizes; see :meth:`ClosedForm.evaluate`."""
        sizes = self.form.check(batch, query_len, past_len, crops)
        return Grid(sizes, self.form).evaluate(self, tuple(fields))

    def generation(self, *, past_len: int, steps: int, batch: int = 1) -> StageCost:
        """The module's part of a generation; see :meth:`ClosedForm.generation`."""
        scenario = generation(past_len, steps=steps, batch=batch)
        found = self.evaluate_generation(
            batch=scenario.batch, past_len=scenario.past_len, steps=scenario.steps, fields=FIELDS
        )
        return StageCost(**{name: int(array) for name, array in found.items()})

    def evaluate_generation(
        self, *, batch: Any = 1, past_len: Any, steps: Any, fields: Any = TOTALS
    ) -> dict[str, np.ndarray]:
        """The module's part of generations; see :meth:`ClosedForm.evaluate_generation`."""
        if self.form.stage != "decode":
            raise ScenarioError(f"a generation is made of decode steps, and this is the form of {self.form.stage}")
        return evaluate_generation(self, batch=batch, past_len=past_len, steps=steps, fields=tuple(fields))

    @property
    def expressions(self) -> Mapping[str, sympy.Expr]:
        """Every field, ``flops`` and ``io_bytes`` as sympy expressions."""
        from fxmeter.annotators.closed.expressions import expressions_of

        if self._expressions is None:
            self._expressions = expressions_of(self.form, self.of)
        return self._expressions


class ModuleForms(Mapping[str, ModuleForm]):
    """Module path → form. Iterates over what was recorded; a folded layer's path finds its stand-in."""

    def __init__(self, form: ClosedForm) -> None:
        self.form = form

    def __getitem__(self, path: str) -> ModuleForm:
        self.form.some_modules()[path]
        return ModuleForm(self.form, path)

    def __iter__(self) -> Iterator[str]:
        return iter(self.form.some_modules())

    def __len__(self) -> int:
        return len(self.form.some_modules())


def _priced(region: Region, point: Point, conventions: Conventions) -> Piece:
    """Price the region's recording: comparisons go as they do at ``point``."""
    with Path(point, region.lower, region.upper) as path:
        graph = price(region.recording, conventions)
        nodes = [data for _, data in graph.nodes(data=True)]
        modules = module_costs(region.recording, nodes)
        ops = op_totals(nodes, region.recording)
        uncosted = sum(data["times"] for data in nodes if not data["costed"])
    return Piece(region, tuple(path.conditions), modules, ops, graph.graph["floor_io_bytes"], uncosted)


__all__ = ["TOTALS", "ClosedForm", "FxmeterError", "ModuleForm", "ModuleForms", "Piece", "closed_form"]
