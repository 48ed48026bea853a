"""The command line: parses, calls the library, prints. torch is imported only when a command needs it."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from models.errors import FxmeterError

EXIT_ERROR, EXIT_USAGE, EXIT_UNCOSTED, EXIT_INTERRUPTED = 1, 2, 3, 130
DEFAULT_PREFILL = DEFAULT_DECODE = 2048


class Size(click.ParamType):
    """A whole number of at least ``least``; "4k" and "1M" are 4·1024 and 1024·1024."""

    name = "integer"

    def __init__(self, least: int) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number, or a usage error that says what is accepted."""
        text = str(value).strip().replace("_", "")
        factor = {"k": 2**10, "K": 2**10, "m": 2**20, "M": 2**20}.get(text[-1:], 1)
        try:
            number = int(text[:-1] if factor > 1 else text) * factor
        except ValueError:
            self.fail(f"{value!r} is not a whole number", param, ctx)
        from models.scenario import LARGEST_SIZE

        if number < self.least:
            self.fail(f"{number} is too small: at least {self.least}", param, ctx)
        if number > LARGEST_SIZE:
            self.fail(f"{number} is too large: at most {LARGEST_SIZE:,}", param, ctx)
        return number


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="fxmeter")
def cli() -> None:
    """What one forward pass of an LLM decoder costs, from its config.json alone.

    FLOPs, bytes moved, activations and KV cache; no weights, no GPU.

    \b
    fxmeter report deepseek-ocr
    fxmeter report llama-3.1-8b --prefill 8k --decode 8k --batch 16
    fxmeter report ./my-model/config.json --decode 4096 --json cost.json
    """


@cli.command(short_help="What prefill and decode of a model cost.")
@click.argument("model", required=False)
@click.option("--prefill", type=Size(1), metavar="S", help="Prompt tokens to process, e.g. --prefill 4096.")
@click.option("--decode", type=Size(0), metavar="C", help="Cached tokens before the new one, e.g. --decode 4096.")
@click.option("--batch", type=Size(1), default=1, metavar="B", show_default=True, help="Sequences, e.g. --batch 8.")
@click.option(
    "--attention",
    type=click.Choice(["eager", "flash", "both"]),
    default="both",
    show_default=True,
    help="The model's own attention code, one fused core per layer, or both side by side, e.g. --attention flash.",
)
@click.option(
    "--causal",
    type=click.Choice(["full", "exact"]),
    default="full",
    show_default=True,
    help="Pairs a fused attention core computes: every one, or only those its mask lets through, e.g. --causal exact.",
)
@click.option(
    "--logits",
    type=click.Choice(["all", "last"]),
    default="all",
    show_default=True,
    help="Logits of all positions (forward) or of the last one (generate), e.g. --logits last.",
)
@click.option(
    "--routing",
    type=click.Choice(["uniform", "worst"]),
    default="uniform",
    show_default=True,
    help="Expert weights read: expected under uniform routing, or the most possible, e.g. --routing worst.",
)
@click.option(
    "--dtype",
    type=click.Choice(["bfloat16", "float16", "float32", "float64"]),
    help="Of weights, cache and activations; default: the checkpoint's own, e.g. --dtype float16.",
)
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
    "--json",
    "json_path",
    is_flag=False,
    flag_value="-",
    metavar="[FILE]",
    help="JSON to stdout, or to FILE, instead of tables, e.g. --json cost.json.",
)
@click.option(
    "--allow-uncosted", is_flag=True, help="Exit 0 although ops have no rule, e.g. report M --allow-uncosted."
)
def report(
    model: str | None,
    prefill: int | None,
    decode: int | None,
    batch: int,
    attention: str,
    causal: Any,
    logits: Any,
    routing: Any,
    dtype: str | None,
    depth: int,
    ops: int,
    json_path: str | None,
    allow_uncosted: bool,
) -> None:
    """What one prefill and one decode step of MODEL cost.

    MODEL is a preset (see `fxmeter models`), a folder or config.json, or a Hub id. With neither --prefill nor --decode,
    both are shown at 2048 tokens.

    \b
    fxmeter report deepseek-v3 --decode 32k --batch 64 --attention flash
    fxmeter report qwen3-8b --prefill 512 --json | jq .stages[0].cost
    """
    if model is None:
        swallowed = f"; {json_path!r} was taken as the FILE of --json, so put MODEL first" if json_path else ""
        raise click.UsageError(f"Missing argument 'MODEL'{swallowed if json_path != '-' else ''}")
    from models.source import locate

    locate(model)
    _check_writable(json_path)
    with _progress("loading torch and transformers") as say:
        _quiet_transformers()
        from annotators.annotation import annotate
        from annotators.report import build_report, to_json
        from models.scenario import decode as decode_scenario
        from models.scenario import prefill as prefill_scenario
        from tracer.loading import load_model

        say(f"building {model} on meta")
        built = load_model(model, dtype=dtype)
        both = prefill is None and decode is None
        scenarios = []
        if prefill is not None or both:
            scenarios.append(prefill_scenario(DEFAULT_PREFILL if prefill is None else prefill, batch=batch))
        if decode is not None or both:
            scenarios.append(decode_scenario(DEFAULT_DECODE if decode is None else decode, batch=batch))
        _warn_of_length(built, max(s.kv_len for s in scenarios))
        stages = []
        for scenario in scenarios:
            for kind in ("eager", "flash") if attention == "both" else (attention,):
                say(f"recording and pricing {scenario.stage}, {kind}")
                stages.append(annotate(built, scenario, attention=kind, causal=causal, logits=logits, routing=routing))
        made = build_report(built, stages)
    if json_path is None:
        from annotators.console import stdout_console
        from annotators.render import report_view

        stdout_console().print(report_view(made, depth=depth, ops=ops))
    else:
        _write_json(to_json(made), json_path)
    if made.uncosted and not allow_uncosted:
        _complain(
            f"{made.uncosted} op executions have no rule; their FLOPs are missing (--allow-uncosted accepts that)"
        )
        sys.exit(EXIT_UNCOSTED)


@cli.command(short_help="Every preset, with its size and source.")
def models() -> None:
    """Every preset, with its parameters and where its config comes from.

    \b
    fxmeter models
    """
    from annotators.console import plain_table, stdout_console
    from models.presets import preset, preset_names

    table = plain_table()
    table.add_column("preset", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("source", overflow="fold")
    for name in preset_names():
        item = preset(name)
        table.add_row(name, f"{item.parameters:,}", item.source)
    stdout_console().print(table)


@cli.command(name="ops", short_help="Every op that has a rule: its equation, or why it is free.")
@click.argument("pattern", default="")
def list_ops(pattern: str) -> None:
    """Every op that has a rule: its equation, or the reason why it is free.

    PATTERN keeps the ops whose name contains it.

    \b
    fxmeter ops
    fxmeter ops softmax
    """
    with _progress("loading torch"):
        import annotators.rules  # noqa: F401  registers every rule
        from annotators.console import plain_table, stdout_console
        from annotators.registry import rules
    table = plain_table()
    table.add_column("op", no_wrap=True)
    table.add_column("FLOPs", overflow="fold")
    shown = [rule for rule in rules() if pattern in str(rule.op)]
    if not shown:
        raise FxmeterError(f"no rule for an op with {pattern!r} in its name; `fxmeter ops` lists them all")
    for item in shown:
        table.add_row(str(item.op), f"0: {item.equation}" if item.kind == "free" else item.equation)
    stdout_console().print(table)


def main() -> None:
    """Entry point: one line and an exit code for whatever goes wrong."""
    try:
        code = cli.main(standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        _complain("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    except KeyboardInterrupt:
        _complain("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "fxmeter"
        _complain(f"{error.format_message()} (`{command} --help` shows what it takes)")
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        _complain(error.format_message())
        sys.exit(error.exit_code)
    except FxmeterError as error:
        _complain(str(error))
        sys.exit(EXIT_ERROR)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        _complain(f"{error.filename or 'output'}: {error.strerror or error}")
        sys.exit(EXIT_ERROR)


def _complain(message: str) -> None:
    print(f"fxmeter: {message}", file=sys.stderr)


def _warn_of_length(model: Any, tokens: int) -> None:
    from annotators.report import ModelInfo

    limit = ModelInfo.of(model).max_positions
    if limit is not None and tokens > limit:
        _complain(f"warning: {tokens:,} tokens are more than this model's max_position_embeddings, {limit:,}")


def _quiet_transformers() -> None:
    import logging

    import transformers

    transformers.logging.set_verbosity_error()
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)


@contextmanager
def _progress(first: str) -> Iterator[Callable[[str], None]]:
    """A line on stderr that says what is going on, gone when it is over."""
    from rich.console import Console

    with Console(stderr=True).status(first) as status:
        yield lambda text: status.update(text)


def _check_writable(path: str | None) -> None:
    """Refuse before the work what could not be written after it."""
    if path is None or path == "-":
        return
    folder = Path(path).absolute().parent
    if Path(path).is_dir():
        raise FxmeterError(f"--json {path}: is a folder; name a file")
    if not folder.is_dir():
        raise FxmeterError(f"--json {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise FxmeterError(f"--json {path}: the folder {folder} is not writable")


def _write_json(data: Any, path: str) -> None:
    """To stdout, or to a file that is whole or not there."""
    text = json.dumps(data, indent=2) + "\n"
    if path == "-":
        sys.stdout.write(text)
        return
    target = Path(path).absolute()
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=target.parent, prefix=f".{target.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            try:
                file.write(text)
                file.flush()
                temporary.replace(target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise FxmeterError(f"--json {path}: {error.strerror or error}") from None


if __name__ == "__main__":
    main()
