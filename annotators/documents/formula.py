"""Formulas as JSON, as LaTeX, and as Python to paste."""

from __future__ import annotations

import re
from typing import Any

from fxmeter.annotators.closed.formulas import FormulaCase, Formulas, sympy_of
from fxmeter.annotators.closed.languages import LATEX, PYTHON, SCREEN, SYMPY
from fxmeter.annotators.documents.head import head, versions
from fxmeter.models.version import ANALYTIC_MODEL_VERSION


def to_json(found: Formulas) -> dict[str, Any]:
    """Formulas as plain JSON data, schema version 1: for every field its cases in the order in which they are tried,
    and one sympy expression that has all of them."""
    chosen = found.pieces.conventions
    return {
        **head(),
        "model": found.model,
        "stage": found.pieces.stage,
        "attention": found.pieces.attention,
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
    chosen = found.pieces.conventions
    lines = [
        f"def {_identifier(found)}({', '.join(f'{name}: int' for name in names)}) -> dict[str, int]:",
        f'    """{found.title}: {module}.',
        "",
        *(f"    {name}: {meaning}" for name, meaning in found.arguments),
        "",
        f"    Causal {chosen.causal}, logits {chosen.logits}, routing {chosen.routing}; FLOPs, and bytes.",
        f"    fxmeter {versions()['fxmeter']}, analytic model {ANALYTIC_MODEL_VERSION}.",
        '    """',
        f"    if {least}{' or (h == 0) != (w == 0)' if found.pieces.stage == 'vision' else ''}:",
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
    parts = [found.model.rstrip("/").rpartition("/")[2].removesuffix(".json"), found.module, found.pieces.stage]
    text = re.sub(r"\W+", "_", "_".join(part for part in [*parts, found.pieces.attention] if part)).strip("_").lower()
    return text if text[:1].isalpha() else f"cost_of_{text}"
