"""``fxmeter sweep``: every stage at many sizes, into files and plots."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import click

from fxmeter.annotators.cli.axes import axes_of, axis_options, forms_of
from fxmeter.annotators.cli.conventions import convention_options
from fxmeter.annotators.cli.output import EXIT_ERROR, EXIT_UNCOSTED, complain, progress, quiet_transformers


@click.command(short_help="Costs at many sizes, into JSON, SQLite, CSV and plots.")
@click.argument("model")
@axis_options
@click.option(
    "--attention",
    type=click.Choice(["eager", "flash", "both"]),
    default="both",
    show_default=True,
    help="The model's own attention code, one fused core per layer, or both, e.g. --attention flash.",
)
@convention_options
@click.option("--out", required=True, metavar="DIR", help="Folder to write into, made or extended, e.g. --out ocr.")
@click.option("--plots/--no-plots", default=None, help="Draw plots (default: if matplotlib is there), e.g. --no-plots.")
@click.option("--check", "checked", is_flag=True, help="Exit 1 where a sanity ratio breaks, e.g. sweep M --check.")
@click.option("--allow-uncosted", is_flag=True, help="Exit 0 although ops have no rule, e.g. sweep M --allow-uncosted.")
def sweep(
    model: str,
    prefill: tuple[int, ...] | None,
    decode: tuple[int, ...] | None,
    crops: tuple[tuple[int, int], ...] | None,
    batch: tuple[int, ...],
    steps: tuple[int, ...],
    attention: str,
    out: str,
    plots: bool | None,
    checked: bool,
    allow_uncosted: bool,
    **conventions: Any,
) -> None:
    """What every stage of MODEL costs at many sizes, written to DIR.

    LIST is a list (1,2,4), a range with both ends (512:65536:512), a geometric one (1k:128k:*2), or a mix. All
    combinations are priced. --prefill alone is a prompt with decode after it, --decode alone is decode, --crops is
    pages of DeepSeek-OCR: vision, prefill, decode.

    DIR gets sweep.json and sweep.csv of this run, sweep.sqlite with this and every earlier run, and plots. Files are
    whole or not there. --check holds the numbers to the sanity ratios that docs/capacity.md lists.

    \b
    fxmeter sweep deepseek-ocr --crops 1x1:10x20 --steps 100 --out ocr
    fxmeter sweep llama-3.1-8b --prefill 1k:128k:*2 --batch 1,16 --out llama --check
    """
    axes = axes_of({"prefill": prefill, "decode": decode, "crops": crops, "batch": batch, "steps": steps})
    drawn = find_spec("matplotlib") is not None if plots is None else plots
    if drawn and find_spec("matplotlib") is None:
        raise click.UsageError('plots need matplotlib: pip install "fxmeter[plot]", or leave --plots out')
    from fxmeter.models.source import locate

    locate(model)
    with progress("loading torch and transformers") as say:
        quiet_transformers()
        from fxmeter.annotators.documents.sweep_files import prepare, write
        from fxmeter.annotators.studies.ratios import check
        from fxmeter.annotators.studies.sweep import run_sweep, stages_of

        folder = prepare(out)
        say(f"building {model} on meta")
        forms = forms_of(model, axes, conventions)
    kinds: Any = ("eager", "flash") if attention == "both" else (attention,)
    with _bar(len(axes) * len(kinds) * len(stages_of(axes))) as advance:
        made = run_sweep(forms, axes, attentions=kinds, advance=advance)
    files: dict[str, bytes] = {}
    missing = 0
    if drawn:
        with progress("drawing") as say:
            from fxmeter.annotators.plots.sweep import draw, left_out

            files = draw(made)
            missing = left_out(made)
    data = write(made, folder, files)
    verdicts = check(made) if checked else ()
    from fxmeter.annotators.views.console import stdout_console
    from fxmeter.annotators.views.sweep import sweep_view

    stdout_console().print(sweep_view(data, out, sorted(files), verdicts, undrawn=missing))
    broken = next((verdict for verdict in verdicts if verdict.broken), None)
    if broken is not None:
        complain(f"check: {broken.name} does not hold at {broken.broken}")
        sys.exit(EXIT_ERROR)
    if made.uncosted and not allow_uncosted:
        complain(f"{made.uncosted} op executions have no rule; their FLOPs are missing (--allow-uncosted accepts that)")
        sys.exit(EXIT_UNCOSTED)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, gone when it is over."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("stage costs", total=total)
        yield lambda count: bar.advance(task, count)
