"""The formulas of a stage, or of one module in it, for people and for programs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fxmeter.annotators.closed.arrange import Node, Writing
from fxmeter.annotators.closed.cases import Box, Cases, cases_of, domain
from fxmeter.annotators.closed.form import ClosedForm, Piece
from fxmeter.annotators.closed.languages import LATEX, PYTHON, SCREEN, SYMPY, Language
from fxmeter.annotators.shapes.region import NotPolynomial
from fxmeter.annotators.studies.report import versions
from fxmeter.models.errors import FxmeterError
from fxmeter.models.stage_cost import EXACT
from fxmeter.models.version import ANALYTIC_MODEL_VERSION

SCHEMA_VERSION = 1


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

    form: ClosedForm
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
        if self.form.stage == "vision":
            return (("B", "batch"), ("h", "rows of crops"), ("w", "columns of crops; h = w = 0 for none"))
        if self.form.stage == "prefill":
            return (("B", "batch"), ("S_q", "tokens of the prompt"))
        return (("B", "batch"), ("C", "tokens cached before the new one, which attends to C + 1"))

    @property
    def title(self) -> str:
        """The model, the stage and its attention."""
        return f"{self.model}, {self.form.stage}, {self.form.attention}"

    def when(self, case: FormulaCase, language: Language) -> str | None:
        """The condition of a case; None where it needs none."""
        return None if case.otherwise else language.condition(case.boxes, self.whole, self.writing)


def formulas(form: ClosedForm, *, model: str, module: str = "") -> Formulas:
    """Arrange the closed form of a stage. Raises NoFormula where there is none, ModelError for an unknown module."""
    try:
        pieces = form.default_pieces()
    except NotPolynomial as error:
        reason = form.reason or str(error)
        raise NoFormula(f"{model}, {form.stage}, {form.attention} has no formula: {reason}") from None
    forms = form.modules
    try:
        chosen = forms[module]
    except KeyError:
        near = difflib.get_close_matches(module, list(forms), n=1)
        hint = f"; did you mean {near[0]}?" if near else "; `fxmeter report` lists its modules"
        raise FxmeterError(f"{model} has no module {module!r}{hint}") from None
    writing = Writing(form.symbols, kv=form.stage == "decode")
    costs = [chosen.of(piece) for piece in pieces]
    found = {
        name: _arranged(cases_of(form, pieces, [getattr(cost, name) for cost in costs]), writing) for name in EXACT
    }
    recorded = _module(pieces[0], module)
    return Formulas(form, model, module, recorded.class_name, recorded.times, writing, domain(form), found)


def _module(piece: Piece, path: str) -> Any:
    from fxmeter.annotators.stages.rollup import ModuleCosts

    return ModuleCosts(piece.modules, piece.region.recording.folds())[path]


def _arranged(cases: Cases, writing: Writing) -> tuple[FormulaCase, ...]:
    last = len(cases.cases) - 1
    return tuple(
        FormulaCase(writing.tree(case.value), case.boxes, otherwise=cases.complete and index == last)
        for index, case in enumerate(cases.cases)
    )


def to_json(found: Formulas) -> dict[str, Any]:
    """Formulas as plain JSON data, schema version 1: for every field its cases in the order in which they are tried,
    and one sympy expression that has all of them."""
    chosen = found.form.conventions
    return {
        "schema_version": SCHEMA_VERSION,
        "analytic_model_version": ANALYTIC_MODEL_VERSION,
        "versions": versions(),
        "model": found.model,
        "stage": found.form.stage,
        "attention": found.form.attention,
        "conventions": {"causal": chosen.causal, "logits": chosen.logits, "routing": chosen.routing},
        "module": found.module,
        "class": found.class_name,
        "times": found.times,
        "symbols": dict(found.arguments),
        "fields": {name: _field_json(found, cases) for name, cases in found.fields.items()},
    }


def _field_json(found: Formulas, cases: tuple[FormulaCase, ...]) -> dict[str, Any]:
    return {
        "sympy": sympy_of(found, cases),
        "latex": latex_of(found, cases),
        "cases": [
            {
                "text": SCREEN.write(case.formula),
                "sympy": SYMPY.write(case.formula),
                "when": found.when(case, SCREEN),
                "condition": found.when(case, SYMPY) or "true",
            }
            for case in cases
        ],
    }


def sympy_of(found: Formulas, cases: tuple[FormulaCase, ...]) -> str:
    """What ``sympy.sympify`` reads: one expression, ``Piecewise`` where there are cases."""
    if len(cases) == 1 and cases[0].otherwise:
        return SYMPY.write(cases[0].formula)
    parts = [f"({SYMPY.write(case.formula)}, {found.when(case, SYMPY) or 'true'})" for case in cases]
    return f"Piecewise({', '.join(parts)})"


def latex_of(found: Formulas, cases: tuple[FormulaCase, ...]) -> str:
    """In LaTeX's mathematics, with amsmath's ``cases`` where there are cases."""
    if len(cases) == 1 and cases[0].otherwise:
        return LATEX.write(cases[0].formula)
    lines = []
    for case in cases:
        when = found.when(case, LATEX)
        lines.append(f"{LATEX.write(case.formula)} & " + (f"\\text{{if }} {when}" if when else "\\text{otherwise}"))
    return "\\begin{cases} " + " \\\\ ".join(lines) + " \\end{cases}"


def to_latex(found: Formulas) -> str:
    """Every field as a line of amsmath's ``align*``."""
    lines = [
        f"  \\text{{{name.replace('_', ' ')}}} &= {latex_of(found, cases)}" for name, cases in found.fields.items()
    ]
    return f"% {found.title}\n\\begin{{align*}}\n" + " \\\\\n".join(lines) + "\n\\end{align*}\n"


def to_python(found: Formulas) -> str:
    """A function that needs nothing but Python: sizes to a dict with every field, exact integers of any size.

    It raises ValueError where no case is known to hold.
    """
    names = [name for name, _ in found.arguments]
    least = " or ".join(f"{name} < {0 if name in ('C', 'h', 'w') else 1}" for name in names)
    module = found.module or "the whole stage"
    chosen = found.form.conventions
    lines = [
        f"def {_identifier(found)}({', '.join(f'{name}: int' for name in names)}) -> dict[str, int]:",
        f'    """{found.title}: {module}.',
        "",
        *(f"    {name}: {meaning}" for name, meaning in found.arguments),
        "",
        f"    Causal {chosen.causal}, logits {chosen.logits}, routing {chosen.routing}; FLOPs, and bytes.",
        f"    fxmeter {versions()['fxmeter']}, analytic model {ANALYTIC_MODEL_VERSION}.",
        '    """',
        f"    if {least}{' or (h == 0) != (w == 0)' if found.form.stage == 'vision' else ''}:",
        '        raise ValueError("sizes out of range")',
    ]
    for name, cases in found.fields.items():
        lines += _python_field(found, name, cases)
    lines += ["    return {", *(f'        "{name}": {name},' for name in found.fields), "    }"]
    return "\n".join(lines) + "\n"


def _python_field(found: Formulas, name: str, cases: tuple[FormulaCase, ...]) -> list[str]:
    if len(cases) == 1 and cases[0].otherwise:
        return [f"    {name} = {PYTHON.write(cases[0].formula)}"]
    lines = []
    for index, case in enumerate(cases):
        when = found.when(case, PYTHON)
        head = "else:" if when is None else f"{'elif' if index else 'if'} {when}:"
        lines += [f"    {head}", f"        {name} = {PYTHON.write(case.formula)}"]
    if not cases[-1].otherwise:
        lines += ["    else:", f'        raise ValueError("no formula of {name} is known here")']
    return lines


def _identifier(found: Formulas) -> str:
    parts = [found.model.rstrip("/").rpartition("/")[2].removesuffix(".json"), found.module, found.form.stage]
    text = re.sub(r"\W+", "_", "_".join(part for part in [*parts, found.form.attention] if part)).strip("_").lower()
    return text if text[:1].isalpha() else f"cost_of_{text}"
