"""Terms in words: one, all of them, or all as a page of Markdown."""

from __future__ import annotations

from itertools import groupby

from rich.console import Group, RenderableType
from rich.text import Text

from fxmeter.annotators.views.console import Grid, names
from fxmeter.models.terms import TERMS, Term

_PAGE = """# Terms

Every word of a report's header and tables. `fxmeter explain TERM` prints one, `stage.explain(term)` says a stage's own
value with it. This page is written by `make terms` from `models/figures.py` and `models/terms.py`.
"""


def term_text(term: Term) -> str:
    """What a term means, its other names behind it."""
    also = f" (also: {', '.join(term.also)})" if term.also else ""
    return f"{term.name}: {term.means}{also}"


def terms_view() -> RenderableType:
    """All terms, a table for each group."""
    grids = [
        Grid(group, names("term", "what it means"), [[term.name, term.means] for term in terms])
        for group, terms in groupby(TERMS, lambda term: term.group)
    ]
    return Group(*(part for grid in grids for part in (grid, Text())))


def terms_markdown() -> str:
    """docs/terms.md."""
    parts = [_PAGE]
    for group, terms in groupby(TERMS, lambda term: term.group):
        rows = [f"| {_code(term.name)} | {term.means} | {', '.join(map(_code, term.also))} |" for term in terms]
        parts.append("\n".join([f"## {group}", "", "| term | what it means | also |", "|---|---|---|", *rows, ""]))
    return "\n".join(parts)


def _code(name: str) -> str:
    return f"`{name}`"
