"""Presets on the console. No arithmetic but the choice of a unit."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType

from fxmeter.annotators.units import quantity, size_as_typed
from fxmeter.annotators.views.console import Cell, FirstThatFits, Grid, names, numbers
from fxmeter.annotators.views.words import Line
from fxmeter.models.catalogue import Listed

LEGEND = (
    "active: what decoding one token reads, all experts where transformers runs all. KV a token: of a cache that has "
    "the whole context, windows and states spread over it. Wider terminals show format and source too; --json has all."
)
_OPTIONAL = 2


def catalogue_view(listed: Sequence[Listed]) -> RenderableType:
    """All presets, a line each; the last columns go where there is no room for them."""
    rows: list[list[Cell]] = [
        [
            item.name,
            str(item.layers),
            "–" if item.experts is None else f"{item.experts[1]} of {item.experts[0]}",
            quantity(item.parameters, "parameter"),
            quantity(item.active_parameters, "parameter"),
            "–" if item.context is None else size_as_typed(item.context),
            "–" if item.kv_bytes_per_token is None else quantity(item.kv_bytes_per_token, "memory"),
            item.format,
            item.source.removesuffix(" config.json (Hugging Face Hub)"),
        ]
        for item in listed
    ]
    columns = [
        *names("preset"),
        *numbers("layers", "experts", "params", "active", "context", "KV a\ntoken"),
        *names("format", "config.json of"),
    ]
    ways = [[Grid("", columns[:kept], [row[:kept] for row in rows])] for kept in _widths(len(columns))]
    return Group(FirstThatFits(ways), "", Line(LEGEND, style="dim"))


def _widths(columns: int) -> range:
    """How many columns there may be, the most first."""
    return range(columns, columns - _OPTIONAL - 1, -1)
