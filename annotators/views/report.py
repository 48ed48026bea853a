"""Reports on the console. No arithmetic but the choice of a unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fxmeter.annotators.documents.head import conventions_of, versions
from fxmeter.annotators.stages.peak import at_peak as peak_of
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.annotators.studies.report import Column, Report, title_of
from fxmeter.annotators.units import quantity
from fxmeter.annotators.views.console import plain_table
from fxmeter.annotators.views.tables import cache_rows, heaviest_ops, module_tree
from fxmeter.models.figures import Figure, shown
from fxmeter.models.stage_cost import FIGURES, PASS_FIGURES

_BLOCKS = " ▏▎▍▌▋▊▉█"
_BAR = 5
_PATH = 34


def share_bar(share: float, width: int = _BAR) -> Text:
    """A share of the total as a bar and a percentage."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    bar = ("█" * full + (_BLOCKS[rest] if rest else "")).ljust(width)
    percent = f"{share:4.0%}" if share >= 0.0995 else f"{share:4.1%}"
    return Text.assemble((bar, "cyan"), " ", percent)


def report_view(report: Report, *, depth: int, ops: int, at_peak: bool = False) -> RenderableType:
    """The whole report, for a terminal of 100 columns or a file. With ``at_peak``, what is alive there too."""
    shown = _stages_shown(report.stages)
    parts: list[RenderableType] = [_header(report)]
    for table in _stage_tables(report.columns):
        parts += ["", table]
    for stage in shown:
        parts += ["", _tree(stage, depth)]
        parts += ["", _heaviest(stage, ops)] if ops else []
    if at_peak:
        for stage in report.stages:
            parts += ["", _peak(stage)]
        for attention, stage in report.fullest_stages.items():
            parts += ["", f"End to end, {attention}: the peak is that of {title_of(stage)}."]
    if any(stage.kv_cache for stage in shown):
        parts += ["", _cache(report.stages)]
    parts += ["", _uncosted(report)]
    return Group(*parts)


def _stages_shown(stages: Sequence[AnnotatedStage]) -> list[AnnotatedStage]:
    """One per scenario for the detailed tables: flash where there is a choice."""
    chosen: dict[Any, AnnotatedStage] = {}
    for stage in stages:
        if stage.scenario not in chosen or stage.attention == "flash":
            chosen[stage.scenario] = stage
    return list(chosen.values())


def _header(report: Report) -> RenderableType:
    model = report.model
    kinds = conventions_of(model, report.conventions)
    experts = f" · experts {kinds['experts_implementation']}" if kinds["experts_implementation"] else ""
    resident = quantity(model.weight_bytes, "memory")
    active = f", {model.active_parameters:,} active" if model.active_parameters is not None else ""
    vision = f"; {model.vision_parameters:,} more in the vision tower" if model.vision_parameters else ""
    lines = [
        Text.assemble((model.name, "bold"), f"  {model.model_type}, {model.layers} layers"),
        Text(f"{model.parameters:,} parameters{active}, {resident} in {model.dtype}{vision}"),
        Text(
            f"2 FLOP/MAC · causal {kinds['causal']} · logits {kinds['logits']} · routing {kinds['routing']}"
            f"{experts} · cache {kinds['cache_layout']}",
            style="dim",
        ),
        Text(" · ".join(f"{name} {number}" for name, number in versions().items()), style="dim"),
    ]
    return Group(*lines)


def _stage_tables(columns: Sequence[Column]) -> list[Table]:
    """One table; where it would be too wide, one for each attention."""
    kinds = list(dict.fromkeys(column.attention for column in columns))
    if len(columns) <= 4 or len(kinds) == 1:
        return [_stage_table("Cost by stage", columns)]
    return [_stage_table(f"Cost by stage, {kind}", [c for c in columns if c.attention == kind]) for kind in kinds]


def _stage_table(title: str, columns: Sequence[Column]) -> Table:
    table = plain_table(title=title)
    table.add_column("", no_wrap=True)
    for column in columns:
        heading = f"{column.title}\n{column.attention}" if len(columns) <= 4 else column.title.replace(" ", "\n", 1)
        table.add_column(heading, justify="right", no_wrap=True)
    for figure in shown(FIGURES, PASS_FIGURES):
        values = [quantity(column.value(figure), figure.unit) for column in columns]
        table.add_row(_row_label(figure), *values, style="" if figure.under else "bold")
        if figure.share_of is not None:
            shares = [quantity(column.share(figure), "share") for column in columns]
            table.add_row(f"  of the {FIGURES[figure.share_of].label}", *shares)
    return table


def _row_label(figure: Figure) -> str:
    """A part's name, indented, without its whole's."""
    return figure.label if figure.under is None else "  " + figure.label.removesuffix(f" {FIGURES[figure.under].label}")


def _tree(stage: AnnotatedStage, depth: int) -> Table:
    table = plain_table(title=f"Modules: {title_of(stage)}, {stage.attention}")
    table.add_column("a folded line has all its layers", no_wrap=True, overflow="ellipsis", header_style="dim")
    table.add_column("FLOPs", justify="right", no_wrap=True)
    table.add_column("share", no_wrap=True)
    table.add_column("I/O", justify="right", no_wrap=True)
    table.add_column("share", no_wrap=True)
    table.add_column("activations", justify="right", no_wrap=True)
    for row in module_tree(stage, depth):
        table.add_row(
            "  " * row.depth + row.label,
            quantity(row.cost.flops, "flop"),
            share_bar(_share(row.cost.flops, stage.cost.flops)),
            quantity(row.cost.io_bytes, "byte"),
            share_bar(_share(row.cost.io_bytes, stage.cost.io_bytes)),
            quantity(row.cost.activation_bytes, "memory"),
            style="bold" if row.depth == 0 else "",
        )
    return table


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _heaviest(stage: AnnotatedStage, count: int) -> Table:
    decode = stage.scenario is not None and stage.scenario.stage == "decode"
    by, what = ("io_bytes", "bytes moved") if decode else ("flops", "FLOPs")
    kind = FIGURES[by].unit
    table = plain_table(title=f"Heaviest ops by {what}: {title_of(stage)}, {stage.attention}")
    table.add_column("op", no_wrap=True, overflow="ellipsis", max_width=15)
    table.add_column("in", no_wrap=True, overflow="ellipsis", max_width=20)
    table.add_column("shapes", no_wrap=True, overflow="ellipsis", max_width=27)
    table.add_column("×", justify="right", no_wrap=True, min_width=3)
    table.add_column("FLOPs" if kind == "flop" else "bytes", justify="right", no_wrap=True)
    table.add_column("share", no_wrap=True)
    for item in heaviest_ops(stage, count, by):
        amount = getattr(item.cost, by)
        share = share_bar(_share(amount, getattr(stage.cost, by)))
        table.add_row(_op(item.op), item.where, item.shapes, str(item.count), quantity(amount, kind), share)
    return table


def _peak(stage: AnnotatedStage) -> RenderableType:
    """What is alive at a stage's peak, the largest first."""
    found = peak_of(stage)
    title = f"Alive at the peak: {title_of(stage)}, {stage.attention}"
    if found is None:
        return Text.assemble((title, "bold"), ": nothing, the pass makes no tensor")
    step = "" if found.past_len is None else f", in the step with C={found.past_len}"
    table = plain_table(title=title)
    table.collapse_padding = True
    table.add_column("made in", no_wrap=True)
    table.add_column("by", no_wrap=True, overflow="ellipsis", max_width=12)
    table.add_column("shape", no_wrap=True, overflow="ellipsis", max_width=17)
    table.add_column("dtype", no_wrap=True)
    table.add_column("×", justify="right", no_wrap=True, min_width=2)
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True, min_width=6)
    for row in found.rows:
        shape = "×".join(map(str, row.shape)) or "scalar"
        sizes = [quantity(row.bytes, "memory"), quantity(row.share, "share")]
        table.add_row(_end_of(row.module), _op(row.op), shape, row.dtype, str(row.count), *sizes)
    table.add_section()
    total = quantity(found.bytes, "memory")
    table.add_row("peak alive", "", "", "", str(found.count), total, quantity(1.0, "share"), style="bold")
    where = f"while {_op(found.op)} runs in {found.module or '(root)'} (node {found.node}{step})"
    return Group(table, Text(where, style="dim"))


def _end_of(path: str) -> str:
    """As much of a module's path as a column has place for: its end says most."""
    return path or "(root)" if len(path) <= _PATH else f"…{path[1 - _PATH :]}"


def _op(name: str) -> str:
    """An op's name without what every op has."""
    return name.removeprefix("aten.").removeprefix("fxmeter.").removesuffix(".default")


def _cache(stages: Sequence[AnnotatedStage]) -> Table:
    """The cache after each scenario's pass, identical layers on one line."""
    table = plain_table(title="KV cache after the pass")
    table.add_column("after", no_wrap=True)
    table.add_column("layers", overflow="fold", max_width=16)
    table.add_column("each keeps", overflow="fold", max_width=11)
    table.add_column("tensors", overflow="fold")
    table.add_column("one layer", justify="right", no_wrap=True)
    table.add_column("all", justify="right", no_wrap=True)
    for stage in _stages_shown(stages):
        for row in cache_rows(stage):
            lines = [f"{'×'.join(map(str, shape))} {names}".rstrip() for names, shape in row.tensors]
            sizes = [quantity(size, "memory") for size in (row.layer_bytes, row.bytes)]
            table.add_row(title_of(stage), row.layers, row.kept, "\n".join(lines), *sizes)
    return table


def _uncosted(report: Report) -> RenderableType:
    if not report.uncosted:
        count = sum(op.count for stage in report.stages for op in stage.ops if not op.op.startswith("("))
        return Text(f"Every op was costed: {count:,} executions, none without a rule.", style="green")
    table = plain_table(title="[red]Ops without a rule: their FLOPs are missing from every figure above")
    for name in ("op", "×", "module", "shapes", "in"):
        table.add_column(name, style="red", overflow="fold")
    for stage in report.stages:
        for item in stage.uncosted:
            table.add_row(
                item.op,
                str(item.count),
                item.module or "(root)",
                item.shapes,
                f"{title_of(stage)} {stage.attention}",
            )
    return Padding(table, (1, 0, 0, 0))
