"""``fxmeter cache``: what was answered before, and forgetting it."""

from __future__ import annotations

import click

from fxmeter.annotators.cli.output import show
from fxmeter.annotators.sheets.kept.store import default_store
from fxmeter.annotators.units import quantity


@click.group(invoke_without_command=True, short_help="Where earlier answers are kept; `clear` removes them.")
@click.pass_context
def cache(context: click.Context) -> None:
    """Where `report`, `time`, `capacity`, `formula` and `sweep` keep what they worked out, and how much there is.

    An answer is found again by all that it follows from: the content of the config, the options, the versions of torch
    and transformers, and fxmeter's own code. FXMETER_CACHE_DIR names another folder; --no-cache of a command reads and
    writes none.

    \\b
    fxmeter cache
    fxmeter cache clear
    """
    if context.invoked_subcommand is None:
        store = default_store()
        entries = store.entries()
        size = quantity(sum(facts.st_size for _, facts in entries), "memory")
        from rich.text import Text

        answers = "1 answer" if len(entries) == 1 else f"{len(entries):,} answers"
        show(Text(f"{answers}, {size}\n{store.folder}", no_wrap=True, overflow="ignore"))


@cache.command(short_help="Remove every answer.")
def clear() -> None:
    """Remove every answer that was kept.

    \\b
    fxmeter cache clear
    """
    click.echo(f"{default_store().clear():,} answers removed")
