"""``fxmeter crosscheck``: the trace against the hand-written layer models."""

from __future__ import annotations

import sys
from typing import Any

import click

from fxmeter.annotators.cli.output import EXIT_ERROR, check_writable, complain, progress, quiet_transformers, write_json
from fxmeter.annotators.cli.types import Pair, Size


@click.command(short_help="Traced against hand-written, module by module.")
@click.argument("model", default="deepseek-ocr")
@click.option("--prefill", type=Size(1), default=1024, metavar="S", show_default=True, help="e.g. --prefill 64.")
@click.option("--decode", type=Size(0), default=1024, metavar="C", show_default=True, help="e.g. --decode 8192.")
@click.option("--batch", type=Size(1), default=1, metavar="B", show_default=True, help="e.g. --batch 8.")
@click.option("--crops", type=Pair("1x2"), default="1x2", metavar="HxW", show_default=True, help="e.g. --crops 3x3.")
@click.option(
    "--attention",
    type=click.Choice(["eager", "flash", "both"]),
    default="both",
    show_default=True,
    help="Which attention to check, e.g. --attention flash.",
)
@click.option("--depth", type=Size(0), default=5, metavar="D", show_default=True, help="Levels shown, e.g. --depth 3.")
@click.option(
    "--json",
    "json_path",
    is_flag=False,
    flag_value="-",
    metavar="[FILE]",
    help="JSON to stdout, or to FILE, instead of tables, e.g. --json check.json.",
)
def crosscheck(
    model: str,
    prefill: int,
    decode: int,
    batch: int,
    crops: tuple[int, int],
    attention: str,
    depth: int,
    json_path: str | None,
) -> None:
    """Compare the trace with layer models written by hand from the architecture, module by module.

    FLOPs, weights and KV must be equal to the unit, activations and I/O inside a band, whose tensors
    docs/layer_io_estimation_guide.md names. Exit 1 where one is not. MODEL is deepseek-ocr (with its vision tower),
    or any Llama or DeepSeek-V2/V3 preset or config.

    \b
    fxmeter crosscheck
    fxmeter crosscheck deepseek-v3 --decode 8192 --batch 8
    """
    from fxmeter.models.source import locate

    found = locate(model)
    check_writable("--json", json_path)
    with progress("loading torch and transformers") as say:
        quiet_transformers()
        from fxmeter.annotators.documents.head import head
        from fxmeter.annotators.studies.crosscheck import check_decoder, check_vision, to_json
        from fxmeter.models import scenario as make
        from fxmeter.tracer.load.loading import load_model, read_fields
        from fxmeter.tracer.load.vision import load_vision

        kinds: tuple[Any, ...] = ("eager", "flash") if attention == "both" else (attention,)
        fields, _ = read_fields(model)
        built = load_model(model)
        tower = load_vision(model) if getattr(found, "vision", "") else None
        checks = []
        for kind in kinds:
            if tower is not None:
                say(f"vision, {kind}")
                checks.append(check_vision(tower, make.vision(crops=crops, batch=batch), kind))
            for scenario in (make.prefill(prefill, batch=batch), make.decode(decode, batch=batch)):
                say(f"{scenario.stage}, {kind}")
                checks.append(check_decoder(built, fields, scenario, kind))
    failures = [row for check in checks for row in check.failures]
    if json_path is None:
        from fxmeter.annotators.views.console import stdout_console
        from fxmeter.annotators.views.crosscheck import crosscheck_view

        stdout_console().print(crosscheck_view(model, checks, depth))
    else:
        data = {**head(), "model": model, "ok": not failures, "stages": to_json(checks)}
        write_json("--json", data, json_path)
    if failures:
        first = failures[0]
        complain(
            f"{len(failures)} comparisons do not hold, the first: {first.path or '(root)'} {first.field}: "
            f"traced {first.traced:,}, hand-written {first.hand_written:,}"
        )
        sys.exit(EXIT_ERROR)
