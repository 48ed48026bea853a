"""``fxmeter report``: what the stages of a model cost."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from fxmeter.annotators.cli.options import (
    attentions_option,
    convention_options,
    deployment_options,
    devices_option,
    json_option,
    plot_option,
    set_option,
    uncosted_option,
)
from fxmeter.annotators.cli.output import complain, exit_unless_costed, show, write_file, write_json
from fxmeter.annotators.cli.page import also_option, check_page, html_option, page_of
from fxmeter.annotators.cli.scenarios import Scenarios, scenario_options, within_positions
from fxmeter.annotators.cli.session import Begin, Session, load_libraries, model_options
from fxmeter.annotators.cli.values import choice, size
from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.studies.report import Report, build_report
from fxmeter.models.choices import Attention, OpsBy
from fxmeter.models.deployment import Deployment
from fxmeter.models.devices import Device
from fxmeter.models.errors import FxmeterError
from fxmeter.models.mixed_step import MixedStep
from fxmeter.models.names import Kwargs
from fxmeter.models.scenario import Scenario, VisionScenario

if TYPE_CHECKING:
    from torch import nn

    from fxmeter.annotators.sheets.tables import ReportedStage


@click.command(short_help="What prefill and decode of a model cost.")
@scenario_options
@attentions_option
@convention_options
@deployment_options()
@model_options(
    set_option("A field of the config with another value, e.g. --set num_hidden_layers=16.", metavar="FIELD=VALUE")
)
@click.option(
    "--depth",
    type=size(0),
    default=3,
    metavar="D",
    show_default=True,
    help="Levels of the module tree, e.g. --depth 2.",
)
@click.option(
    "--ops", type=size(0), default=6, metavar="N", show_default=True, help="Heaviest ops to list, e.g. --ops 20."
)
@choice(
    "--ops-by",
    OpsBy,
    "What ops are ranked by; default: time with --device, bytes in decode, else FLOPs, e.g. --ops-by flops.",
)
@devices_option()
@click.option(
    "--at-peak", is_flag=True, help="List what is alive where most memory is in use, e.g. report M --at-peak."
)
@json_option
@click.option(
    "--memory-timeline",
    "timeline_path",
    metavar="FILE",
    help="Memory over the pass: a trace for ui.perfetto.dev, or a .svg picture, e.g. --memory-timeline memory.json.",
)
@plot_option
@html_option
@also_option
@uncosted_option
def report(
    begin: Begin,
    scenarios: Scenarios,
    attentions: tuple[Attention, ...],
    conventions: Conventions,
    deployment: Deployment,
    depth: int,
    ops: int,
    ops_by: OpsBy | None,
    devices: tuple[Device, ...],
    at_peak: bool,
    json_path: str | None,
    timeline_path: str | None,
    plot_path: str | None,
    html_path: str | None,
    also: tuple[str, ...],
    allow_uncosted: bool,
) -> None:
    """What one prefill and one decode step of MODEL cost.

    MODEL is a preset (see `fxmeter models`), a folder or config.json, a Hub id, or a function of your own that builds
    the model, python:package.module:function; one that returns a module and inputs is priced for one call of it. With
    neither --prefill nor --decode, both are shown at 2048 tokens, or as many as the model has positions.

    \b
    fxmeter report deepseek-v3 --decode 32k --batch 64 --attention flash
    fxmeter report deepseek-ocr --crops 1x2 --steps 100
    fxmeter report google/flan-t5-xl --encoder-len 512 --prefill 1 --decode 64
    fxmeter report llama-3.1-8b --decode 4096 --device h100-sxm5-80g,a100
    fxmeter report llama-3.1-8b --prefill 4k --cached 8k --chunk 1k --kernels serving
    fxmeter report llama-3.1-8b --decode 4096 --draft 4 --acceptance 0.8
    fxmeter report llama-3.1-8b --prefill 512 --cached 1024 --beside 31x4096,100
    fxmeter report llama-3.1-8b --set num_hidden_layers=16 --set "intermediate_size=3*hidden_size"
    fxmeter report qwen3-8b --prefill 512 --json | jq .stages[0].cost
    fxmeter report qwen3-8b --decode 8k --device h100 --html page.html
    """
    _check_timeline(timeline_path, json_path)
    if ops_by == "time" and not devices:
        raise click.UsageError("--ops-by time needs a --device")
    if plot_path is not None and not devices:
        raise click.UsageError("--plot draws kernels under the roofs of a device; give --device")
    deployments = check_page(html_path, deployment, also)
    files = {"json": json_path, "memory_timeline": timeline_path, "plot": plot_path, "html": html_path}
    with begin(**files) as work:
        scenarios = within_positions(scenarios, lambda: work.info(deployment).max_positions)
        asked = {
            "scenarios": [repr(scenario) for scenario in scenarios],
            "attentions": attentions,
            "conventions": repr(conventions),
            "deployment": repr(deployment),
            "devices": [repr(device) for device in devices],
        }
        whole = work.answer(
            Report, asked, lambda: _worked_out(work, scenarios, attentions, conventions, deployment, devices)
        )
        if timeline_path is not None:
            write_file("--memory-timeline", _timelines(work, whole, deployment, timeline_path), timeline_path)
        if plot_path is not None:
            work.say("drawing")
            from fxmeter.annotators.plots.speed import kind_of, report_plot

            title = f"{whole.model.name}, {whole.model.weights}"
            write_file("--plot", report_plot(whole.timings, title, kind_of(plot_path)), plot_path)
        if html_path is not None:
            page = page_of(work, scenarios, attentions, conventions, deployments, devices)
            write_file("--html", page, html_path)
            work.keep()
    if json_path is not None:
        from fxmeter.annotators.documents.report import to_json

        write_json(to_json(whole), json_path)
        for warning in whole.warnings:
            complain(f"warning: {warning}")
    else:
        from fxmeter.annotators.views.reports.report import report_view

        show(report_view(whole, depth=depth, ops=ops, by=ops_by, at_peak=at_peak))
    exit_unless_costed(whole.uncosted, allow_uncosted)


def _worked_out(
    work: Session,
    scenarios: Scenarios,
    attentions: Sequence[Attention],
    conventions: Conventions,
    deployment: Deployment,
    devices: Sequence[Device],
) -> Report:
    """The report, recorded and priced."""
    decoder = work.decoder(encoder=True)
    from fxmeter.annotators.api import annotate_by
    from fxmeter.annotators.stages.given import stages_of
    from fxmeter.annotators.studies.comparing.served import where_serving_differs
    from fxmeter.annotators.studies.comparing.shared import pipelined, shared_by_ranks
    from fxmeter.tracer.load.loading import EXAMPLE_INPUTS

    if (inputs := getattr(decoder, EXAMPLE_INPUTS, None)) is not None:
        return _of_module(work, decoder, inputs, attentions, conventions, devices)
    scenarios = stages_of(decoder, scenarios)
    sees = isinstance(scenarios[0], VisionScenario)
    stages = []
    for scenario in scenarios:
        for kind in attentions:
            work.say(f"recording and pricing {scenario.stage}, {kind}")
            module = work.tower if isinstance(scenario, VisionScenario) else decoder
            stages.append(annotate_by(conventions, module, scenario, attention=kind, deployment=deployment))
    if devices:
        work.say("timing kernels")
    work.say("comparing with serving kernels")
    served = where_serving_differs(decoder, stages, deployment)
    shared = shared_by_ranks(decoder, stages, deployment)
    info = work.info(deployment, sees=sees)
    beside: Kwargs = {"served": served, "shared": shared, "pipelines": pipelined(stages, deployment, devices)}
    return build_report(info, stages, end_to_end=sees, devices=devices, **beside)


def _of_module(
    work: Session,
    module: nn.Module,
    inputs: Sequence[Any],
    attentions: Sequence[Attention],
    conventions: Conventions,
    devices: Sequence[Device],
) -> Report:
    """The report on one call of a module that the user's own code built, with the inputs that came with it."""
    from fxmeter.annotators.api import annotate_module

    causal, routing = conventions.causal, conventions.routing
    stages = [
        annotate_module(module, args=inputs, attention=kind, causal=causal, routing=routing) for kind in attentions
    ]
    return build_report(work.info(), stages, devices=devices)


def _check_timeline(path: str | None, json_path: str | None) -> None:
    """Refuse before the work a file that could not be written after it."""
    if path is None:
        return
    if not path.endswith((".json", ".svg")):
        raise click.UsageError(f"--memory-timeline {path}: name a .json file for a trace, or a .svg file for a picture")
    if path == json_path:
        raise click.UsageError(f"--json and --memory-timeline both name {path}")
    if path.endswith(".svg") and find_spec("matplotlib") is None:
        raise FxmeterError(
            "a picture needs matplotlib: pip install 'fxmeter[plot]', or give --memory-timeline a .json file, a trace"
        )


def _fullest_step(stage: ReportedStage) -> Scenario | MixedStep | VisionScenario | None:
    """The pass that has the stage's peak: of a generation one of its steps, of a prompt one of its chunks."""
    scenario, peak = stage.scenario, stage.at_peak
    if isinstance(scenario, Scenario) and peak is not None and peak.past_len is not None:
        return next(one for one in scenario.passes if one.past_len == peak.past_len)
    return scenario


def _timelines(work: Session, report: Report, deployment: Deployment, path: str) -> str:
    """Every stage once more, all layers of its fullest step recorded, as the text of the file at ``path``."""
    load_libraries()
    from fxmeter.annotators.api import annotate_by
    from fxmeter.annotators.documents.chrome_trace import trace_text
    from fxmeter.annotators.documents.head import conventions_of
    from fxmeter.annotators.plots.memory import timeline_svg
    from fxmeter.annotators.studies.timeline import timeline_of
    from fxmeter.models.version import versions

    timelines = []
    for stage in report.stages:
        one = _fullest_step(stage)
        if one is not None:
            work.say(f"recording all layers of {one.stage}, {stage.attention}")
            module = work.tower if isinstance(one, VisionScenario) else work.decoder(encoder=True)
            how: Kwargs = {"attention": stage.attention, "deployment": deployment, "fold": False}
            timelines.append(timeline_of(annotate_by(report.conventions, module, one, **how)))
    if path.endswith(".svg"):
        return timeline_svg(timelines, report.model.name)
    conventions = conventions_of(report.model, report.conventions)
    return trace_text(timelines, {"model": report.model.name, "versions": versions(), "conventions": conventions})
