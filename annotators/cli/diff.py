"""``fxmeter diff``: what two models, deployments, devices, scenarios or saved reports differ in."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from fxmeter.annotators.cli.options import json_option, size
from fxmeter.annotators.cli.output import EXIT_ERROR, check_writable, show, write_json
from fxmeter.annotators.cli.report import report
from fxmeter.models.errors import FxmeterError

OWN = ("json_path", "depth", "ops", "at_peak", "timeline_path")
"""Options of ``report`` that are of what it prints, not of what it prices."""


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

    A and B are models, or reports saved with `report --json FILE`. All options of `fxmeter report` that say what is
    priced are taken; with two values and a comma between them, the first is of A and the second of B. One MODEL is
    compared with itself. Exit code 0: no figure differs; 1: some do; 2: it could not be told.

    \b
    fxmeter diff llama-3.1-8b qwen3-8b --prefill 4096
    fxmeter diff deepseek-v3 --kernels transformers,serving --decode 4096
    fxmeter diff llama-3.1-8b --weights bfloat16,fp8 --device h100-sxm5-80g --decode 4096
    fxmeter diff before.json after.json --markdown
    """
    if markdown and json_path:
        raise click.UsageError("--markdown and --json both say how to print; give one")
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

    models, options = _split(given)
    if not models or len(models) > 2:
        raise click.UsageError(
            f"diff takes two models or saved reports, or one model and what differs; got {len(models)}"
        )
    paths = []
    for side, model in enumerate((models * 2)[:2] if len(models) == 1 else models):
        if is_report(model):
            if options:
                raise click.UsageError(f"{model} is a saved report: options say what a model is priced for")
            paths.append(Path(model))
            continue
        values = [word for flag, value in options for word in (flag, *value[side % len(value) : side % len(value) + 1])]
        if not any(flag == "--attention" for flag, _ in options):
            values += ["--attention", "flash"]
        path = folder / f"{side}.json"
        report.main([model, *values, "--json", str(path)], prog_name="fxmeter diff", standalone_mode=False)
        paths.append(path)
    return paths


def _split(given: Sequence[str]) -> tuple[list[str], list[tuple[str, tuple[str, ...]]]]:
    """What is compared, and the options of ``report``: each with its values, one for both sides or one for each."""
    known = {flag: option for option in report.params for flag in option.opts if option.name not in OWN}
    models: list[str] = []
    options: list[tuple[str, tuple[str, ...]]] = []
    words = iter(given)
    for word in words:
        if not word.startswith("-") or word == "-":
            models.append(word)
            continue
        flag, joined, value = word.partition("=")
        option = known.get(flag)
        if option is None:
            raise click.UsageError(
                f"No such option: {flag}; diff takes those of `fxmeter report` that say what is priced"
            )
        if getattr(option, "is_flag", False):
            options.append((flag, ()))
            continue
        text = value if joined else next(words, None)
        if text is None:
            raise click.UsageError(f"Option '{flag}' requires a value, or two with a comma between them")
        values = tuple(text.split(","))
        if len(values) > 2:
            raise click.UsageError(f"{flag} {text}: diff compares two, so it takes one value for both or one for each")
        options.append((flag, values))
    return models, options
