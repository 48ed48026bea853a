"""What a command hands on to ``fxmeter report``: the models, and the options that say what is priced."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from fxmeter.annotators.cli.commands.report import report

PRINTING = ("json_path", "depth", "ops", "ops_by", "at_peak", "timeline_path", "plot_path", "html_path", "also")
"""Options of ``report`` that are of what it prints, not of what it prices."""

Options = list[tuple[str, tuple[str, ...]]]
"""Flags, each with its values."""


def write_report(model: str, options: Options, path: Path, *, side: int = 0, command: str = "diff") -> None:
    """What ``fxmeter report MODEL --json`` writes, fused attention unless told. ``side`` chooses among the values of an
    option that has one for each side."""
    words = [word for flag, values in options for word in (flag, *values[side % max(len(values), 1) :][:1])]
    if not any(flag == "--attention" for flag, _ in options):
        words += ["--attention", "flash"]
    report.main([model, *words, "--json", str(path)], prog_name=f"fxmeter {command}", standalone_mode=False)


def models_and_options(given: Sequence[str], *, sides: int) -> tuple[list[str], Options]:
    """The models among the words of a command, and the options of ``report`` with their values, at most one for each of
    one or two ``sides``."""
    known = {flag: option for option in report.params for flag in option.opts if option.name not in PRINTING}
    models: list[str] = []
    options: Options = []
    words = iter(given)
    for word in words:
        if not word.startswith("-") or word == "-":
            models.append(word)
            continue
        flag, joined, value = word.partition("=")
        option = known.get(flag)
        if option is None:
            raise click.UsageError(
                f"No such option: {flag}; taken are those of `fxmeter report` that say what is priced"
            )
        if getattr(option, "is_flag", False):
            options.append((flag, ()))
            continue
        text = value if joined else next(words, None)
        if text is None:
            several = ", or two with a comma between them" if sides > 1 else ""
            raise click.UsageError(f"Option '{flag}' requires a value{several}")
        values = tuple(text.split(",")) if sides > 1 else (text,)
        if len(values) > sides:
            raise click.UsageError(f"{flag} {text}: diff compares two, so it takes one value for both or one for each")
        options.append((flag, values))
    return models, options
