"""Closed forms: the cost of a stage, or of one module in it, at any sizes.

What is behind them is :mod:`fxmeter.annotators.shapes`; here is what one does with it: evaluate, sum, write down.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from fxmeter.annotators.closed.formulas import expressions_of, formulas, pieces_of
from fxmeter.annotators.sheets.generation import evaluate_generation
from fxmeter.annotators.sheets.grid import SizeGrid
from fxmeter.annotators.sheets.kept.document import from_document, to_document
from fxmeter.annotators.sheets.kept.files import write_whole
from fxmeter.annotators.sheets.kept.plain import NO_DOCUMENT
from fxmeter.annotators.sheets.kept.sealed import sealed, unsealed
from fxmeter.annotators.sheets.piece import Part, cost_at
from fxmeter.annotators.sheets.region import Point
from fxmeter.annotators.sheets.sheet import Sheet
from fxmeter.annotators.sheets.tables import StageTables
from fxmeter.annotators.sheets.times import extrapolated_at, times_at
from fxmeter.annotators.timing.stage_time import Time
from fxmeter.models.devices import Device
from fxmeter.models.devices import device as device_named
from fxmeter.models.errors import ScenarioError, SheetError
from fxmeter.models.scenario import Scenario, generation
from fxmeter.models.stage_cost import EXACT, FIELDS, StageCost

if TYPE_CHECKING:
    import sympy

TOTALS = EXACT
"""What ``evaluate`` returns unless told otherwise: every exact field and the two exact sums."""

Crops: TypeAlias = tuple[ArrayLike, ArrayLike] | None
"""Rows and columns of crops; None: no crops."""


class ModuleForm:
    """Exact costs of one module, for one instance of it, or of a pipeline stage; ``part`` "" is the whole pass."""

    def __init__(self, sheet: Sheet, part: Part = "") -> None:
        self.sheet, self.part = sheet, part
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
        point = self._point(batch, query_len, past_len, crops)
        return cost_at(self.sheet.piece(point).cost_of(self.part), point)

    def _point(self, batch: int, query_len: int | None, past_len: int | None, crops: Crops) -> Point:
        point = self.sheet.check(batch, query_len, past_len, crops)
        scenario = self.sheet.subject.scenario(point)  # refuses what cannot be
        return (scenario.batch, scenario.query_len, scenario.past_len) if isinstance(scenario, Scenario) else point

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
        sizes = self.sheet.check(batch, query_len, past_len, crops)
        return SizeGrid(sizes, self.sheet).evaluate(self.part, tuple(fields))

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
        if self.sheet.stage != "decode":
            raise ScenarioError(f"a generation is made of decode steps, and this is the form of {self.sheet.stage}")
        return evaluate_generation(
            self.sheet, self.part, batch=batch, past_len=past_len, steps=steps, fields=tuple(fields)
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
        sizes = self.sheet.check(batch, query_len, past_len, crops)
        return times_at(self.sheet, self.part, sizes, device_named(device))

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
        batch, x, y = self.sheet.check(batch, query_len, past_len, crops)
        return extrapolated_at(self.sheet, (int(batch), int(x), int(y)), device_named(device))

    @property
    def expressions(self) -> Mapping[str, sympy.Expr]:
        """Every field, ``flops`` and ``io_bytes`` as sympy expressions in B, S_q and C (decode has S_q = 1, prefill
        C = 0; vision B, h and w)."""
        if self._expressions is None:
            self._expressions = expressions_of(
                formulas(self.sheet, model=self.sheet.subject.model_class, module=self.part)
            )
        return self._expressions


class ClosedForm(ModuleForm):
    """Exact costs of one stage."""

    @property
    def reason(self) -> str | None:
        """None, or why some points had to be recorded after all."""
        return self.sheet.reason

    def tables(
        self, *, batch: int = 1, query_len: int | None = None, past_len: int | None = None, crops: Crops = None
    ) -> StageTables:
        """The tables of a report on one pass, equal to those of what ``annotate`` gives: modules, ops, cache, ops
        without a rule. Sizes are as for :meth:`at`."""
        return self.sheet.tables(self._point(batch, query_len, past_len, crops))

    @property
    def modules(self) -> ModuleForms:
        """The same for every module: path → form of one instance."""
        return ModuleForms(self.sheet)

    @property
    def stages(self) -> tuple[ModuleForm, ...]:
        """The same for each pipeline stage: what a device of it computes and holds in a pass, its time that of its
        kernels and of what it sends; the whole alone, where the deployment has none."""
        count = int(self.sheet.subject.deployment.get("pp", 1)) if self.sheet.stage in ("prefill", "decode") else 1
        return tuple(ModuleForm(self.sheet, part) for part in range(count)) if count > 1 else (self,)

    def save(self, file: str | Path) -> None:
        """Write the cost sheet: a JSON document from which :func:`fxmeter.load_sheet` answers without torch.

        It covers the stage as it is usually meant, at any batch: prompts with an empty cache, decode steps of one
        token, pages with any grid of crops; and whatever else was asked of this form.

        Args:
            file: where to; whole or not at all.

        Raises:
            NoFormula: no polynomials give the costs of the stage. OSError: the file cannot be written.
        """
        pieces_of(self.sheet)
        pieces_of(self.sheet.for_time)
        write_whole(Path(file), sealed(to_document(self.sheet, self.sheet.info)))


def load_sheet(file: str | Path) -> ClosedForm:
    """The closed form that :meth:`ClosedForm.save` wrote: the same costs, times and tables, without torch.

    Args:
        file: the sheet.

    Returns:
        The form. What the sheet does not cover is a SheetError.

    Raises:
        SheetError: the file is no cost sheet, of another schema version, or damaged. OSError: it cannot be read.
    """
    content = Path(file).read_bytes()
    try:
        return ClosedForm(from_document(unsealed(content)))
    except NO_DOCUMENT as error:
        raise SheetError(f"{file}: no cost sheet that this fxmeter reads: {error}") from None


class ModuleForms(Mapping[str, ModuleForm]):
    """Module path → form. Iterates over what was recorded; a folded layer's path finds its stand-in."""

    def __init__(self, sheet: Sheet) -> None:
        self._sheet = sheet

    def __getitem__(self, path: str) -> ModuleForm:
        self._sheet.some_modules()[path]
        return ModuleForm(self._sheet, path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._sheet.some_modules())

    def __len__(self) -> int:
        return len(self._sheet.some_modules())


__all__ = ["TOTALS", "ClosedForm", "ModuleForm", "ModuleForms", "load_sheet"]
