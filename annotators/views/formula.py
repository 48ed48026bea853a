"""Formulas on the console. No arithmetic."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding

from fxmeter.annotators.closed.formulas import FormulaCase, Formulas
from fxmeter.annotators.closed.languages import SCREEN, abbreviated
from fxmeter.annotators.views.console import Cell, Grid, names
from fxmeter.annotators.views.words import Line
from fxmeter.models.stage_cost import FIGURES

MOST_TERMS = 4


def formula_view(found: Formulas) -> RenderableType:
    """A line for each field and case, what the letters stand for, and the conventions."""
    subject = found.sheet.subject
    module = f"{found.module or 'the whole stage'} ({found.class_name}"
    times = f", one of {found.times} alike" if found.times > 1 else ""
    rows: list[list[Cell]] = []
    styles = []
    for name, cases in found.fields.items():
        if FIGURES[name].if_other and cases == found.fields[FIGURES[name].under or name]:
            continue
        for index, case in enumerate(cases):
            rows.append([FIGURES[name].label if index == 0 else "", _line(case)])
            styles.append("")
            when = found.when(case, SCREEN)
            if len(cases) > 1 or when is not None:
                rows.append(["", Padding("otherwise" if when is None else f"if {when}", (0, 0, 0, 2))])
                styles.append("dim")
    letters = " · ".join(f"{name}: {meaning}" for name, meaning in found.arguments)
    return Group(
        Line(f"{found.title}  {module}{times})", style="bold"),
        Line(letters),
        Line(
            " · ".join(
                ["2 FLOP/MAC", *subject.conventions.words, *(f"{n} {w}" for n, w in subject.deployment.items())]
            ),
            style="dim",
        ),
        "",
        Grid("", names("FLOPs and bytes", ""), rows, styles),
    )


def _line(case: FormulaCase) -> str:
    formula, left_out = abbreviated(case.formula, MOST_TERMS)
    return SCREEN.write(formula) + (f"  and {left_out} more in the max (--json has all)" if left_out else "")
