"""``fxmeter time``: how long a model's passes take on devices."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial

import click

from fxmeter.annotators.cli.engine import acceptance_option, cached_option, chunk_option, draft_option
from fxmeter.annotators.cli.options import (
    deployment_options,
    devices_option,
    encoder_len_option,
    json_option,
    plot_option,
    uncosted_option,
)
from fxmeter.annotators.cli.output import exit_unless_costed, refuse_two_ways, show, write_file, write_json
from fxmeter.annotators.cli.session import Begin, model_options
from fxmeter.annotators.cli.values import sizes
from fxmeter.annotators.studies.chunks import PromptForms
from fxmeter.annotators.studies.planning.latency import ENGINES, latencies
from fxmeter.models.deployment import Deployment
from fxmeter.models.devices import Device
from fxmeter.models.scenario import decode as one_step
from fxmeter.models.scenario import prefill as one_prompt


@click.command(short_help="Time to first token and per output token on devices.")
@devices_option(required=True)
@click.option(
    "--prefill", type=sizes(1), metavar="LIST", default="512,2048,8192", help="Prompt lengths, e.g. --prefill 1k,8k."
)
@click.option(
    "--decode", type=sizes(1), metavar="LIST", default="512,8192", help="Cached tokens, e.g. --decode 4k,32k."
)
@click.option("--batch", type=sizes(1), metavar="LIST", default="1,8,64", help="Sequences, e.g. --batch 1,8,64.")
@encoder_len_option
@cached_option
@chunk_option
@draft_option
@acceptance_option
@deployment_options(kernels="serving")
@model_options()
@click.option("--markdown", is_flag=True, help="Markdown instead of tables, e.g. time M --device h100 --markdown.")
@plot_option
@json_option
@uncosted_option
def time(
    begin: Begin,
    devices: tuple[Device, ...],
    prefill: tuple[int, ...],
    decode: tuple[int, ...],
    batch: tuple[int, ...],
    encoder_len: int | None,
    cached: int | None,
    chunk: int | None,
    draft: int | None,
    acceptance: float | None,
    deployment: Deployment,
    markdown: bool,
    plot_path: str | None,
    json_path: str | None,
    allow_uncosted: bool,
) -> None:
    """How long prefill (time to first token) and a decode step (time per output token) of MODEL take on devices.

    All lengths and batches are timed, as an engine runs them: attention cores compute what their masks let through,
    logits are of the last position, and kernels are those of `--kernels serving` unless told. The estimate is of the
    device alone; a server's scheduler adds to it.

    --plot draws the time to first token between the shortest and the longest prompt and, at the first of --decode, the
    tokens/s of one sequence against those of the device as the batch grows.

    \b
    fxmeter time llama-3.1-8b --device h100-sxm5-80g,a100
    fxmeter time whisper-large-v3 --device h100 --prefill 4 --decode 200
    fxmeter time llama-3.1-8b --device h100 --cached 8k --draft 4 --acceptance 0.8
    fxmeter time qwen3-8b --device l4 --prefill 1k --decode 1k:64k:*4 --batch 1,16 --weights fp8
    """
    refuse_two_ways(markdown, json_path)
    if acceptance is not None and draft is None:
        raise click.UsageError("--acceptance is of drafted tokens; give --draft too")
    if plot_path is not None and (cached or chunk or draft or not (prefill and decode)):
        raise click.UsageError(
            "--plot draws whole prompts and single steps: --prefill and --decode, no --cached, --chunk or --draft"
        )
    step = one_step(0, query_len=(draft or 0) + 1, acceptance=acceptance)
    with begin(json=json_path, plot=plot_path) as work:
        info = work.info(deployment)
        encoder_len = work.encoder_len(encoder_len, deployment)
        passes = partial(work.form, attention="flash", deployment=deployment, encoder_len=encoder_len)
        prompts = passes("prefill", conventions=ENGINES)
        unread = partial(passes, "prefill", conventions=ENGINES.before_last)
        steps = passes("decode", conventions=replace(ENGINES, logits="all"))
        encoder = None if encoder_len is None else passes("encode", conventions=ENGINES)
        sizes = {"prefill": prefill, "decode": decode, "batch": batch}
        prompt = one_prompt(1, past_len=cached or 0, chunk=chunk)
        found = latencies(
            PromptForms(prompts, unread), steps, devices, **sizes, prompt=prompt, step=step, encoder=encoder
        )
        uncosted = sum(form.sheet.for_time.uncosted for form in (prompts, steps, encoder) if form is not None)
        if plot_path is not None:
            work.say("drawing")
            from fxmeter.annotators.plots.speed import kind_of, latency_plot
            from fxmeter.annotators.studies.curves import latency_curves, throughput_curves

            first = latency_curves(prompts, devices, prefill)
            curves = throughput_curves(steps, devices, decode[0])
            title = f"{info.name}, {info.weights}"
            write_file("--plot", latency_plot(first, curves, title, kind_of(plot_path)), plot_path)
        work.keep()
    if json_path is not None:
        from fxmeter.annotators.documents.times import latencies_of

        write_json(latencies_of(found, info), json_path)
    else:
        from fxmeter.annotators.views.reports.latency import latency_markdown, latency_view

        line = f"{info.name}, {info.weights}"
        if deployment.pp > 1:
            line += f"; {deployment.pp} pipeline stages, one after another"
        sys.stdout.write(latency_markdown(found, line)) if markdown else show(latency_view(found, line))
    exit_unless_costed(uncosted, allow_uncosted)
