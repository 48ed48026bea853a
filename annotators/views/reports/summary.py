"""A stage in a few lines. No arithmetic but the choice of a unit."""

from __future__ import annotations

from fxmeter.annotators.sheets.tables import StageTables
from fxmeter.annotators.studies.breakdown import largest_parts
from fxmeter.annotators.studies.report import title_of
from fxmeter.annotators.units import quantity
from fxmeter.models.figures import shown
from fxmeter.models.stage_cost import ALL_FIGURES, FIGURES, PASS_FIGURES


def summary_lines(stage: StageTables) -> list[tuple[str, str]]:
    """Label and value of the figures that are part of no other one, and of what is not known."""
    lines = []
    for figure in shown(FIGURES, PASS_FIGURES):
        value = stage.value(figure.name)
        if figure.under is None and not (figure.hidden_at_zero and not value):
            lines.append((figure.label, quantity(value, figure.unit)))
    missing = sum(item.count for item in stage.uncosted)
    return [*lines, ("ops without a rule", f"{missing:,}, whose FLOPs are missing")] if missing else lines


def summary_text(stage: StageTables) -> str:
    """The same as text: the model's class and the pass, then a line for each figure."""
    lines = summary_lines(stage)
    names, values = (max(len(line[side]) for line in lines) for side in (0, 1))
    root = stage.modules[""].class_name
    body = (f"  {label:{names}}  {value:>{values}}" for label, value in lines)
    return "\n".join([f"{root}: {title_of(stage)}, {stage.attention}", *body])


def figure_lines(stage: StageTables, name: str, most: int = 5) -> list[str]:
    """What a stage has of a figure, and the modules whose own code has most of it."""
    figure = ALL_FIGURES[name]
    lines = [f"{title_of(stage)}, {stage.attention}: {quantity(stage.value(name), figure.unit)}"]
    if name in PASS_FIGURES or not figure.whole:
        return lines
    return [
        *lines,
        *(
            f"  {quantity(part.amount, figure.unit)} in {part.where}, {part.class_name}"
            for part in largest_parts(stage, name, most)
        ),
    ]
