"""What ranks share, as a table for each stage. No arithmetic but the choice of a unit."""

from __future__ import annotations

from fxmeter.annotators.studies.comparing.compared import Pipelined, Shared
from fxmeter.annotators.studies.report import title_of
from fxmeter.annotators.units import duration, quantity
from fxmeter.annotators.views.console import Cell, Grid, names, numbers
from fxmeter.annotators.views.words import Line
from fxmeter.models.stage_cost import FIGURES

SHOWN = ("matmul_flops", "vector_flops", "weight_bytes", "kv_bytes", "weight_read_bytes", "kv_read_bytes")
MOST_NAMES = 8


def shared_grid(shared: Shared) -> Grid:
    """One device, one rank, all of them, and what of that several have alike."""
    rows: list[list[Cell]] = [
        [
            FIGURES[name].label,
            *(
                quantity(value, FIGURES[name].unit)
                for value in (
                    getattr(shared.one, name),
                    getattr(shared.cost, name),
                    getattr(shared.all, name),
                    shared.again(name),
                )
            ),
        ]
        for name in SHOWN
    ]
    columns = [*names(""), *numbers("one device", "a rank", f"all {shared.ranks}", "replicated")]
    return Grid(f"Shared by {shared.ranks} ranks: {title_of(shared)}, {shared.attention}", columns, rows)


def replicated_line(shared: Shared) -> Line:
    """Names of what every rank has whole."""
    found = shared.whole_parameters
    more = f" and {len(found) - MOST_NAMES} more" if len(found) > MOST_NAMES else ""
    return Line(f"replicated: {', '.join(found[:MOST_NAMES]) or 'no parameter'}{more}", style="dim")


def pipeline_grid(pipeline: Pipelined) -> Grid:
    """Each pipeline stage on a line."""
    rows: list[list[Cell]] = [
        [
            f"layers {part.first}-{part.last}",
            quantity(part.cost.flops, "flop"),
            quantity(part.cost.weight_bytes, "memory"),
            quantity(part.cost.kv_bytes, "memory"),
            quantity(part.cost.peak_activation_bytes, "memory"),
            quantity(part.sent_bytes, "byte"),
            *(duration(times[place].estimate_s) for times in pipeline.times.values()),
        ]
        for place, part in enumerate(pipeline.parts)
    ]
    columns = [*names(""), *numbers("FLOPs", "weights", "KV cache", "peak alive", "sent on", *pipeline.times)]
    title = f"{len(pipeline.parts)} pipeline stages: {title_of(pipeline)}, {pipeline.attention}"
    return Grid(title, columns, rows)
