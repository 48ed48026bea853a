"""Formulas on the console. No arithmetic."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from fxmeter.annotators.closed.formulas import FormulaCase, Formulas
from fxmeter.annotators.closed.languages import SCREEN, abbreviated
from fxmeter.annotators.views.console import plain_table
from fxmeter.annotators.views.words import Line
from fxmeter.models.stage_cost import FIGURES

MOST_TERMS = 4


def formula_view(found: Formulas) -> RenderableType:
    """A line for each field and case, what the letters stand for, and the conventions."""
    subject = found.sheet.subject
    module = f"{found.module or 'the whole stage'} ({found.class_name}"
    times = f", one of {found.times} alike" if found.times > 1 else ""
    table = plain_table()
    table.add_column("FLOPs and bytes", no_wrap=True)
    table.add_column("", overflow="fold")
    for name, cases in found.fields.items():
        if FIGURES[name].if_other and cases == found.fields[FIGURES[name].under or name]:
            continue
        for index, case in enumerate(cases):
            table.add_row(FIGURES[name].label if index == 0 else "", _line(found, case, len(cases) > 1))
    letters = " · ".join(f"{name}: {meaning}" for name, meaning in found.arguments)
    return Group(
        Text.assemble((found.title, "bold"), f"  {module}{times})"),
        Text(letters),
        Line(
            " · ".join(
                ["2 FLOP/MAC", *subject.conventions.words, *(f"{n} {w}" for n, w in subject.deployment.items())]
            ),
            style="dim",
        ),
        "",
        table,
    )


def _line(found: Formulas, case: FormulaCase, several: bool) -> Text:
    formula, left_out = abbreviated(case.formula, MOST_TERMS)
    text = Text(SCREEN.write(formula))
    if left_out:
        text.append(f"  and {left_out} more in the max (--json has all)", style="dim")
    when = found.when(case, SCREEN)
    if several or when is not None:
        text.append(f"\n  {'otherwise' if when is None else f'if {when}'}", style="dim")
    return text
