"""``fxmeter calibrate``: measure this machine into a device file."""

from __future__ import annotations

import json
from typing import Any

import click

from fxmeter.annotators.cli.output import check_writable, progress, show, write_file


@click.command(short_help="Measure this machine into a device file.")
@click.option("--out", required=True, metavar="FILE", help="Where to write it, e.g. --out my-machine.json.")
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="What to measure, e.g. --device cuda.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(1, 600),
    default=30.0,
    show_default=True,
    metavar="N",
    help="About how long it may take, e.g. --seconds 10.",
)
def calibrate(out: str, device: Any, seconds: float) -> None:
    """Measure products by dtype and rows, bandwidth, launches, attention and elementwise kernels of this machine.

    The file works wherever a device's name does. Peaks in it are the best that was measured; the spread of the repeats
    is in it too: a machine that does other work at the same time gives poor figures.

    \b
    fxmeter calibrate --out my-machine.json
    fxmeter report qwen3-8b --device my-machine.json
    """
    check_writable("--out", out)
    with progress("loading torch") as say:
        from fxmeter.annotators.timing.calibrate import calibrate as measure

        fields = measure(device, seconds=seconds, say=lambda what: say(f"measuring {what}"))
    write_file("--out", json.dumps(fields, indent=1) + "\n", out)
    from fxmeter.annotators.views.devices import device_view
    from fxmeter.models.devices import device as device_at

    show(device_view(device_at(out)))
