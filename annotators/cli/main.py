"""The command line: parses, calls the library, prints. torch is imported only when a command needs it."""

from __future__ import annotations

import os
import sys

import click

from fxmeter.annotators.cli.commands.cache import cache
from fxmeter.annotators.cli.commands.calibrate import calibrate
from fxmeter.annotators.cli.commands.capacity import capacity
from fxmeter.annotators.cli.commands.catalogue import devices, models, ops
from fxmeter.annotators.cli.commands.compare import compare
from fxmeter.annotators.cli.commands.crosscheck import crosscheck
from fxmeter.annotators.cli.commands.diff import diff
from fxmeter.annotators.cli.commands.explain import explain
from fxmeter.annotators.cli.commands.explore import explore
from fxmeter.annotators.cli.commands.formula import formula
from fxmeter.annotators.cli.commands.lock import check, lock
from fxmeter.annotators.cli.commands.report import report
from fxmeter.annotators.cli.commands.sweep import sweep
from fxmeter.annotators.cli.commands.time import time
from fxmeter.annotators.cli.output import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_USAGE, Failed, complain
from fxmeter.annotators.cli.values import each_once
from fxmeter.models.errors import FxmeterError
from fxmeter.models.version import VERSION


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION)
def cli() -> None:
    """What one forward pass of an LLM decoder costs, from its config.json alone.

    FLOPs, bytes moved, activations and KV cache; no weights, no GPU.

    \b
    fxmeter report deepseek-ocr
    fxmeter report llama-3.1-8b --prefill 8k --decode 8k --batch 16
    fxmeter report ./my-model/config.json --decode 4096 --json cost.json
    """


for command in (
    report,
    time,
    crosscheck,
    capacity,
    diff,
    compare,
    lock,
    check,
    formula,
    sweep,
    explore,
    models,
    devices,
    calibrate,
    ops,
    explain,
    cache,
):
    cli.add_command(each_once(command))


def main() -> None:
    """Entry point: one line and an exit code for whatever goes wrong."""
    try:
        code = cli.main(prog_name="fxmeter", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (Exception, KeyboardInterrupt) as error:
        message, code = _explained(error)
        complain(message)
        sys.exit(code)


def _explained(error: BaseException) -> tuple[str, int]:
    """One line for a person, and the exit code."""
    match error:
        case KeyboardInterrupt() | click.exceptions.Abort():
            return "interrupted", EXIT_INTERRUPTED
        case click.UsageError():
            command = error.ctx.command_path if error.ctx else "fxmeter"
            return f"{error.format_message()} (`{command} --help` shows what it takes)", EXIT_USAGE
        case click.ClickException():
            return error.format_message(), error.exit_code
        case Failed():
            return str(error), error.code
        case FxmeterError():
            return str(error), EXIT_ERROR
        case OSError():
            return f"{error.filename or 'output'}: {error.strerror or error}", EXIT_ERROR
        case MemoryError():
            return "not enough memory for this model and these sizes", EXIT_ERROR
        case _ if os.environ.get("FXMETER_TRACEBACK"):
            raise error
    text = " ".join(str(error).split())[:300]
    return f"unexpected {type(error).__name__}: {text} (a defect: FXMETER_TRACEBACK=1 shows where)", EXIT_ERROR


if __name__ == "__main__":
    main()
