"""``fxmeter devices``: the accelerators known by name, and one of them in full."""

from __future__ import annotations

import click

from fxmeter.annotators.cli.options import json_option
from fxmeter.annotators.cli.output import check_writable, show, write_json
from fxmeter.models.devices import device, device_names


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
