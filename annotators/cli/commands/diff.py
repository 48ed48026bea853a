"""``fxmeter diff``: what two models, deployments, devices, scenarios or saved reports differ in."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from fxmeter.annotators.cli.asked import models_and_options, write_report
from fxmeter.annotators.cli.options import json_option
from fxmeter.annotators.cli.output import EXIT_ERROR, check_writable, refuse_two_ways, show, write_json
from fxmeter.annotators.cli.values import size
from fxmeter.models.errors import FxmeterError


@click.command(
    short_help="What two models, deployments or saved reports differ in.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("sides", nargs=-1, type=click.UNPROCESSED, metavar="A [B]")
@click.option(
    "--depth", type=size(0), default=4, metavar="D", show_default=True, help="Levels of modules, e.g. --depth 6."
)
@click.option("--ops", type=size(0), default=6, metavar="N", show_default=True, help="Ops to list, e.g. --ops 20.")
@click.option("--markdown", is_flag=True, help="Markdown instead of tables, e.g. diff A B --markdown.")
@json_option
def diff(sides: tuple[str, ...], depth: int, ops: int, markdown: bool, json_path: str | None) -> None:
    """What A and B differ in: figures first, then modules of the same role, then ops, and which part explains it.

    A and B are models, reports saved with `report --json FILE`, or lock files. All options of `fxmeter report` that say
    what is priced are taken; with two values and a comma between them, the first is of A and the second of B. One MODEL
    is compared with itself where an option has two. Exit code 0: no figure differs; 1: some do; 2: none could be told.

    \b
    fxmeter diff llama-3.1-8b qwen3-8b --prefill 4096
    fxmeter diff deepseek-v3 --kernels transformers,serving --decode 4096
    fxmeter diff llama-3.1-8b --weights bfloat16,fp8 --device h100-sxm5-80g --decode 4096
    fxmeter diff before.json after.json --markdown
    """
    refuse_two_ways(markdown, json_path)
    try:
        check_writable("--json", json_path)
        different = _tell(sides, depth, ops, markdown, json_path)
    except FxmeterError as error:
        raise click.UsageError(str(error)) from None
    if different:
        sys.exit(EXIT_ERROR)


def _tell(sides: tuple[str, ...], depth: int, ops: int, markdown: bool, json_path: str | None) -> bool:
    """Print what differs; whether anything does."""
    from fxmeter.annotators.differences.difference import diff as difference_of

    with tempfile.TemporaryDirectory(prefix="fxmeter-") as folder:
        found = difference_of(*_reports(sides, Path(folder)))
    if json_path is not None:
        from fxmeter.annotators.differences.document import to_json

        write_json(to_json(found), json_path)
    else:
        from fxmeter.annotators.views.difference import difference_markdown, difference_view

        if markdown:
            sys.stdout.write(difference_markdown(found, depth=depth, ops=ops))
        else:
            show(difference_view(found, depth=depth, ops=ops))
    return not found.same


def _reports(given: Sequence[str], folder: Path) -> list[Path]:
    """The two reports, made in ``folder`` where a side is a model."""
    from fxmeter.annotators.differences.saved import is_report

    models, options = models_and_options(given, sides=2)
    if not models or len(models) > 2:
        raise click.UsageError(
            f"diff takes two models or saved reports, or one model and what differs; got {len(models)}"
        )
    if len(models) == 1 and not any(len(values) == 2 for _, values in options):
        raise click.UsageError(f"diff compares two: name one beside {models[0]}, or give an option two values (A,B)")
    paths = []
    for side, model in enumerate((models * 2)[:2] if len(models) == 1 else models):
        if is_report(model):
            if options:
                raise click.UsageError(f"{model} is a saved report: options say what a model is priced for")
            paths.append(Path(model))
            continue
        path = folder / f"{side}.json"
        write_report(model, options, path, side=side)
        paths.append(path)
    return paths
