"""What a sweep wrote, on the console. No arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from fxmeter.annotators.documents.head import in_words
from fxmeter.annotators.studies.comparing.ratios import Verdict
from fxmeter.annotators.studies.sweep import Sweep
from fxmeter.annotators.views.words import Line


def sweep_view(
    sweep: Sweep, run: int, folder: str, drawn: Sequence[str], verdicts: Sequence[Verdict], *, undrawn: int = 0
) -> RenderableType:
    """One line on the run, one for each file, and the sanity ratios if they were checked. ``undrawn`` families of
    curves have no plot."""
    count = f"  {len(sweep.points):,} points, {sweep.costs:,} stage costs, run {run}"
    kinds = f"dtype {sweep.model.dtype} · {in_words(sweep.model, sweep.conventions)}"
    parts: list[RenderableType] = [
        Text.assemble((sweep.model.name, "bold"), count, no_wrap=True, overflow="ignore"),
        Line(kinds, style="dim"),
        *([] if sweep.axes.chunk is None else [Line(f"prompts in chunks of {sweep.axes.chunk:,} tokens", style="dim")]),
        Text(f"in {folder}", no_wrap=True, overflow="ignore"),
        Line(f"  sweep.json, sweep.csv; sweep.sqlite with {'this run' if run == 1 else f'all {run} runs'}"),
    ]
    if drawn:
        parts.append(Line(f"  {drawn[0]} and {len(drawn) - 1} more"))
    if undrawn:
        parts.append(Line(f"  {undrawn} families of curves were too many to draw; the files have them", style="yellow"))
    parts += [Line(f"recorded point by point: {reason}", style="yellow") for reason in sweep.recorded]
    parts += [Line(f"warning: {warning}", style="yellow") for warning in sweep.warnings]
    if sweep.uncosted:
        parts.append(Line(f"{sweep.uncosted:,} op executions have no rule; their FLOPs are missing", style="red"))
    parts += [_verdict(verdict) for verdict in verdicts]
    return Group(*parts)


def _verdict(verdict: Verdict) -> Line:
    if verdict.broken:
        return Line(f"✗ {verdict.name}: {verdict.broken}", style="red")
    if verdict.skipped:
        return Line(f"- {verdict.name}: not applied; {verdict.skipped}", style="dim")
    return Line(f"✓ {verdict.name} ({verdict.compared:,} compared)")
