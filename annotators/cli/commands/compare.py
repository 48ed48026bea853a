"""``fxmeter compare``: a profiler's trace laid over the prediction."""

from __future__ import annotations

import click

from fxmeter.annotators.cli.options import (
    batch_option,
    convention_options,
    deployment_options,
    devices_option,
    dtype_option,
    json_option,
    model_argument,
)
from fxmeter.annotators.cli.output import show, write_file, write_json
from fxmeter.annotators.cli.session import session
from fxmeter.annotators.cli.values import choice, size
from fxmeter.annotators.conventions import Conventions
from fxmeter.models import scenario as make
from fxmeter.models.choices import Attention
from fxmeter.models.deployment import Deployment
from fxmeter.models.devices import Device
from fxmeter.models.names import Kwargs


@click.command(short_help="A measured torch.profiler trace laid over the prediction.")
@model_argument
@click.option(
    "--trace",
    "trace_path",
    required=True,
    metavar="FILE",
    help="A Chrome trace of torch.profiler, .json or .json.gz, e.g. --trace run.json.gz.",
)
@click.option("--prefill", type=size(1), metavar="S", help="Prompt tokens of the passes, e.g. --prefill 512.")
@click.option("--decode", type=size(0), metavar="C", help="Cached tokens before the new one, e.g. --decode 512.")
@batch_option
@choice("--attention", Attention, "What ran: the model's own code, or a fused core, e.g. --attention eager.")
@convention_options
@deployment_options()
@dtype_option
@devices_option()
@click.option(
    "--depth", type=size(0), default=4, metavar="D", show_default=True, help="Levels of modules, e.g. --depth 2."
)
@click.option("--ops", type=size(0), default=8, metavar="N", show_default=True, help="Ops to list, e.g. --ops 20.")
@click.option(
    "--timeline",
    "timeline_path",
    metavar="FILE",
    help="A pass and its prediction as two tracks for ui.perfetto.dev, e.g. --timeline both.json.",
)
@json_option
def compare(
    model: str,
    trace_path: str,
    prefill: int | None,
    decode: int | None,
    batch: int,
    attention: Attention | None,
    conventions: Conventions,
    deployment: Deployment,
    dtype: str | None,
    devices: tuple[Device, ...],
    depth: int,
    ops: int,
    timeline_path: str | None,
    json_path: str | None,
) -> None:
    """What a run of MODEL really took, op by op and module by module, beside what was predicted.

    A trace of `fxmeter.measured(model)` says of what its passes are, and which module ran each op; of any other trace
    give --prefill or --decode, --batch and --attention as they were. With --device: bound, estimate, share of the roof
    and model FLOPs utilisation, measured and estimated.

    \b
    fxmeter compare llama-3.1-8b --trace run.json.gz --device h100-sxm5-80g
    fxmeter compare ./my-model --trace trace.json --decode 512 --batch 8 --attention flash
    fxmeter compare qwen3-8b --trace trace.json --prefill 2k --json | jq .matched_share
    """
    if prefill is not None and decode is not None:
        raise click.UsageError("--prefill and --decode are passes of two kinds; compare one at a time")
    if len(devices) > 1:
        raise click.UsageError("a trace is of one device; give one --device")
    with session(model, dtype, remember=False, json=json_path, timeline=timeline_path) as work:
        from fxmeter.annotators.api import annotate_by
        from fxmeter.annotators.studies.measured.laid_over import lay_over
        from fxmeter.annotators.studies.measured.traces.ranges import sizes_of, the_only
        from fxmeter.annotators.studies.measured.traces.reading import read_trace

        work.say(f"reading {trace_path}")
        trace = read_trace(trace_path)
        said = sizes_of(trace)
        if prefill is not None:
            scenario = make.prefill(prefill, batch=batch)
        elif decode is not None:
            scenario = make.decode(decode, batch=batch)
        else:
            scenario = the_only(said).scenario
        decoder = work.decoder()
        work.say(f"recording and pricing {scenario.stage}")
        ran: Attention = next((sizes.priced_as for sizes in said if sizes.are_of(scenario)), "flash")
        how: Kwargs = {"attention": attention or ran, "deployment": deployment, "fold": False}
        stage = annotate_by(conventions, decoder, scenario, **how)
        work.say("matching ops")
        found = lay_over(stage, trace, devices[0] if devices else None)
        info = work.info(deployment)
    if timeline_path is not None:
        from fxmeter.annotators.documents.measured_trace import tracks_text

        write_file("--timeline", tracks_text(found, info.name), timeline_path)
    if json_path is not None:
        from fxmeter.annotators.documents.comparison import comparison_of

        write_json(comparison_of(found, info), json_path)
    else:
        from fxmeter.annotators.views.comparison import comparison_view

        show(comparison_view(found, info.name, depth=depth, ops=ops))
