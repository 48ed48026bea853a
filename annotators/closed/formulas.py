"""The formulas of a stage, or of one module in it, for people and for programs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fxmeter.annotators.closed.arrange import Node, Writing
from fxmeter.annotators.closed.cases import Box, Cases, cases_of, domain
from fxmeter.annotators.closed.languages import SYMPY, Language
from fxmeter.annotators.closed.mesh import explore
from fxmeter.annotators.sheets.piece import Part, Piece
from fxmeter.annotators.sheets.sheet import Sheet
from fxmeter.annotators.symbolic import NotPolynomial
from fxmeter.models.errors import FxmeterError, TraceError
from fxmeter.models.stage_cost import EXACT

if TYPE_CHECKING:
    import sympy


class NoFormula(FxmeterError):  # noqa: N818  a finding, not a mistake
    """A stage whose costs have no closed form."""


@dataclass(frozen=True, slots=True)
class FormulaCase:
    """``formula`` holds in ``boxes``, whose union is everything (``otherwise``) for the last of complete cases."""

    formula: Node
    boxes: tuple[Box, ...]
    otherwise: bool


@dataclass(frozen=True, slots=True)
class Formulas:
    """Every figure of a stage in its sizes: field → cases, of which the first whose condition holds is right.

    ``module`` is the path of the module that they are of ("" the whole stage), of which ``times`` identical ones run.
    """

    sheet: Sheet
    model: str
    module: str
    class_name: str
    times: int
    writing: Writing
    whole: tuple[Box, ...]
    fields: Mapping[str, tuple[FormulaCase, ...]]

    @property
    def arguments(self) -> tuple[tuple[str, str], ...]:
        """(name, what it is) of the sizes that the formulas have."""
        if self.sheet.subject.stage == "vision":
            return (("B", "batch"), ("h", "rows of crops"), ("w", "columns of crops; h = w = 0 for none"))
        if self.sheet.subject.stage == "prefill":
            return (("B", "batch"), ("S_q", "tokens of the prompt"))
        return (("B", "batch"), ("C", "tokens cached before the new one, which attends to C + 1"))

    @property
    def title(self) -> str:
        """The model, the stage and its attention."""
        return f"{self.model}, {self.sheet.subject.stage}, {self.sheet.subject.attention}"

    def when(self, case: FormulaCase, language: Language) -> str | None:
        """The condition of a case; None where it needs none."""
        return None if case.otherwise else language.condition(case.boxes, self.whole, self.writing)


def pieces_of(sheet: Sheet, model: str = "") -> tuple[Piece, ...]:
    """The pieces that cover a stage as it is usually meant. Raises NoFormula where there are none."""
    try:
        return explore(sheet)
    except (NotPolynomial, TraceError) as error:
        subject = sheet.subject
        name = model or subject.model_class
        raise NoFormula(f"{name}, {subject.stage}, {subject.attention} has no formula: {error}") from None


def formulas(sheet: Sheet, *, model: str, module: Part = "") -> Formulas:
    """Arrange the closed form of a stage. Raises NoFormula where there is none, FxmeterError for an unknown module."""
    every = pieces_of(sheet, model)
    modules = every[0].modules
    path = module if isinstance(module, str) else ""
    if path not in modules:
        near = difflib.get_close_matches(path, list(modules), n=1)
        hint = f"; did you mean {near[0]}?" if near else "; `fxmeter report` lists its modules"
        raise FxmeterError(f"{model} has no module {path!r}{hint}")
    writing = Writing(sheet.subject.sizes, kv=sheet.stage == "decode")
    costs = [piece.cost_of(module) for piece in every]
    fields = {
        name: _arranged(cases_of(sheet.stage, every, [getattr(cost, name) for cost in costs]), writing)
        for name in EXACT
    }
    recorded = modules[path]
    whole = domain(sheet.stage)
    return Formulas(sheet, model, path, recorded.class_name, recorded.times, writing, whole, fields)


def _arranged(cases: Cases, writing: Writing) -> tuple[FormulaCase, ...]:
    last = len(cases.cases) - 1
    return tuple(
        FormulaCase(writing.tree(case.value), case.boxes, otherwise=cases.complete and index == last)
        for index, case in enumerate(cases.cases)
    )


def sympy_of(formulas: Formulas, cases: tuple[FormulaCase, ...]) -> str:
    """What ``sympy.sympify`` reads: one expression, ``Piecewise`` where there are cases."""
    if len(cases) == 1 and cases[0].otherwise:
        return SYMPY.write(cases[0].formula)
    parts = [f"({SYMPY.write(case.formula)}, {formulas.when(case, SYMPY) or 'true'})" for case in cases]
    return f"Piecewise({', '.join(parts)})"


def expressions_of(formulas: Formulas) -> Mapping[str, sympy.Expr]:
    """Every field as a sympy expression in sizes that are positive integers, or not negative where they can be 0."""
    import sympy  # takes a second, and nobody else needs it

    lower = zip(*(box.axes for box in formulas.whole), strict=True)
    least = [min(ranges[0][0] for ranges in axis) for axis in lower]
    symbols = {
        name: sympy.Symbol(name, integer=True, **({"positive": True} if low else {"nonnegative": True}))
        for name, low in zip(formulas.writing.names, least, strict=True)
    }
    return {name: sympy.sympify(sympy_of(formulas, cases), symbols) for name, cases in formulas.fields.items()}
