"""The command line: parses, calls the library, prints. torch is imported only when a command needs it."""

from __future__ import annotations

import os
import sys

import click

from fxmeter.annotators.cli.capacity import capacity
from fxmeter.annotators.cli.crosscheck import crosscheck
from fxmeter.annotators.cli.formula import formula
from fxmeter.annotators.cli.output import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_USAGE, complain, progress
from fxmeter.annotators.cli.report import report
from fxmeter.annotators.cli.sweep import sweep
from fxmeter.models.errors import FxmeterError


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


cli.add_command(report)
cli.add_command(crosscheck)
cli.add_command(capacity)
cli.add_command(formula)
cli.add_command(sweep)


@cli.command(short_help="Every preset, with its size and source.")
def models() -> None:
    """Every preset, with its parameters and where its config comes from.

    \b
    fxmeter models
    """
    from fxmeter.annotators.views.console import plain_table, stdout_console
    from fxmeter.models.presets import preset, preset_names

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
    with progress("loading torch"):
        import fxmeter.annotators.rules  # noqa: F401  registers every rule
        from fxmeter.annotators.rules.registry import rules
        from fxmeter.annotators.views.console import plain_table, stdout_console
    table = plain_table()
    table.add_column("op", overflow="fold", max_width=46)
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
        complain("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "fxmeter"
        complain(f"{error.format_message()} (`{command} --help` shows what it takes)")
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        complain(error.format_message())
        sys.exit(error.exit_code)
    except FxmeterError as error:
        complain(str(error))
        sys.exit(EXIT_ERROR)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        complain(f"{error.filename or 'output'}: {error.strerror or error}")
        sys.exit(EXIT_ERROR)
    except MemoryError:
        complain("not enough memory for this model and these sizes")
        sys.exit(EXIT_ERROR)
    except Exception as error:
        if os.environ.get("FXMETER_TRACEBACK"):
            raise
        text = " ".join(str(error).split())[:300]
        complain(f"unexpected {type(error).__name__}: {text} (a defect: FXMETER_TRACEBACK=1 shows where)")
        sys.exit(EXIT_ERROR)


if __name__ == "__main__":
    main()
