"""What is alive at a stage's peak, as a table. No arithmetic but the choice of a unit."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from fxmeter.annotators.sheets.tables import ReportedStage
from fxmeter.annotators.studies.report import title_of
from fxmeter.annotators.units import quantity
from fxmeter.annotators.views.console import Grid, Heading, names, numbers, short_op
from fxmeter.annotators.views.words import Line


def peak_view(stage: ReportedStage) -> RenderableType:
    """What is alive at a stage's peak, the largest first."""
    peak = stage.at_peak
    title = f"Alive at the peak: {title_of(stage)}, {stage.attention}"
    if peak is None:
        return Text.assemble((title, "bold"), ": nothing, the pass makes no tensor")
    rows = [
        [
            row.module or "(root)",
            short_op(row.op),
            "×".join(map(str, row.shape)) or "scalar",
            row.dtype,
            str(row.count),
            quantity(row.bytes, "memory"),
            quantity(row.share, "share"),
        ]
        for row in peak.rows
    ]
    rows.append(["peak alive", "", "", "", str(peak.count), quantity(peak.bytes, "memory"), quantity(1.0, "share")])
    columns: list[Heading] = [*names("made in", "by", "shape", "dtype"), *numbers("×", "bytes"), ("share", "spare")]
    step = "" if peak.past_len is None else f", in the step with C={peak.past_len}"
    where = f"while {short_op(peak.op)} runs in {peak.module or '(root)'} (node {peak.node}{step})"
    styles = [*("" for _ in peak.rows), "bold"]
    return Group(Grid(title, columns, rows, styles, total=True), Line(where, style="dim"))
