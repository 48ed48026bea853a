"""``fxmeter lock`` and ``fxmeter check``: a model's figures in a file, and whether one has moved since."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from fxmeter.annotators.cli.asked import models_and_options, write_report
from fxmeter.annotators.cli.options import json_option
from fxmeter.annotators.cli.output import (
    EXIT_ERROR,
    Failed,
    check_writable,
    refuse_two_ways,
    show,
    write_file,
    write_json,
)


@click.command(
    short_help="Write every figure of a model into a file.", context_settings={"ignore_unknown_options": True}
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="MODEL")
@click.option(
    "--file", "path", default="fxmeter.lock", metavar="FILE", show_default=True, help="Where, e.g. --file a.lock."
)
@click.option(
    "--tolerance",
    "tolerances",
    multiple=True,
    metavar="FIGURE=SHARE",
    help="How much of a figure may move; nothing unless told, e.g. --tolerance io_bytes=1%.",
)
def lock(words: tuple[str, ...], path: str, tolerances: tuple[str, ...]) -> None:
    """Write every figure of MODEL into a file that is reviewed like code: of each pass, module and op, a line each.

    MODEL and the options are those of `fxmeter report`. The file is the same to the byte as long as no figure and no
    version of fxmeter, torch and transformers changes. `fxmeter check` says what has moved.

    \b
    fxmeter lock llama-3.1-8b --prefill 2048 --decode 2048
    fxmeter lock python:mypackage.model:build --decode 4096 --file model.lock --tolerance io_bytes=1%
    """
    models, options = models_and_options(words, sides=1)
    if len(models) != 1:
        raise click.UsageError(f"lock takes one model, got {len(models)}")
    check_writable("--file", path)
    from fxmeter.annotators.differences.lock import lock_text, locked, read_tolerances

    allowed = read_tolerances(tolerances)
    given = [word for flag, values in options for word in (flag, *values)]
    with tempfile.TemporaryDirectory(prefix="fxmeter-") as folder:
        from fxmeter.annotators.differences.saved import read_report

        write_report(models[0], options, Path(folder) / "report.json", command="lock")
        kept = locked(read_report(Path(folder) / "report.json"), models[0], given, allowed)
    write_file("--file", lock_text(kept), path)
    from fxmeter.annotators.views.lock import lock_view

    show(lock_view(kept, path))


@click.command(short_help="Whether a figure of a lock file has moved.")
@click.argument("path", default="fxmeter.lock", metavar="[FILE]")
@click.option("--markdown", is_flag=True, help="Markdown instead of tables, e.g. check model.lock --markdown.")
@json_option
def check(path: str, markdown: bool, json_path: str | None) -> None:
    """Price the model of a lock FILE again, and exit with 1 when a figure has moved by more than it may.

    Says which figures, of which modules, and whether it is the model that changed, or fxmeter, torch or transformers.

    \b
    fxmeter check
    fxmeter check model.lock --markdown
    """
    refuse_two_ways(markdown, json_path)
    check_writable("--json", json_path)
    from fxmeter.annotators.differences.difference import diff
    from fxmeter.annotators.differences.lock import checked, read_lock

    kept = read_lock(Path(path))
    _, options = models_and_options(kept.options, sides=1)
    with tempfile.TemporaryDirectory(prefix="fxmeter-") as folder:
        report = Path(folder) / "report.json"
        write_report(kept.model, options, report, command="check")
        found = checked(diff(kept.report, report), kept)
    if json_path is not None:
        from fxmeter.annotators.differences.document import check_to_json

        write_json(check_to_json(found), json_path)
    else:
        from fxmeter.annotators.views.lock import check_markdown, check_view

        click.echo(check_markdown(found), nl=False) if markdown else show(check_view(found))
    if found.moved:
        from fxmeter.annotators.views.lock import moved_in_words

        raise Failed(f"{path}: {moved_in_words(found)}; `fxmeter lock` takes over what was meant", EXIT_ERROR)
