"""Closed forms: the cost of a stage, or of one module in it, at any sizes.

What is behind them is :mod:`fxmeter.annotators.shapes`; here is what one does with it: evaluate, sum, write down.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from fxmeter.annotators.closed.formulas import expressions_of, formulas
from fxmeter.annotators.closed.generation import evaluate_generation
from fxmeter.annotators.closed.grid import SizeGrid
from fxmeter.annotators.closed.times import extrapolated_at, times_at
from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.shapes.pieces import FormStage, Pieces
from fxmeter.annotators.stages.given import Given, model_of
from fxmeter.annotators.symbolic import value_at
from fxmeter.annotators.timing.stage_time import Time
from fxmeter.models.choices import Logits
from fxmeter.models.deployment import ONE_DEVICE, Deployment
from fxmeter.models.devices import Device
from fxmeter.models.devices import device as device_named
from fxmeter.models.errors import DeploymentError, ScenarioError
from fxmeter.models.scenario import Scenario, generation, prefill
from fxmeter.models.stage_cost import EXACT, FIELDS, StageCost
from fxmeter.tracer.run.attention import Attention
from fxmeter.tracer.run.encoder import with_encoder_len

if TYPE_CHECKING:
    import sympy

TOTALS = EXACT
"""What ``evaluate`` returns unless told otherwise: every exact field and the two exact sums."""

Crops: TypeAlias = tuple[ArrayLike, ArrayLike] | None
"""Rows and columns of crops; None: no crops."""


def closed_form(
    model: Given,
    *,
    stage: FormStage = "decode",
    attention: Attention = "flash",
    causal: Literal["full", "exact"] = "full",
    logits: Logits = "all",
    routing: Literal["uniform", "worst"] = "uniform",
    encoder_len: int | None = None,
    deployment: Deployment = ONE_DEVICE,
) -> ClosedForm:
    """The cost of a stage for every batch, query length and past length (of a vision tower: batch and grid of crops).

    Args:
        model: as for :func:`fxmeter.annotate`.
        stage: "prefill", "decode" or "vision".
        attention, causal, logits, routing, deployment: as for :func:`fxmeter.annotate`.
        encoder_len: as for :func:`fxmeter.prefill`: the form is for this one length of an encoder's output.

    Returns:
        The form. ``form.at(...)`` equals the cost that ``annotate`` gives, in every field. Nothing is recorded before
        the first question. Where the sizes of a model's tensors follow no polynomial, ``form.reason`` says so, and
        ``at`` records the point.

    Raises:
        ScenarioError: no such stage.
    """
    conventions = Conventions(causal=causal, logits=logits, routing=routing)
    if stage not in ("prefill", "decode", "vision"):
        raise ScenarioError(f"stage must be 'prefill', 'decode' or 'vision', not {stage!r}")
    module = model_of(model, vision=stage == "vision")
    if stage != "vision":
        encoder_len = with_encoder_len(module, prefill(1, encoder_len=encoder_len)).encoder_len
    if deployment.pp > 1:
        raise DeploymentError("pipeline stages are parts of a pass, and have no closed form: report --pp shows them")
    return ClosedForm(Pieces(module, stage, attention, conventions, deployment, encoder_len))


class ModuleForm:
    """Exact costs of one module, for one instance of it; ``path`` "" is the whole stage."""

    def __init__(self, pieces: Pieces, path: str = "") -> None:
        self.pieces, self.path = pieces, path
        self._expressions: Mapping[str, sympy.Expr] | None = None

    def at(
        self, *, batch: int = 1, query_len: int | None = None, past_len: int | None = None, crops: Crops = None
    ) -> StageCost:
        """The cost of one pass, equal to what ``annotate`` gives.

        Args:
            batch: sequences, B.
            query_len: new tokens of each, S_q; of decode 1 unless told otherwise.
            past_len: tokens cached before them, C; of prefill 0 unless told otherwise.
            crops: of a vision tower, (rows, columns) instead of lengths.

        Returns:
            What the stage costs, or one instance of the module.

        Raises:
            ScenarioError: a size that is missing, too small, or of another stage.
        """
        point = self.pieces.check(batch, query_len, past_len, crops)
        scenario = self.pieces.scenario(point)  # refuses what cannot be
        if isinstance(scenario, Scenario):
            point = (scenario.batch, scenario.query_len, scenario.past_len)
        piece = self.pieces.piece(point)
        if piece is None:
            return self.pieces.annotate(point).modules[self.path].cost
        cost = piece.modules[self.path].cost
        return StageCost(**{name: value_at(getattr(cost, name), point) for name in FIELDS})

    def evaluate(
        self,
        *,
        batch: ArrayLike = 1,
        query_len: ArrayLike | None = None,
        past_len: ArrayLike | None = None,
        crops: Crops = None,
        fields: Sequence[str] = TOTALS,
    ) -> dict[str, np.ndarray]:
        """Costs for arrays of sizes, all at once.

        Args:
            batch, query_len, past_len, crops: as for :meth:`at`, each a number or what numpy makes an array of.
            fields: names of figures, derived ones too.

        Returns:
            Field → array of the shape to which the sizes broadcast: of int64 where nothing can overflow, else of Python
            integers.
        """
        sizes = self.pieces.check(batch, query_len, past_len, crops)
        return SizeGrid(sizes, self.pieces).evaluate(self.path, tuple(fields))

    def generation(self, *, past_len: int, steps: int, batch: int = 1) -> StageCost:
        """The cost of a generation, equal to what ``annotate`` gives for :func:`fxmeter.generation`.

        Args:
            past_len: tokens cached before the first step, C.
            steps: tokens to decode, one at a time, K; more of them take no longer.
            batch: sequences, B.

        Returns:
            FLOPs and bytes moved are sums over the steps; activations and peaks those of the largest step, the cache
            that of the last; weights are resident once.
        """
        scenario = generation(past_len, steps=steps, batch=batch)
        totals = self.evaluate_generation(
            batch=scenario.batch, past_len=scenario.past_len, steps=scenario.steps, fields=FIELDS
        )
        return StageCost(**{name: int(array) for name, array in totals.items()})

    def evaluate_generation(
        self, *, batch: ArrayLike = 1, past_len: ArrayLike, steps: ArrayLike, fields: Sequence[str] = TOTALS
    ) -> dict[str, np.ndarray]:
        """Costs of generations for arrays of sizes, which broadcast; see :meth:`generation` and :meth:`evaluate`."""
        if self.pieces.stage != "decode":
            raise ScenarioError(f"a generation is made of decode steps, and this is the form of {self.pieces.stage}")
        return evaluate_generation(
            self.pieces, self.path, batch=batch, past_len=past_len, steps=steps, fields=tuple(fields)
        )

    def time(
        self,
        device: str | Path | Device,
        *,
        batch: ArrayLike = 1,
        query_len: ArrayLike | None = None,
        past_len: ArrayLike | None = None,
        crops: Crops = None,
    ) -> Time:
        """How long a pass takes on ``device``, for arrays of sizes, which broadcast.

        Returns:
            :class:`fxmeter.annotators.timing.stage_time.Time`, of arrays in seconds; at each point what
            ``annotate(...).time(device)`` has of this module.

        Raises:
            DeviceError: no such device.
        """
        sizes = self.pieces.check(batch, query_len, past_len, crops)
        return times_at(self.pieces, self.path, sizes, device_named(device))

    def extrapolated(
        self,
        device: str | Path | Device,
        *,
        batch: int = 1,
        query_len: int | None = None,
        past_len: int | None = None,
        crops: Crops = None,
    ) -> tuple[str, ...]:
        """Why :meth:`time` at one point was not held to measurements; none where it was."""
        batch, x, y = self.pieces.check(batch, query_len, past_len, crops)
        return extrapolated_at(self.pieces, (int(batch), int(x), int(y)), device_named(device))

    @property
    def expressions(self) -> Mapping[str, sympy.Expr]:
        """Every field, ``flops`` and ``io_bytes`` as sympy expressions in B, S_q and C (decode has S_q = 1, prefill
        C = 0; vision B, h and w)."""
        if self._expressions is None:
            self._expressions = expressions_of(formulas(self.pieces, model=self.pieces.model_class, module=self.path))
        return self._expressions


class ClosedForm(ModuleForm):
    """Exact costs of one stage."""

    @property
    def reason(self) -> str | None:
        """None, or why some points had to be recorded after all."""
        return self.pieces.reason

    @property
    def modules(self) -> ModuleForms:
        """The same for every module: path → form of one instance."""
        return ModuleForms(self.pieces)


class ModuleForms(Mapping[str, ModuleForm]):
    """Module path → form. Iterates over what was recorded; a folded layer's path finds its stand-in."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces

    def __getitem__(self, path: str) -> ModuleForm:
        self._pieces.some_modules()[path]
        return ModuleForm(self._pieces, path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces.some_modules())

    def __len__(self) -> int:
        return len(self._pieces.some_modules())


__all__ = ["TOTALS", "ClosedForm", "ModuleForm", "ModuleForms", "closed_form"]
