"""Lists of sizes as options: the axes of sweeps and of capacity."""

from __future__ import annotations

from typing import Any

import click

from fxmeter.annotators.cli.engine import chunk_option
from fxmeter.annotators.cli.options import encoder_len_option
from fxmeter.annotators.cli.values import Decorator, Read, gathered, sizes
from fxmeter.annotators.studies.axes import Axes, read_grids


def axis_options(*, prompts: tuple[int, ...] = (), chunks: bool = False) -> Decorator:
    """--prefill, --decode, --crops, --batch and --steps, each a list, and --encoder-len as ``axes``; ``prompts`` where
    none is given. With ``chunks`` --chunk too."""

    def make(prefill: Any, decode: Any, crops: Any, batch: Any, steps: Any, **single: Any) -> Axes:
        if prefill is None and decode is None and crops is None:
            prefill = prompts
        lists = {"prefill": prefill or (), "decode": decode or (), "crops": crops or (), "batch": batch, "steps": steps}
        return Axes(**lists, **single)

    def option(flag: str, least: int, help: str, default: str | None = None) -> Decorator:
        kind = sizes(least)
        return click.option(flag, type=kind, metavar="LIST", help=help, default=default, show_default=True)

    return gathered(
        "axes",
        make,
        option("--prefill", 1, "Prompt lengths, e.g. --prefill 512:65536:512."),
        option("--decode", 0, "Cached tokens, e.g. --decode 1k:128k:*2."),
        click.option(
            "--crops",
            type=Read("grids", read_grids),
            metavar="LIST",
            help="Pages by their grids, rows x columns, e.g. --crops 1x1:20x20.",
        ),
        option("--batch", 1, "Sequences, e.g. --batch 1,8,64.", "1"),
        option("--steps", 1, "Tokens to decode, one at a time, e.g. --steps 100.", "1"),
        encoder_len_option,
        *((chunk_option,) if chunks else ()),
    )
