"""Reports on the console. No arithmetic but the choice of a unit."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.styled import Styled
from rich.text import Text

from fxmeter.annotators.sheets.tables import ReportedStage, StageTables
from fxmeter.annotators.studies.breakdown import cache_rows, heaviest_ops, module_tree
from fxmeter.annotators.studies.report import Column, Report, title_of
from fxmeter.annotators.units import four_digits, quantity
from fxmeter.annotators.views.console import Cell, FirstThatFits, Grid, in_parts, names, numbers, short_op
from fxmeter.annotators.views.reports.peak import peak_view
from fxmeter.annotators.views.reports.shared import pipeline_grid, replicated_line, shared_grid
from fxmeter.annotators.views.reports.times import (
    MODULE,
    cost_in_words,
    efficiency_lines,
    in_words,
    timed_modules,
    timed_ops,
    times_grid,
)
from fxmeter.annotators.views.words import Line
from fxmeter.models.choices import OpsBy
from fxmeter.models.figures import Figure, shown
from fxmeter.models.model_info import ModelInfo
from fxmeter.models.scenario import Scenario
from fxmeter.models.stage_cost import FIGURES, PASS_FIGURES
from fxmeter.models.version import versions


def report_view(
    report: Report, *, depth: int, ops: int, by: OpsBy | None = None, at_peak: bool = False
) -> RenderableType:
    """The whole report, for a terminal of any width or a file. With ``at_peak``, what is alive there too. ``by`` ranks
    the ops; None: by time where there is a device, by bytes in decode, by FLOPs else."""
    detailed = report.one_per_scenario
    parts: list[RenderableType] = [*_answers(report), *_header(report), "", _stage_tables(report.columns)]
    for shared in report.shared:
        parts += ["", shared_grid(shared), replicated_line(shared)]
    for pipeline in report.pipelines:
        parts += ["", pipeline_grid(pipeline)]
    if report.timings:
        parts += [
            "",
            times_grid(report.timings),
            *(Line(line, style="dim") for line in efficiency_lines(report.timings)),
        ]
    for stage in detailed:
        timings = report.timings_of(stage)
        parts += ["", tree_grid(stage, depth)]
        for timing in timings:
            parts += ["", timed_modules(timing, depth)]
        if ops and timings and by in (None, "time"):
            for timing in timings:
                parts += ["", timed_ops(timing, ops)]
        elif ops:
            parts += ["", heaviest_grid(stage, ops, by)]
    if at_peak:
        for stage in report.stages:
            parts += ["", peak_view(stage)]
        for attention, stage in report.fullest_stages.items():
            parts += ["", f"End to end, {attention}: the peak is that of {title_of(stage)}."]
    if any(stage.kv_cache for stage in detailed):
        parts += ["", _cache(detailed)]
    parts += ["", _uncosted(report)]
    return Group(*parts)


def _answers(report: Report) -> list[RenderableType]:
    """What each scenario costs, on devices what binds it and how long it takes, in words."""
    lines = []
    for stage in report.one_per_scenario:
        lines += list(map(in_words, report.timings_of(stage))) or [cost_in_words(stage)]
    return [*(Line(line, style="bold") for line in lines), ""]


def _header(report: Report) -> list[Text | Line]:
    model = report.model
    experts = f" · experts {model.experts_implementation}" if model.experts_implementation else ""
    resident = quantity(model.weight_bytes, "memory")
    active = f", {model.active_parameters:,} active" if model.active_parameters not in (None, model.parameters) else ""
    vision = f"; {model.vision_parameters:,} more in the vision tower" if model.vision_parameters else ""
    count = model.further_layers
    further = f" and {count} that predict{'s' * (count == 1)} further tokens" if count else ""
    stored = f"; {model.checkpoint_bytes:,} bytes in the checkpoint" if count else ""
    return [
        Text.assemble(
            (model.name, "bold"), f"  {model.model_type}, {model.layers} layers{further}{_KINDS[model.kind]}"
        ),
        Line(f"{model.parameters:,} parameters{active}, {resident} in {model.weights}{stored}{vision}"),
        *(Line(line, style="yellow") for line in _not_priced(model)),
        Line(
            f"2 FLOP/MAC · {' · '.join(report.conventions.words)}{experts} · cache in place{_deployed(model)}",
            style="dim",
        ),
        *(Line(f"assumed: {assumed}", style="dim") for assumed in report.assumptions),
        Line(" · ".join(f"{name}\N{NO-BREAK SPACE}{number}" for name, number in versions().items()), style="dim"),
        *(Line(f"warning: {warning}", style="yellow") for warning in report.warnings),
        *(Line(line, style="yellow") for line in _drafted(report)),
        *([Line(_served(report), style="yellow")] if report.served else []),
    ]


def _drafted(report: Report) -> list[str]:
    """What a step that checks drafted tokens is expected to give, and what is no part of it."""
    drafting = [stage for stage in report.one_per_scenario if getattr(stage.scenario, "acceptance", None) is not None]
    return [
        f"{title_of(stage)}: {four_digits(stage.scenario.tokens_per_step)} tokens expected of a step at acceptance "
        f"{stage.scenario.acceptance:g}{'' if report.model.further_layers else '; what drafts them is not priced'}"
        for stage in drafting
        if isinstance(stage.scenario, Scenario)
    ]


def _served(report: Report) -> str:
    """What an engine's kernels would change, in one line."""
    parts = [
        f"{title_of(item)}: {FIGURES[item.figure].label} {quantity(item.serving, FIGURES[item.figure].unit)} "
        f"instead of {quantity(item.transformers, FIGURES[item.figure].unit)}"
        for item in report.served
    ]
    return f"with an engine's kernels (--kernels serving), {'; '.join(parts)}"


_KINDS = {
    "decoder": "",
    "encoder": ", an encoder: one pass over all tokens, no cache",
    "encoder-decoder": " of encoder and decoder",
}


def _deployed(model: ModelInfo) -> str:
    """What differs from what transformers executes on its own."""
    stored = f" in {model.kv}" if model.kv != model.dtype else ""
    stored += "" if model.page_size is None else f" in pages of {model.page_size} tokens"
    kernels = f" · {model.kernels} kernels" if model.kernels != "transformers" else ""
    sizes = "".join(f" · {name} {size}" for name, size in model.sharding.items())
    return f"{stored}{kernels}{sizes}{' (batch of each group)' if 'dp' in model.sharding else ''}"


def _not_priced(model: ModelInfo) -> list[str]:
    """What the checkpoint holds beside what is priced, and what an engine adds to its products."""
    lines = []
    if model.left_out:
        counts = [f"{part.parameters:,} parameters" if part.parameters else "not counted" for part in model.left_out]
        named = ", ".join(f"{part.name} ({count})" for part, count in zip(model.left_out, counts, strict=True))
        lines.append(f"left out: {named}")
    if model.adds:
        lines.append(f"not priced: {'; '.join(model.adds)}")
    return lines


def _stage_tables(columns: Sequence[Column]) -> RenderableType:
    """One table; where that is too wide one for each attention, then tables of ever fewer columns."""
    groups = [[c for c in columns if c.attention == kind] for kind in dict.fromkeys(c.attention for c in columns)]
    ways = [[_stage_table("Cost by stage", columns, attention=True)]]
    ways += [
        [
            _stage_table(f"Cost by stage, {part[0].attention}", part)
            for group in groups
            for part in in_parts(group, count)
        ]
        for count in range(1, max(map(len, groups)) + 1)
    ]
    return FirstThatFits(ways)


def _stage_table(title: str, columns: Sequence[Column], *, attention: bool = False) -> Grid:
    rows: list[list[Cell]] = []
    styles = []
    for figure in shown(FIGURES, PASS_FIGURES):
        if figure.hidden_at_zero and not any(column.value(figure) for column in columns):
            continue
        if figure.if_other and all(column.says_no_more(figure) for column in columns):
            continue
        rows.append([_row_label(figure), *(quantity(column.value(figure), figure.unit) for column in columns)])
        styles.append("" if figure.under else "bold")
        if figure.share_of is not None:
            label = f"  of the {FIGURES[figure.share_of].label}"
            rows.append([label, *(quantity(column.share(figure), "share") for column in columns)])
            styles.append("")
    headings = [f"{column.title}\n{column.attention}" if attention else column.title for column in columns]
    return Grid(title, [*names(""), *numbers(*headings)], rows, styles)


def _row_label(figure: Figure) -> str:
    """A part's name, indented, without its whole's."""
    return figure.label if figure.under is None else "  " + figure.label.removesuffix(f" {FIGURES[figure.under].label}")


def tree_grid(stage: StageTables, depth: int) -> Grid:
    """The module tree, by FLOPs and bytes."""
    tree = module_tree(stage, depth)
    rows: list[list[Cell]] = [
        [
            Padding(row.label, (0, 0, 0, 2 * row.depth)),
            quantity(row.cost.flops, "flop"),
            row.flops_share,
            quantity(row.cost.io_bytes, "byte"),
            row.io_share,
            quantity(row.cost.activation_bytes, "memory"),
        ]
        for row in tree
    ]
    return Grid(
        f"Modules: {title_of(stage)}, {stage.attention}",
        [
            *names(MODULE),
            *numbers("FLOPs"),
            ("share", "share"),
            *numbers("I/O"),
            ("share", "share"),
            *numbers("activations"),
        ],
        rows,
        ["" if row.depth else "bold" for row in tree],
    )


def usual_order(stage: StageTables, asked: OpsBy | None) -> str:
    """The figure by which ops are ranked: the one asked for, else bytes in decode and FLOPs in any other stage."""
    usual = "bytes" if stage.scenario is not None and stage.scenario.stage == "decode" else "flops"
    return "io_bytes" if (asked or usual) == "bytes" else "flops"


def heaviest_grid(stage: ReportedStage, count: int, asked: OpsBy | None) -> Grid:
    """The ops that cost most."""
    by = usual_order(stage, asked)
    what = "bytes" if by == "io_bytes" else "FLOPs"
    rows: list[list[Cell]] = [
        [
            short_op(item.op),
            item.where,
            item.shapes,
            str(item.count),
            quantity(getattr(item.cost, by), FIGURES[by].unit),
            item.share,
        ]
        for item in heaviest_ops(stage, count, by)
    ]
    title = f"Heaviest ops by {'bytes moved' if by == 'io_bytes' else what}: {title_of(stage)}, {stage.attention}"
    return Grid(title, [*names("op", "in", "shapes"), *numbers("×", what), ("share", "share")], rows)


def _cache(stages: Sequence[ReportedStage]) -> Grid:
    """The cache after each scenario's pass, identical layers on one line."""
    rows = [
        [
            title_of(stage),
            row.layers,
            row.kept,
            "\n".join(f"{'×'.join(map(str, shape))} {names}".rstrip() for names, shape in row.tensors),
            quantity(row.layer_bytes, "memory"),
            quantity(row.bytes, "memory"),
        ]
        for stage in stages
        for row in cache_rows(stage)
    ]
    columns = [*names("after", "layers", "each keeps", "tensors"), *numbers("one layer", "all")]
    return Grid("KV cache after the pass", columns, rows)


def _uncosted(report: Report) -> RenderableType:
    if not report.uncosted:
        return Line(f"Every op was costed: {report.executions:,} executions, none without a rule.", style="green")
    rows = [
        [item.op, str(item.count), item.module or "(root)", item.shapes, f"{title_of(stage)} {stage.attention}"]
        for stage in report.stages
        for item in stage.uncosted
    ]
    columns = [*names("op"), *numbers("×"), *names("module", "shapes", "in")]
    title = "Ops without a rule: their FLOPs are missing from every figure above"
    return Padding(Styled(Grid(title, columns, rows), "red"), (1, 0, 0, 0))
