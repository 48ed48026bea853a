"""``fxmeter capacity``: what a machine must do, and hold, to serve a model."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial

import click

from fxmeter.annotators.cli.axes import axis_options
from fxmeter.annotators.cli.options import (
    attention_option,
    conventions_as,
    deployment_options,
    devices_option,
    json_option,
    uncosted_option,
)
from fxmeter.annotators.cli.output import exit_unless_costed, refuse_two_ways, show, write_json
from fxmeter.annotators.cli.session import Begin, model_options
from fxmeter.annotators.cli.values import Read, gathered, size
from fxmeter.annotators.conventions import USUAL, Conventions
from fxmeter.annotators.studies.axes import Axes
from fxmeter.annotators.studies.planning.rates import Measured
from fxmeter.annotators.units import quantity, read_bytes, read_number, read_seconds
from fxmeter.models.choices import Attention
from fxmeter.models.deployment import Deployment
from fxmeter.models.names import Kwargs

DEFAULT_PROMPTS = (1024, 4096, 16384, 65536)
TIME, MILLISECONDS = Read("time", read_seconds), Read("milliseconds", partial(read_seconds, unit="ms"))
NUMBER = Read("number", read_number)

measured_options = gathered(
    "measured",
    Measured,
    click.option(
        "--measured-prefill-ms",
        "prefill_s",
        type=MILLISECONDS,
        metavar="MS",
        help="A measured time, e.g. --measured-prefill-ms 83.",
    ),
    click.option(
        "--measured-decode-ms",
        "decode_s",
        type=MILLISECONDS,
        metavar="MS",
        help="Of one step, e.g. --measured-decode-ms 4.1.",
    ),
    click.option("--peak-tflops", type=NUMBER, metavar="N", help="For the MFU, e.g. --peak-tflops 989."),
    click.option("--peak-tbps", type=NUMBER, metavar="N", help="For the bandwidth's share, e.g. --peak-tbps 3.35."),
)


PRICES = Read("prices", lambda text: tuple(map(read_number, text.split(","))))

demand_options = gathered(
    "asked",
    dict,
    devices_option(),
    click.option(
        "--max-batched-tokens",
        type=size(1),
        default=8192,
        metavar="N",
        show_default=True,
        help="Tokens of a pass of prefill; longer prompts go in chunks, e.g. --max-batched-tokens 2048.",
    ),
    click.option("--rate", type=NUMBER, metavar="N", help="Requests a second to serve, e.g. --rate 20."),
    click.option(
        "--price",
        "price_per_h",
        type=PRICES,
        callback=lambda context, option, found: found or (),
        metavar="N[,N]",
        help="Of a device for an hour, e.g. --price 2.49.",
    ),
)


@click.command(short_help="What fits, what devices reach and serve, and what targets take.")
@axis_options(prompts=DEFAULT_PROMPTS)
@attention_option
@conventions_as(replace(USUAL, logits="last"))
@deployment_options(kernels="serving")
@model_options()
@click.option(
    "--ttft", type=TIME, default="1s", show_default=True, help="Target: time to first token, e.g. --ttft 500ms."
)
@click.option("--tpot", type=TIME, default="50ms", show_default=True, help="Target: time per token, e.g. --tpot 20ms.")
@click.option(
    "--memory", type=Read("size", read_bytes), metavar="SIZE", help="Memory to fit into, e.g. --memory 80GiB."
)
@demand_options
@measured_options
@click.option("--markdown", is_flag=True, help="Markdown instead of tables, e.g. capacity M --markdown.")
@json_option
@uncosted_option
def capacity(
    begin: Begin,
    axes: Axes,
    attention: Attention,
    conventions: Conventions,
    deployment: Deployment,
    ttft: float,
    tpot: float,
    memory: int | None,
    asked: Kwargs,
    measured: Measured,
    markdown: bool,
    json_path: str | None,
    allow_uncosted: bool,
) -> None:
    """What devices reach and serve of MODEL, or what a machine must do and hold, by input shape.

    With --device: time to first token (vision and prefill, in passes of --max-batched-tokens) and per output token;
    what fits; the largest batch that fits and meets --tpot, its tokens and requests per second (a prompt and --steps
    output tokens each), devices for --rate requests a second, price of a million output tokens for --price an hour, and
    energy at the device's full power, an upper figure. The device alone: no scheduler, no network, no idle time.

    Without: needed TFLOP/s = FLOPs / target, TB/s = bytes moved / target: of vision and prefill for the time to first
    token, of one decode step (the mean of --steps) for the time per output token; bytes op by op, and if fused.
    Memory = weights + KV cache after the last step + peak activations, the most of any stage. Largest batch and
    longest context are exact: one more does not fit. MFU = matmul FLOPs / (measured time x peak), the bandwidth's
    share = bytes / (measured time x peak), by the device's peaks or yours. Kernels are those of an engine unless told
    (--kernels transformers). docs/capacity.md says more.

    LIST is as for `fxmeter sweep`; without one, prompts of 1k, 4k, 16k and 64k tokens with decode after them.

    \b
    fxmeter capacity llama-3.1-8b --device h100,l4 --prefill 1k --steps 256 --rate 20 --price 2.49,0.71
    fxmeter capacity llama-3.1-8b --prefill 1k,8k,32k --batch 1,16 --memory 80GiB
    fxmeter capacity llama-3.1-70b --prefill 8k --memory 80GiB --weights int4-g128 --kv fp8
    fxmeter capacity deepseek-ocr --crops 1x2,3x3 --steps 100 --ttft 500ms --tpot 20ms
    fxmeter capacity qwen3-8b --prefill 4k --measured-prefill-ms 83 --device h100
    """
    _check(axes, asked, measured, memory, markdown, json_path)
    with begin(json=json_path) as work:
        from fxmeter.annotators.studies.planning import capacity as study
        from fxmeter.annotators.studies.planning.serving import Demand

        axes = replace(axes, encoder_len=work.encoder_len(axes.encoder_len, deployment, sees=bool(axes.crops)))
        forms = work.forms(axes, conventions, deployment)
        needs = study.capacity(
            forms,
            axes,
            attention=attention,
            ttft_s=ttft,
            tpot_s=tpot,
            memory_bytes=memory,
            measured=measured,
            demand=Demand(**asked),
            advance=lambda count: work.say(f"fitting input shapes: {count} of {len(axes)}"),
        )
        work.keep()
    if json_path is not None:
        from fxmeter.annotators.documents.capacity import to_json

        write_json(to_json(needs), json_path)
    else:
        from fxmeter.annotators.views.reports.capacity import capacity_markdown, capacity_view

        sys.stdout.write(capacity_markdown(needs)) if markdown else show(capacity_view(needs))
    exit_unless_costed(needs.uncosted, allow_uncosted)


def _check(
    axes: Axes, asked: Kwargs, measured: Measured, memory: int | None, markdown: bool, json_path: str | None
) -> None:
    """A usage error where options do not go together."""
    devices, prices = asked["devices"], asked["price_per_h"]
    less = next((each for each in devices if memory is not None and memory > each.memory_bytes), None)
    if memory is not None and less is not None:
        there = f"{quantity(less.memory_bytes, 'memory')} of {less.name}"
        raise click.UsageError(f"--memory {quantity(memory, 'memory')} is more than the {there}; leave it out for all")
    if not devices and (asked["rate"] or prices):
        raise click.UsageError("--rate and --price are of a device; give --device too")
    if prices and len(prices) not in (1, len(devices)):
        raise click.UsageError(f"{len(prices)} prices for {len(devices)} devices; give one for all, or one of each")
    if measured and len(devices) > 1:
        raise click.UsageError(f"a measured time is of one device, and these are {len(devices)}")
    if asked["rate"] and (max(axes.steps) == 1 or not (axes.prefill or axes.crops)):
        raise click.UsageError("--rate is of requests with a prompt and output; give --prefill and --steps too")
    if not measured and (measured.peak_tflops is not None or measured.peak_tbps is not None):
        raise click.UsageError("a peak is for a measured time; give --measured-prefill-ms or --measured-decode-ms too")
    if measured and len(axes) > 1:
        raise click.UsageError(f"a measured time is of one input shape, and these are {len(axes)}; give one of each")
    if measured.prefill_s is not None and axes.decode and not axes.prefill:
        raise click.UsageError("--measured-prefill-ms needs a prompt; give --prefill or --crops")
    refuse_two_ways(markdown, json_path)
