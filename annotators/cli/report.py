"""``fxmeter report``: what the stages of a model cost."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

import click

from fxmeter.annotators.cli.conventions import convention_options
from fxmeter.annotators.cli.output import (
    EXIT_UNCOSTED,
    check_writable,
    complain,
    progress,
    quiet_transformers,
    write_file,
    write_json,
)
from fxmeter.annotators.cli.types import Pair, Size
from fxmeter.models.errors import FxmeterError

DEFAULT_PREFILL = DEFAULT_DECODE = 2048


@click.command(short_help="What prefill and decode of a model cost.")
@click.argument("model", required=False)
@click.option("--prefill", type=Size(1), metavar="S", help="Prompt tokens to process, e.g. --prefill 4096.")
@click.option("--decode", type=Size(0), metavar="C", help="Cached tokens before the new one, e.g. --decode 4096.")
@click.option(
    "--steps", type=Size(1), metavar="K", help="Tokens to decode, one at a time, e.g. --decode 493 --steps 100."
)
@click.option(
    "--crops", type=Pair("1x2"), metavar="HxW", help="Read a page: global view and H rows of W crops, e.g. --crops 1x2."
)
@click.option(
    "--page",
    type=Pair("1280x640"),
    metavar="WIDTHxHEIGHT",
    help="Read a page of that many pixels, cropped as the vendor does, e.g. --page 1280x640.",
)
@click.option("--batch", type=Size(1), default=1, metavar="B", show_default=True, help="Sequences, e.g. --batch 8.")
@click.option(
    "--attention",
    type=click.Choice(["eager", "flash", "both"]),
    default="both",
    show_default=True,
    help="The model's own attention code, one fused core per layer, or both side by side, e.g. --attention flash.",
)
@convention_options
@click.option(
    "--depth",
    type=Size(0),
    default=3,
    metavar="D",
    show_default=True,
    help="Levels of the module tree, e.g. --depth 2.",
)
@click.option(
    "--ops",
    type=Size(0),
    default=6,
    metavar="N",
    show_default=True,
    help="Heaviest ops to list, e.g. --ops 20.",
)
@click.option(
    "--at-peak", is_flag=True, help="List what is alive where most memory is in use, e.g. report M --at-peak."
)
@click.option(
    "--json",
    "json_path",
    is_flag=False,
    flag_value="-",
    metavar="[FILE]",
    help="JSON to stdout, or to FILE, instead of tables, e.g. --json cost.json.",
)
@click.option(
    "--memory-timeline",
    "timeline_path",
    metavar="FILE",
    help="Memory over the pass: a trace for ui.perfetto.dev, or a .svg picture, e.g. --memory-timeline memory.json.",
)
@click.option(
    "--allow-uncosted", is_flag=True, help="Exit 0 although ops have no rule, e.g. report M --allow-uncosted."
)
def report(
    model: str | None,
    prefill: int | None,
    decode: int | None,
    steps: int | None,
    crops: tuple[int, int] | None,
    page: tuple[int, int] | None,
    batch: int,
    attention: str,
    causal: Any,
    logits: Any,
    routing: Any,
    dtype: str | None,
    depth: int,
    ops: int,
    at_peak: bool,
    json_path: str | None,
    timeline_path: str | None,
    allow_uncosted: bool,
) -> None:
    """What one prefill and one decode step of MODEL cost.

    MODEL is a preset (see `fxmeter models`), a folder or config.json, or a Hub id. With neither --prefill nor --decode,
    both are shown at 2048 tokens.

    \b
    fxmeter report deepseek-v3 --decode 32k --batch 64 --attention flash
    fxmeter report deepseek-ocr --crops 1x2 --steps 100
    fxmeter report qwen3-8b --prefill 512 --json | jq .stages[0].cost
    """
    if model is None:
        swallowed = f"; {json_path!r} was taken as the FILE of --json, so put MODEL first" if json_path else ""
        raise click.UsageError(f"Missing argument 'MODEL'{swallowed if json_path != '-' else ''}")
    from fxmeter.models.source import locate

    locate(model)
    check_writable("--json", json_path)
    _check_timeline(timeline_path, json_path)
    with progress("loading torch and transformers") as say:
        quiet_transformers()
        from fxmeter.annotators.api import annotate
        from fxmeter.annotators.documents.report import to_json
        from fxmeter.annotators.studies.report import build_report
        from fxmeter.annotators.studies.timeline import timeline_of
        from fxmeter.models.scenario import Scenario, VisionScenario
        from fxmeter.tracer.load.loading import load_model
        from fxmeter.tracer.load.vision import load_vision

        say(f"building {model} on meta")
        built = load_model(model, dtype=dtype)
        scenarios = _scenarios(prefill, decode, steps, crops, page, batch)
        tower = load_vision(model, dtype=dtype) if isinstance(scenarios[0], VisionScenario) else None
        stages, timelines = [], []
        for kind in ("eager", "flash") if attention == "both" else (attention,):
            for scenario in scenarios:
                say(f"recording and pricing {scenario.stage}, {kind}")
                module = tower if tower is not None and isinstance(scenario, VisionScenario) else built
                options: dict[str, Any] = {"causal": causal, "logits": logits, "routing": routing, "attention": kind}
                stages.append(annotate(module, scenario, **options))
                if timeline_path is not None:
                    say(f"recording all layers of {scenario.stage}, {kind}")
                    one: Any = stages[-1].fullest_step or stages[-1]
                    full = annotate(module, one.scenario, **options, fold=False)
                    timelines.append((scenarios.index(scenario), timeline_of(full)))
        stages.sort(key=lambda stage: scenarios.index(stage.scenario))
        made = build_report(built, stages, tower=tower, end_to_end=tower is not None)
        if timeline_path is not None:
            say(f"writing {timeline_path}")
            in_order = sorted(timelines, key=lambda pair: pair[0])
            _write_timelines([timeline for _, timeline in in_order], made, timeline_path)
    _warn_of_length(built, max(s.final_kv_len for s in scenarios if isinstance(s, Scenario)))
    if json_path is None:
        from fxmeter.annotators.views.console import stdout_console
        from fxmeter.annotators.views.report import report_view

        stdout_console().print(report_view(made, depth=depth, ops=ops, at_peak=at_peak))
    else:
        write_json("--json", to_json(made), json_path)
    if made.uncosted and not allow_uncosted:
        complain(f"{made.uncosted} op executions have no rule; their FLOPs are missing (--allow-uncosted accepts that)")
        sys.exit(EXIT_UNCOSTED)


def _scenarios(
    prefill: int | None,
    decode: int | None,
    steps: int | None,
    crops: tuple[int, int] | None,
    page: tuple[int, int] | None,
    batch: int,
) -> list[Any]:
    """The stages that the options of `report` ask for."""
    from fxmeter.models import scenario as make
    from fxmeter.models.page import crop_grid, page_context

    if crops is not None or page is not None:
        if crops is not None and page is not None:
            raise click.UsageError("--crops and --page both say how the page is cropped; give one")
        if prefill is not None or decode is not None:
            raise click.UsageError(
                "a page has its own context; leave --prefill and --decode out, or --crops and --page"
            )
        grid = crops if crops is not None else crop_grid(*page) if page is not None else (0, 0)
        context = page_context(grid)
        generated = make.generation(context, steps=steps or 1, batch=batch)
        return [make.vision(crops=grid, batch=batch), make.prefill(context, batch=batch), generated]
    if prefill is None and decode is None:
        prefill, decode = DEFAULT_PREFILL, DEFAULT_DECODE
    elif decode is None and steps is not None:
        decode = prefill
    stages = [] if prefill is None else [make.prefill(prefill, batch=batch)]
    return stages if decode is None else [*stages, make.generation(decode, steps=steps or 1, batch=batch)]


def _check_timeline(path: str | None, json_path: str | None) -> None:
    """Refuse before the work a file that could not be written after it."""
    if path is None:
        return
    if not path.endswith((".json", ".svg")):
        raise click.UsageError(f"--memory-timeline {path}: name a .json file for a trace, or a .svg file for a picture")
    if path == json_path:
        raise click.UsageError(f"--json and --memory-timeline both name {path}")
    check_writable("--memory-timeline", path)
    if path.endswith(".svg") and find_spec("matplotlib") is None:
        raise FxmeterError(
            "a picture needs matplotlib: pip install 'fxmeter[plot]', or give --memory-timeline a .json file, a trace"
        )


def _write_timelines(timelines: list[Any], report: Any, path: str) -> None:
    from fxmeter.annotators.documents.chrome_trace import trace_text
    from fxmeter.annotators.documents.head import conventions_of, versions
    from fxmeter.annotators.plots.memory import timeline_svg

    if path.endswith(".svg"):
        text = timeline_svg(timelines, report.model.name)
    else:
        about = {
            "model": report.model.name,
            "versions": versions(),
            "conventions": conventions_of(report.model, report.conventions),
        }
        text = trace_text(timelines, about)
    write_file("--memory-timeline", text, path)


def _warn_of_length(model: Any, tokens: int) -> None:
    from fxmeter.annotators.stages.model_info import max_positions

    limit = max_positions(model)
    if limit is not None and tokens > limit:
        complain(f"warning: {tokens:,} tokens are more than this model's max_position_embeddings, {limit:,}")
