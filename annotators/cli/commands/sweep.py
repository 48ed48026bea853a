"""``fxmeter sweep``: every stage at many sizes, into files and plots."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import click

from fxmeter.annotators.cli.axes import axis_options
from fxmeter.annotators.cli.options import (
    attentions_option,
    convention_options,
    deployment_options,
    devices_option,
    uncosted_option,
)
from fxmeter.annotators.cli.output import EXIT_ERROR, Failed, bar, exit_unless_costed, progress, show, write_file
from fxmeter.annotators.cli.page import also_option, check_page, first_passes, html_option, page_of
from fxmeter.annotators.cli.session import Begin, model_options
from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.studies.axes import Axes
from fxmeter.models.choices import Attention
from fxmeter.models.deployment import Deployment
from fxmeter.models.devices import Device


@click.command(short_help="Costs at many sizes, into JSON, SQLite, CSV and plots.")
@axis_options(chunks=True)
@attentions_option
@convention_options
@deployment_options()
@model_options()
@click.option("--out", required=True, metavar="DIR", help="Folder to write into, made or extended, e.g. --out ocr.")
@click.option("--plots/--no-plots", default=None, help="Draw plots (default: if matplotlib is there), e.g. --no-plots.")
@devices_option()
@html_option
@also_option
@click.option("--check", "checked", is_flag=True, help="Exit 1 where a sanity ratio breaks, e.g. sweep M --check.")
@uncosted_option
def sweep(
    begin: Begin,
    axes: Axes,
    attentions: tuple[Attention, ...],
    conventions: Conventions,
    deployment: Deployment,
    out: str,
    plots: bool | None,
    devices: tuple[Device, ...],
    html_path: str | None,
    also: tuple[str, ...],
    checked: bool,
    allow_uncosted: bool,
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
    fxmeter sweep deepseek-v3 --decode 1k:64k:*2 --kv fp8 --kernels serving --out served
    fxmeter sweep qwen3-8b --prefill 1k:32k:*2 --out qwen --html qwen/page.html
    """
    drawable = find_spec("matplotlib") is not None
    if plots and not drawable:
        raise click.UsageError('plots need matplotlib: pip install "fxmeter[plot]", or leave --plots out')
    if devices and html_path is None and (plots is False or not drawable):
        raise click.UsageError("--device is for plots of times; leave --no-plots out, and install matplotlib")
    if axes.chunk is not None and (devices or html_path is not None):
        raise click.UsageError("--device and --html show prompts that are processed at once; leave --chunk out")
    deployments = check_page(html_path, deployment, also)
    with begin(html=html_path) as work:
        from fxmeter.annotators.documents.tables.sweep_files import prepare, write
        from fxmeter.annotators.studies.comparing.ratios import check
        from fxmeter.annotators.studies.sweep import run_sweep

        folder = prepare(out)
        axes = replace(axes, encoder_len=work.encoder_len(axes.encoder_len, deployment, sees=bool(axes.crops)))
        forms = work.forms(axes, conventions, deployment)
        if html_path is not None:
            page = page_of(work, first_passes(axes), attentions, conventions, deployments, devices)
            write_file("--html", page, html_path)
    with bar("stage costs", len(axes) * len(attentions) * len(axes.stages)) as advance:
        costs = run_sweep(forms, axes, attentions=attentions, advance=advance)
    pictures: dict[str, bytes] = {}
    undrawn = 0
    if drawable if plots is None else plots:
        with progress("drawing"):
            from fxmeter.annotators.plots.sweep import draw, index_page, left_out
            from fxmeter.annotators.studies.smooth import smooth

            pictures, undrawn = draw(costs, smooth(forms, costs)), left_out(costs)
            if devices:
                from fxmeter.annotators.plots.sweep_times import draw_times

                pictures |= draw_times(forms, axes, attentions[-1], devices)
            pictures |= index_page(costs.model.name, pictures)
    work.keep()
    run = write(costs, folder, pictures)["run"]
    verdicts = check(costs) if checked else ()
    from fxmeter.annotators.views.sweep import sweep_view

    show(sweep_view(costs, run, out, sorted(pictures), verdicts, undrawn=undrawn))
    broken = next((verdict for verdict in verdicts if verdict.broken), None)
    if broken is not None:
        raise Failed(f"check: {broken.name} does not hold at {broken.broken}", EXIT_ERROR)
    exit_unless_costed(costs.uncosted, allow_uncosted)
