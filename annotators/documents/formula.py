"""Formulas as JSON, as LaTeX, and as Python to paste."""

from __future__ import annotations

import re
from dataclasses import asdict

from fxmeter.annotators.closed.formulas import FormulaCase, Formulas, sympy_of
from fxmeter.annotators.closed.languages import LATEX, PYTHON, SCREEN, SYMPY
from fxmeter.annotators.documents.head import head
from fxmeter.models.names import Document
from fxmeter.models.version import ANALYTIC_MODEL_VERSION, versions


def to_json(formulas: Formulas) -> Document:
    """Formulas as plain JSON data, schema version 2: for every field its cases in the order in which they are tried,
    and one sympy expression that has all of them."""
    subject = formulas.sheet.subject
    return {
        **head(),
        "model": formulas.model,
        "stage": subject.stage,
        "attention": subject.attention,
        "conventions": {**asdict(subject.conventions), **subject.deployment},
        "module": formulas.module,
        "class": formulas.class_name,
        "times": formulas.times,
        "symbols": dict(formulas.arguments),
        "fields": {name: _field_json(formulas, cases) for name, cases in formulas.fields.items()},
    }


def _field_json(formulas: Formulas, cases: tuple[FormulaCase, ...]) -> Document:
    return {
        "sympy": sympy_of(formulas, cases),
        "latex": latex_of(formulas, cases),
        "cases": [
            {
                "text": SCREEN.write(case.formula),
                "sympy": SYMPY.write(case.formula),
                "when": formulas.when(case, SCREEN),
                "condition": formulas.when(case, SYMPY) or "true",
            }
            for case in cases
        ],
    }


def latex_of(formulas: Formulas, cases: tuple[FormulaCase, ...]) -> str:
    """In LaTeX's mathematics, with amsmath's ``cases`` where there are cases."""
    if len(cases) == 1 and cases[0].otherwise:
        return LATEX.write(cases[0].formula)
    lines = []
    for case in cases:
        when = formulas.when(case, LATEX)
        lines.append(f"{LATEX.write(case.formula)} & " + (f"\\text{{if }} {when}" if when else "\\text{otherwise}"))
    return "\\begin{cases} " + " \\\\ ".join(lines) + " \\end{cases}"


def to_latex(formulas: Formulas) -> str:
    """Every field as a line of amsmath's ``align*``."""
    names = {name: name.replace("_", " ") for name in formulas.fields}
    lines = [f"  \\text{{{names[name]}}} &= {latex_of(formulas, cases)}" for name, cases in formulas.fields.items()]
    return f"% {formulas.title}\n\\begin{{align*}}\n" + " \\\\\n".join(lines) + "\n\\end{align*}\n"


def to_python(formulas: Formulas) -> str:
    """A function that needs nothing but Python: sizes to a dict with every field, exact integers of any size.

    It raises ValueError where no case is known to hold.
    """
    names = [name for name, _ in formulas.arguments]
    least = " or ".join(f"{name} < {0 if name in ('C', 'h', 'w') else 1}" for name in names)
    module = formulas.module or "the whole stage"
    chosen, asked = formulas.sheet.subject.conventions, formulas.sheet.subject.deployment
    lines = [
        f"def {_identifier(formulas)}({', '.join(f'{name}: int' for name in names)}) -> dict[str, int]:",
        f'    """{formulas.title}: {module}.',
        "",
        *(f"    {name}: {meaning}" for name, meaning in formulas.arguments),
        "",
        f"    {', '.join(chosen.words).capitalize()}; FLOPs, and bytes.",
        *([f"    {', '.join(f'{name} {word}' for name, word in asked.items())}."] if asked else []),
        f"    fxmeter {versions()['fxmeter']}, analytic model {ANALYTIC_MODEL_VERSION}.",
        '    """',
        f"    if {least}{' or (h == 0) != (w == 0)' if formulas.sheet.subject.stage == 'vision' else ''}:",
        '        raise ValueError("sizes out of range")',
    ]
    for name, cases in formulas.fields.items():
        lines += _python_field(formulas, name, cases)
    lines += ["    return {", *(f'        "{name}": {name},' for name in formulas.fields), "    }"]
    return "\n".join(lines) + "\n"


def _python_field(formulas: Formulas, name: str, cases: tuple[FormulaCase, ...]) -> list[str]:
    if len(cases) == 1 and cases[0].otherwise:
        return [f"    {name} = {PYTHON.write(cases[0].formula)}"]
    lines = []
    for index, case in enumerate(cases):
        when = formulas.when(case, PYTHON)
        head = "else:" if when is None else f"{'elif' if index else 'if'} {when}:"
        lines += [f"    {head}", f"        {name} = {PYTHON.write(case.formula)}"]
    if not cases[-1].otherwise:
        lines += ["    else:", f'        raise ValueError("no formula of {name} is known here")']
    return lines


def _identifier(formulas: Formulas) -> str:
    model = formulas.model.rstrip("/").rpartition("/")[2].removesuffix(".json")
    parts = [model, formulas.module, formulas.sheet.subject.stage, formulas.sheet.subject.attention]
    text = re.sub(r"\W+", "_", "_".join(part for part in parts if part)).strip("_").lower()
    return text if text[:1].isalpha() else f"cost_of_{text}"
