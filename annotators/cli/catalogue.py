"""``fxmeter models`` and ``fxmeter ops``: what fxmeter knows by name."""

from __future__ import annotations

import click

from fxmeter.annotators.cli.output import progress, show
from fxmeter.annotators.cli.session import interrupted_afterwards
from fxmeter.models.errors import FxmeterError


@click.command(short_help="Every preset, with its size and source.")
def models() -> None:
    """Every preset, with its parameters and where its config comes from.

    \b
    fxmeter models
    """
    from fxmeter.annotators.views.console import plain_table
    from fxmeter.models.presets import preset, preset_names

    table = plain_table()
    table.add_column("preset", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("source", overflow="fold")
    for name in preset_names():
        item = preset(name)
        table.add_row(name, f"{item.parameters:,}", item.source)
    show(table)


@click.command(name="ops", short_help="Every op that has a rule: its equation, or why it is free.")
@click.argument("pattern", default="")
def ops(pattern: str) -> None:
    """Every op that has a rule: its equation, or the reason why it is free.

    PATTERN keeps the ops whose name contains it.

    \b
    fxmeter ops
    fxmeter ops softmax
    """
    with progress("loading torch"), interrupted_afterwards():
        import fxmeter.annotators.rules  # noqa: F401  registers every rule
        from fxmeter.annotators.rules.registry import rules
        from fxmeter.annotators.views.console import plain_table
    shown = [rule for rule in rules() if pattern in str(rule.op)]
    if not shown:
        raise FxmeterError(f"no rule for an op with {pattern!r} in its name; `fxmeter ops` lists them all")
    table = plain_table()
    table.add_column("op", overflow="fold", max_width=46)
    table.add_column("FLOPs", overflow="fold")
    for rule in shown:
        table.add_row(str(rule.op), f"0: {rule.equation}" if rule.kind == "free" else rule.equation)
    show(table)
