"""``fxmeter models``, ``fxmeter devices`` and ``fxmeter ops``: what fxmeter knows by name."""

from __future__ import annotations

import json
from importlib.resources import files

import click

from fxmeter.annotators.cli.options import json_option
from fxmeter.annotators.cli.output import check_writable, show, write_json
from fxmeter.models.devices import device, device_names
from fxmeter.models.errors import FxmeterError


@click.command(short_help="Every preset: layers, experts, parameters, context, cache, format.")
@json_option
def models(json_path: str | None) -> None:
    """Every preset in a line, with whose config it has.

    \b
    fxmeter models
    fxmeter models --json models.json
    """
    check_writable("--json", json_path)
    from fxmeter.models.catalogue import catalogue

    if json_path is not None:
        from dataclasses import asdict

        write_json([asdict(item) for item in catalogue()], json_path)
    else:
        from fxmeter.annotators.views.catalogue import catalogue_view

        show(catalogue_view(catalogue()))


@click.command(short_help="Accelerators: peaks, bandwidth, memory, and where each number is from.")
@click.argument("name", required=False)
@json_option
def devices(name: str | None, json_path: str | None) -> None:
    """Accelerators known by name; with NAME, everything about one: each number, its sources, what kernels reach.

    NAME is a name, an alias, or the path of a device file. Peaks are dense. The JSON of one device is a device file:
    save it, change it, and give its path as a device.

    \b
    fxmeter devices
    fxmeter devices h100-sxm5-80g
    fxmeter devices a100 --json my-a100.json
    """
    check_writable("--json", json_path)
    known = [device(each) for each in (device_names() if name is None else (name,))]
    if json_path is not None:
        from fxmeter.annotators.documents.devices import to_json

        found = [to_json(each) for each in known]
        write_json(found if name is None else found[0], json_path)
    else:
        from fxmeter.annotators.views.devices import device_view, devices_view

        show(devices_view(known) if name is None else device_view(known[0]))


@click.command(name="ops", short_help="Every op that has a rule: its equation, or why it is free.")
@click.argument("pattern", default="")
def ops(pattern: str) -> None:
    """Every op that has a rule: its equation, or the reason why it is free.

    PATTERN keeps the ops whose name contains it.

    \b
    fxmeter ops
    fxmeter ops softmax
    """
    from fxmeter.annotators.views.console import Grid, names

    table_file = files("fxmeter.annotators") / "rules" / "ops.json"  # the registry itself needs torch
    known: dict[str, str] = json.loads(table_file.read_text(encoding="utf-8"))
    shown = {op: equation for op, equation in known.items() if pattern in op}
    if not shown:
        raise FxmeterError(f"no rule for an op with {pattern!r} in its name; `fxmeter ops` lists them all")
    show(Grid("", names("op", "FLOPs"), [[op, equation] for op, equation in shown.items()]))
