"""``fxmeter explore``: what many architectures around a model cost."""

from __future__ import annotations

from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from fxmeter.annotators.cli.options import (
    attention_option,
    convention_options,
    deployment_options,
    devices_option,
    dtype_option,
    model_argument,
    set_option,
    uncosted_option,
)
from fxmeter.annotators.cli.output import bar, complain, exit_unless_costed, progress, show
from fxmeter.annotators.cli.session import load_libraries, session
from fxmeter.annotators.cli.values import gathered, size, sizes
from fxmeter.annotators.conventions import Conventions
from fxmeter.models import scenario as make
from fxmeter.models.choices import Attention
from fxmeter.models.deployment import Deployment
from fxmeter.models.devices import Device
from fxmeter.models.names import Kwargs
from fxmeter.models.scenario import Scenario

if TYPE_CHECKING:
    from fxmeter.annotators.documents.tables.explored import Explored
    from fxmeter.annotators.studies.architectures.explore import Exploration
    from fxmeter.annotators.studies.architectures.pareto import Front
    from fxmeter.annotators.studies.architectures.workers import Workers


def _scenarios(prefill: Any, decode: Any, batch: Any) -> tuple[Scenario, ...]:
    if prefill is None and decode is None:
        prefill = decode = (2048,)
    prompts = (make.prefill(length, batch=each) for length in prefill or () for each in batch)
    steps = (make.decode(length, batch=each) for length in decode or () for each in batch)
    return (*prompts, *steps)


passes = gathered(
    "scenarios",
    _scenarios,
    click.option("--prefill", type=sizes(1), metavar="LIST", help="Prompts to price, e.g. --prefill 2k,8k."),
    click.option(
        "--decode", type=sizes(0), metavar="LIST", help="Cached tokens of decode steps, e.g. --decode 4k,32k."
    ),
    click.option("--batch", type=sizes(1), metavar="LIST", default="1", help="Sequences of each, e.g. --batch 1,64."),
)


@click.command(short_help="Costs and times of many architectures, and which of them nobody beats.")
@model_argument
@set_option(
    "Values of a field of the config, e.g. --set num_hidden_layers=16:64:16.", metavar="FIELD=LIST", required=True
)
@click.option("--keep", multiple=True, metavar="CONDITION", help='Which ones to price, e.g. --keep "parameters < 8e9".')
@passes
@devices_option()
@click.option(
    "--pareto", metavar="A,B", help="Two figures of which nobody has both better, e.g. --pareto tpot,parameters."
)
@attention_option
@convention_options
@deployment_options(kernels="serving")
@dtype_option
@click.option("--out", required=True, metavar="DIR", help="Folder to write into, made or continued, e.g. --out space.")
@click.option("--jobs", type=size(1), metavar="N", help="Processes of this machine; default: its cores, e.g. --jobs 8.")
@click.option(
    "--scheduler", metavar="ADDRESS", help="A Dask scheduler whose workers do it, e.g. --scheduler tcp://10.0.0.1:8786."
)
@uncosted_option
def explore(
    model: str,
    sets: dict[str, str],
    keep: tuple[str, ...],
    scenarios: tuple[Scenario, ...],
    devices: tuple[Device, ...],
    pareto: str | None,
    attention: Attention,
    conventions: Conventions,
    deployment: Deployment,
    dtype: str | None,
    out: str,
    jobs: int | None,
    scheduler: str | None,
    allow_uncosted: bool,
) -> None:
    """What every combination of values of MODEL's config costs, as a table in DIR.

    A list has whole numbers and ranges (16:64:16, 1k:8k:*2), expressions in other fields (8*hidden_size//3), or words.
    What a config cannot be is listed with transformers' reason. --keep reads fields, `parameters`, and any figure.

    DIR gets explore.sqlite, and explore.parquet where pyarrow is there. Batches are written as they are done: what is
    interrupted goes on with the same command. --pareto says ttft and tpot for times on the first device; `:max` or
    `:min` behind a figure says what is better.

    \b
    fxmeter explore llama-3.1-8b --set num_hidden_layers=16:64:16 --set hidden_size=2k:8k:1k \\
        --set "intermediate_size=8*hidden_size//3" --keep "parameters<8e9" \\
        --device h100 --pareto tpot,parameters --out o
    """
    if jobs is not None and scheduler is not None:
        raise click.UsageError("--jobs is for this machine, --scheduler for a cluster; give one")
    with session(model, dtype, remember=False) as work:
        work.say("loading torch and transformers")
        load_libraries()
        from fxmeter.annotators.studies.architectures.explore import exploration
        from fxmeter.annotators.studies.architectures.pareto import front_of, read_pareto

        options: Kwargs = {"attention": attention, "conventions": conventions, "deployment": deployment}
        asked = {"keep": keep, "scenarios": scenarios, "devices": devices, "dtype": dtype, **options}
        found = exploration(model, sets, **asked)
        axes = None if pareto is None else read_pareto(pareto, found.question)
    from fxmeter.annotators.documents.tables.explored import explored
    from fxmeter.annotators.documents.tables.explored_files import write_beside

    with explored(out, found.question, dict(found.space.defaults)) as table:
        new = _priced(found, table, jobs, scheduler, out)
        with progress("writing"):
            front = None if axes is None else front_of(table.rows(), *axes)
            files = write_beside(table, front, {} if front is None else _pictures(model, front))
        uncosted = _shown(table, new, out, files, front)
    exit_unless_costed(uncosted, allow_uncosted)


def _priced(found: Exploration, table: Explored, jobs: int | None, scheduler: str | None, out: str) -> int:
    """Do what is left to do; how many architectures that was."""
    from fxmeter.annotators.studies.architectures.explore import batch_size, usual_jobs

    known, total = table.known(), len(found.space)
    left = max(1, total - len(known))
    jobs = jobs or usual_jobs(left)
    new = 0
    try:
        with bar("architectures", total) as advance:
            advance(min(total, len(known)))
            for batch in found.run(_workers(jobs, scheduler), batch=batch_size(left, jobs), skip=known):
                table.add(batch)
                new += len(batch)
                advance(len(batch))
    except KeyboardInterrupt:
        complain(f"{new:,} more architectures are in {out}; the same command goes on")
        raise
    return new


def _workers(jobs: int, scheduler: str | None) -> AbstractContextManager[Workers] | None:
    from fxmeter.annotators.studies.architectures.workers import cluster, local

    if scheduler is not None:
        return cluster(scheduler)
    return local(jobs) if jobs > 1 else None


def _pictures(model: str, front: Front) -> dict[str, bytes]:
    if not front.rows or find_spec("matplotlib") is None:
        return {}
    from fxmeter.annotators.plots.pareto import pareto_plot

    return {"pareto.svg": pareto_plot(front, f"{front.count:,} architectures around {model}", "svg")}


def _shown(table: Explored, new: int, out: str, files: list[str], front: Front | None) -> int:
    """Print what was found; how many op executions have no rule."""
    from fxmeter.annotators.documents.tables.explored import SQLITE
    from fxmeter.annotators.studies.architectures.refusals import by_reason
    from fxmeter.annotators.views.explored import explored_view

    count, uncosted = table.totals()
    refusals = by_reason(table.refused())
    found = explored_view(
        table.question,
        count=count,
        new=new,
        uncosted=uncosted,
        refusals=refusals,
        folder=out,
        files=[SQLITE, *files],
        front=front,
    )
    show(found)
    return uncosted
