"""Options that say how to count, the same for every command that prices a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

_OPTIONS = (
    click.option(
        "--causal",
        type=click.Choice(["full", "exact"]),
        default="full",
        show_default=True,
        help="Pairs a fused attention core computes: all, or those its mask lets through, e.g. --causal exact.",
    ),
    click.option(
        "--logits",
        type=click.Choice(["all", "last"]),
        default="all",
        show_default=True,
        help="Logits of all positions (forward) or of the last one (generate), e.g. --logits last.",
    ),
    click.option(
        "--routing",
        type=click.Choice(["uniform", "worst"]),
        default="uniform",
        show_default=True,
        help="Expert weights read: expected under uniform routing, or the most possible, e.g. --routing worst.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["bfloat16", "float16", "float32", "float64"]),
        help="Of weights, cache and activations; default: the checkpoint's own, e.g. --dtype float16.",
    ),
)


def convention_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--causal, --logits, --routing and --dtype."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
