"""How plots look: 8-point type, colours that colour-blind readers tell apart (Okabe and Ito's), no dates in files."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure

COLUMN, PAGE = 3.5, 7.16
"""Widths in inches: one column, and the page, of a two-column paper."""

BLUE, ORANGE, GREEN, RED, SKY, PURPLE, GREY, YELLOW = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#999999", "#F0E442"
)  # fmt: skip
COLOURS = (BLUE, ORANGE, GREEN, RED, SKY, PURPLE, YELLOW)
LIGHT = "#d0d0d0"
STAGES = {"vision": GREEN, "encode": GREEN, "prefill": BLUE, "decode": RED}

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "legend.columnspacing": 1.2,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "lines.linewidth": 1.3,
    "svg.hashsalt": "fxmeter",
    "svg.fonttype": "path",
    "figure.dpi": 100,
    "savefig.dpi": 300,
}


def saved(figure: Figure, kind: str) -> bytes:
    """A file of it, "svg", "png" or "pdf", without its date."""
    dated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    out = io.BytesIO()
    figure.savefig(out, format=kind, metadata=dated.get(kind, {}))
    return out.getvalue()
