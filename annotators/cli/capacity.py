"""``fxmeter capacity``: what a machine must do, and hold, to serve a model."""

from __future__ import annotations

import re
import sys
from typing import Any

import click

from fxmeter.annotators.cli.axes import axes_of, axis_options, forms_of
from fxmeter.annotators.cli.conventions import convention_options
from fxmeter.annotators.cli.output import (
    EXIT_UNCOSTED,
    check_writable,
    complain,
    progress,
    quiet_transformers,
    write_json,
)

DEFAULT_PREFILL = (1024, 4096, 16384, 65536)
_BYTES = {
    "B": 1,
    **{f"{p}iB": 2 ** (10 * (i + 1)) for i, p in enumerate("KMGTP")},
    **{f"{p}B": 10 ** (3 * (i + 1)) for i, p in enumerate("kMGTP")},
}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


class Bytes(click.ParamType):
    """An amount of memory with its unit: 80GiB (2^30 bytes each), 24GB (10^9)."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Whole bytes, or a usage error that says what is accepted."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", str(value).strip())
        unit = {name.lower(): size for name, size in _BYTES.items()}.get(found[2].lower()) if found else None
        if found is None or unit is None:
            self.fail(f"{value!r} needs a number and a unit, such as 80GiB (2^30 bytes) or 24GB (10^9)", param, ctx)
        whole, _, decimals = found[1].partition(".")
        amount = int(whole + decimals) * unit // 10 ** len(decimals)
        if amount == 0:
            self.fail(f"{value!r} is no memory at all", param, ctx)
        return amount


class Positive(click.ParamType):
    """A number above 0. With ``unit``, a time in seconds: a plain number counts in that unit, others may be named."""

    name = "number"

    def __init__(self, unit: str | None = None) -> None:
        self.unit = unit

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number, or a usage error that says what is accepted."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)\s*(us|ms|s)?", str(value).strip())
        if found is None or (found[2] and not self.unit):
            self.fail(
                f"{value!r} is not a number" + (", or a time such as 50ms or 1s" if self.unit else ""), param, ctx
            )
        number = float(found[1]) * _SECONDS[found[2] or self.unit or "s"]
        if not 0 < number < float("inf"):
            self.fail(f"{value!r} must be above 0", param, ctx)
        return number


@click.command(short_help="FLOP/s, bandwidth and memory that serving a model needs.")
@click.argument("model")
@axis_options
@click.option(
    "--attention",
    type=click.Choice(["eager", "flash"]),
    default="flash",
    show_default=True,
    help="The model's own attention code, or one fused core per layer, e.g. --attention eager.",
)
@convention_options
@click.option(
    "--ttft", type=Positive("s"), default="1s", show_default=True, help="Target: time to first token, e.g. --ttft 2s."
)
@click.option(
    "--tpot", type=Positive("ms"), default="50ms", show_default=True, help="Target: time per token, e.g. --tpot 20ms."
)
@click.option("--memory", type=Bytes(), metavar="SIZE", help="Memory to fit into, e.g. --memory 80GiB.")
@click.option(
    "--measured-prefill-ms",
    "prefill_s",
    type=Positive("ms"),
    metavar="MS",
    help="A measured time, e.g. --measured-prefill-ms 83.",
)
@click.option(
    "--measured-decode-ms",
    "decode_s",
    type=Positive("ms"),
    metavar="MS",
    help="Of one step, e.g. --measured-decode-ms 4.1.",
)
@click.option("--peak-tflops", type=Positive(), metavar="N", help="For the MFU, e.g. --peak-tflops 989.")
@click.option("--peak-tbps", type=Positive(), metavar="N", help="For the bandwidth's share, e.g. --peak-tbps 3.35.")
@click.option("--markdown", is_flag=True, help="Markdown instead of tables, e.g. capacity M --markdown.")
@click.option(
    "--json",
    "json_path",
    is_flag=False,
    flag_value="-",
    metavar="[FILE]",
    help="JSON to stdout, or to FILE, instead of tables, e.g. --json capacity.json.",
)
@click.option(
    "--allow-uncosted", is_flag=True, help="Exit 0 though ops have no rule, e.g. capacity M --allow-uncosted."
)
def capacity(
    model: str,
    prefill: tuple[int, ...] | None,
    decode: tuple[int, ...] | None,
    crops: tuple[tuple[int, int], ...] | None,
    batch: tuple[int, ...],
    steps: tuple[int, ...],
    attention: Any,
    ttft: float,
    tpot: float,
    memory: int | None,
    prefill_s: float | None,
    decode_s: float | None,
    peak_tflops: float | None,
    peak_tbps: float | None,
    markdown: bool,
    json_path: str | None,
    allow_uncosted: bool,
    **conventions: Any,
) -> None:
    """What a machine must do, and hold, to serve MODEL, by input shape.

    Needed TFLOP/s = FLOPs / target, TB/s = bytes moved / target: of vision and prefill for the time to first token, of
    one decode step (the mean of --steps) for the time per output token; bytes op by op, and with chains of ops fused.
    Memory = weights + KV cache after the last step + peak activations, the most of any stage. Largest batch and
    longest context are exact: one more does not fit. MFU = matmul FLOPs / (measured time x peak), the bandwidth's
    share = bytes / (measured time x peak). No device is assumed: the peaks are yours. docs/capacity.md says more.

    LIST is as for `fxmeter sweep`; without one, prompts of 1k, 4k, 16k and 64k tokens with decode after them.

    \b
    fxmeter capacity llama-3.1-8b --prefill 1k,8k,32k --batch 1,16 --memory 80GiB
    fxmeter capacity deepseek-ocr --crops 1x2,3x3 --steps 100 --ttft 0.5 --tpot 20ms
    fxmeter capacity qwen3-8b --prefill 4k --measured-prefill-ms 83 --peak-tflops 989 --peak-tbps 3.35
    """
    if prefill is None and decode is None and crops is None:
        prefill = DEFAULT_PREFILL
    axes = axes_of({"prefill": prefill, "decode": decode, "crops": crops, "batch": batch, "steps": steps})
    timed = prefill_s is not None or decode_s is not None
    if not timed and (peak_tflops is not None or peak_tbps is not None):
        raise click.UsageError("a peak is for a measured time; give --measured-prefill-ms or --measured-decode-ms too")
    if timed and len(axes) > 1:
        raise click.UsageError(f"a measured time is of one input shape, and these are {len(axes)}; give one of each")
    if prefill_s is not None and axes.decode and not axes.prefill:
        raise click.UsageError("--measured-prefill-ms needs a prompt; give --prefill or --crops")
    if markdown and json_path:
        raise click.UsageError("--markdown and --json both say how to print; give one")
    from fxmeter.models.source import locate

    locate(model)
    check_writable("--json", json_path)
    with progress("loading torch and transformers") as say:
        quiet_transformers()
        from fxmeter.annotators.documents.capacity import to_json
        from fxmeter.annotators.studies.capacity import Measured
        from fxmeter.annotators.studies.capacity import capacity as evaluate

        say(f"building {model} on meta")
        forms = forms_of(model, axes, conventions)
        say("finding closed forms")
        measured = Measured(prefill_s=prefill_s, decode_s=decode_s, peak_tflops=peak_tflops, peak_tbps=peak_tbps)
        done = [0]

        def advance(count: int) -> None:
            done[0] += count
            say(f"fitting input shapes: {done[0]} of {len(axes)}")

        found = evaluate(
            forms,
            axes,
            attention=attention,
            ttft_s=ttft,
            tpot_s=tpot,
            memory_bytes=memory,
            measured=measured if timed else None,
            advance=advance,
        )
    if json_path is not None:
        write_json("--json", to_json(found), json_path)
    else:
        from fxmeter.annotators.views.capacity import capacity_markdown, capacity_view

        if markdown:
            sys.stdout.write(capacity_markdown(found))
        else:
            from fxmeter.annotators.views.console import stdout_console

            stdout_console().print(capacity_view(found))
    if found.uncosted and not allow_uncosted:
        complain(
            f"{found.uncosted} op executions have no rule; their FLOPs are missing (--allow-uncosted accepts that)"
        )
        sys.exit(EXIT_UNCOSTED)
