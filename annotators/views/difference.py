"""Differences as tables, for the console or as Markdown. No arithmetic but the choice of a unit."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding

from fxmeter.annotators.differences.difference import Difference, StageDifference
from fxmeter.annotators.differences.pairs import Pair
from fxmeter.annotators.differences.parts import SECONDS
from fxmeter.annotators.differences.rows import PartRow, part_rows
from fxmeter.annotators.units import Kind, four_digits, quantity
from fxmeter.annotators.views.console import Cell, Grid, Heading, markdown_table, names, numbers, short_op
from fxmeter.annotators.views.words import Line
from fxmeter.models.figures import shown
from fxmeter.models.stage_cost import FIGURES, PASS_FIGURES

_LABELS: dict[str, tuple[str, Kind]] = {
    **{figure.name: (figure.label, figure.unit) for figure in shown(FIGURES, PASS_FIGURES)},
    "kv_bytes_per_token": ("KV cache per token", "memory"),
    "bound_s": ("time, bound", "second"),
    SECONDS: ("time, estimate", "second"),
    "launch_s": ("of it launches", "second"),
}
_SIDES = numbers("before", "after", "change", "after / before")


def difference_view(difference: Difference, *, depth: int, ops: int) -> RenderableType:
    """The whole difference, for a terminal of any width or a file."""
    parts: list[RenderableType] = [Line(line, style="bold") for line in in_words(difference)]
    for grid in grids(difference, depth=depth, ops=ops):
        parts += ["", grid]
    return Group(*parts)


def difference_markdown(difference: Difference, *, depth: int, ops: int) -> str:
    """The same as Markdown."""
    tables = (markdown_table(grid) for grid in grids(difference, depth=depth, ops=ops))
    return "\n\n".join([*(f"**{line}**" for line in in_words(difference)), *tables]) + "\n"


def in_words(difference: Difference) -> list[str]:
    """What differs, a sentence for each stage."""
    if difference.same:
        return ["no figure differs"]
    lines = [_sentence(stage) for stage in difference.stages if not stage.same]
    return lines or ["no figure differs; what is said of the models does"]


def grids(difference: Difference, *, depth: int, ops: int) -> Iterator[Grid]:
    """The tables that have something to say."""
    told = [change for change in (*difference.facts, *difference.versions) if change.differs]
    if told:
        rows = [[change.name.replace("_", " "), _fact(change.before), _fact(change.after)] for change in told]
        yield Grid("What is compared", names("", "before", "after"), rows)
    for stage in difference.stages:
        if stage.same:
            continue
        yield _figures(stage)
        if tree := part_rows(stage, depth):
            yield _modules(stage, tree)
        if ops and stage.ops:
            yield _ops(stage, ops)


def _sentence(stage: StageDifference) -> str:
    if stage.parts is None:
        return f"only in the first: {stage.before}" if stage.before else f"only in the second: {stage.after}"
    changes = {change.name: change for change in stage.figures}
    told = [
        changes[name]
        for name in (stage.headline, "flops", "io_bytes", "kv_bytes_per_token", "weight_bytes")
        if name in changes
    ]
    said = [
        f"{_LABELS[change.name][0]} {_value(change.before, change.name)} → {_value(change.after, change.name)}"
        for change in dict.fromkeys(told)
        if change.differs
    ]
    shares = [(pair, stage.share(pair)) for pair in stage.heaviest(2) if pair.path]
    alike = len({_name(pair) for pair, _ in shares}) < len(shares)
    called = [pair.path if alike else _name(pair) for pair, _ in shares]
    parts = [
        name if share is None else f"{name} ({_percent(share)})"
        for name, (_, share) in zip(called, shares, strict=True)
    ]
    most = f"; of the change in {_LABELS[stage.headline][0]} most is in {' and '.join(parts)}" if parts else ""
    return f"{_sides(stage)}: {', '.join(said) or 'the same figures, of other parts'}{most}"


def _sides(stage: StageDifference) -> str:
    return stage.after if stage.before == stage.after else f"{stage.before} → {stage.after}"


def _figures(stage: StageDifference) -> Grid:
    rows: list[list[Cell]] = [
        [
            _LABELS[change.name][0],
            _value(change.before, change.name),
            _value(change.after, change.name),
            _signed(change.change, _LABELS[change.name][1]),
            "–" if change.ratio is None else four_digits(change.ratio),
        ]
        for change in sorted((c for c in stage.figures if c.name in _LABELS), key=lambda c: list(_LABELS).index(c.name))
        if change.differs
    ]
    return Grid(f"Figures that differ: {_sides(stage)}", [*names(""), *_SIDES], rows)


def _modules(stage: StageDifference, tree: list[PartRow]) -> Grid:
    label, unit = _LABELS[stage.headline]
    rows: list[list[Cell]] = [
        [
            Padding("itself" if row.itself else _title(row.pair), (0, 0, 0, 2 * row.depth)),
            quantity(row.before, unit),
            quantity(row.after, unit),
            _signed(row.change, unit),
            "–" if row.share is None else _percent(row.share),
        ]
        for row in tree
    ]
    columns: list[Heading] = [
        *names("modules of the same role"),
        *numbers("before", "after", "change", "of the change"),
    ]
    title = f"Where it changes, by {label}: {_sides(stage)}"
    return Grid(title, columns, rows, ["" if row.depth else "bold" for row in tree])


def _ops(stage: StageDifference, count: int) -> Grid:
    by = "io_bytes" if stage.headline == "io_bytes" else "flops"
    rows: list[list[Cell]] = [
        [
            short_op(op.op),
            f"{_plain(op.count.before)} → {_plain(op.count.after)}" if op.count.differs else _plain(op.count.after),
            _value(op.figures[by].before, by),
            _value(op.figures[by].after, by),
            _signed(op.figures[by].change, FIGURES[by].unit),
        ]
        for op in stage.heaviest_ops(count, by)
    ]
    return Grid(
        f"Ops that change most, by {FIGURES[by].label}: {_sides(stage)}",
        [*names("op"), *numbers("×", "before", "after", "change")],
        rows,
    )


def _title(pair: Pair) -> str:
    """Names, classes and counts, of both sides where they differ."""
    sides = [part for part in (pair.before, pair.after) if part is not None]
    classes = " → ".join(dict.fromkeys(part.class_name for part in sides))
    counts = " → ".join(dict.fromkeys(f"×{part.count}" for part in sides))
    only = "" if len(sides) == 2 else " only after" if pair.before is None else " only before"
    return f"{_name(pair)} {counts if counts != '×1' else ''} {classes}{only}".replace("  ", " ")


def _name(pair: Pair) -> str:
    return " → ".join(dict.fromkeys(part.name or "model" for part in (pair.before, pair.after) if part is not None))


def _percent(share: float) -> str:
    return f"{share:+.1%}".replace("-", "−")


def _value(value: object, name: str) -> str:
    return quantity(value, _LABELS[name][1]) if isinstance(value, int | float) else "–"


def _signed(change: float | None, unit: Kind) -> str:
    if change is None:
        return "–"
    return "0" if change == 0 else f"{'+' if change > 0 else '−'}{quantity(abs(change), unit)}"


def _fact(value: object) -> str:
    """A fact as it is, of a hash the first digits."""
    text = _plain(value)
    return text[:12] if re.fullmatch(r"[0-9a-f]{64}", text) else text


def _plain(value: object) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int | float) else str(value)
