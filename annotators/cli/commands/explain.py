"""``fxmeter explain``: the words of reports."""

from __future__ import annotations

import click

from fxmeter.annotators.cli.output import show


@click.command(short_help="What a word of a report means.")
@click.argument("term", required=False)
def explain(term: str | None) -> None:
    """What TERM, a word of a report's header or tables, means; without TERM, all of them.

    \b
    fxmeter explain "peak alive"
    fxmeter explain routing
    fxmeter explain
    """
    from fxmeter.annotators.views.terms import term_text, terms_view
    from fxmeter.annotators.views.words import Line
    from fxmeter.models.terms import term as term_named

    show(terms_view() if term is None else Line(term_text(term_named(term))))
