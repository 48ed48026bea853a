"""``fxmeter crosscheck``: the trace against the hand-written layer models."""

from __future__ import annotations

import click

from fxmeter.annotators.cli.options import attentions_option, batch_option, deployment_options, json_option
from fxmeter.annotators.cli.output import EXIT_ERROR, Failed, show, write_json
from fxmeter.annotators.cli.session import session
from fxmeter.annotators.cli.values import pair, size
from fxmeter.models import scenario as make
from fxmeter.models.choices import Attention
from fxmeter.models.deployment import Deployment
from fxmeter.models.presets import Preset


@click.command(short_help="Traced against hand-written, module by module.")
@click.argument("model", default="deepseek-ocr")
@click.option("--prefill", type=size(1), default=1024, metavar="S", show_default=True, help="e.g. --prefill 64.")
@click.option("--decode", type=size(0), default=1024, metavar="C", show_default=True, help="e.g. --decode 8192.")
@batch_option
@click.option("--crops", type=pair("1x2"), default="1x2", metavar="HxW", show_default=True, help="e.g. --crops 3x3.")
@attentions_option
@deployment_options()
@click.option(
    "--depth", type=size(0), default=5, metavar="D", show_default=True, help="Levels of --all, e.g. --depth 3."
)
@click.option("--all", "every", is_flag=True, help="Every comparison, module by module, e.g. --all --depth 3.")
@json_option
def crosscheck(
    model: str,
    prefill: int,
    decode: int,
    batch: int,
    crops: tuple[int, int],
    attentions: tuple[Attention, ...],
    deployment: Deployment,
    depth: int,
    every: bool,
    json_path: str | None,
) -> None:
    """Compare the trace with layer models written by hand from the architecture, module by module.

    FLOPs, weights and KV must be equal to the unit, activations and I/O inside a band, whose tensors
    docs/layer_io_estimation_guide.md names. Exit 1 where one is not. MODEL is deepseek-ocr (with its vision tower),
    or any Llama or DeepSeek-V2/V3 preset or config. With --kernels serving both are as an engine runs them: latent
    attention absorbed in decode, the pairs of a causal mask, the last logits.

    \b
    fxmeter crosscheck
    fxmeter crosscheck --all
    fxmeter crosscheck deepseek-v3 --decode 8192 --batch 8
    fxmeter crosscheck deepseek-v3 --kernels serving
    """
    with session(model, remember=False, json=json_path) as work:
        decoder = work.decoder()
        from fxmeter.annotators.studies.comparing.crosscheck import check_decoder, check_vision
        from fxmeter.tracer.load.reading import read_fields

        fields, _ = read_fields(model)
        tower = work.tower if isinstance(work.source, Preset) and work.source.vision else None
        checks = []
        for kind in attentions:
            if tower is not None:
                work.say(f"vision, {kind}")
                checks.append(check_vision(tower, make.vision(crops=crops, batch=batch), kind))
            for scenario in (make.prefill(prefill, batch=batch), make.decode(decode, batch=batch)):
                work.say(f"{scenario.stage}, {kind}")
                checks.append(check_decoder(decoder, fields, scenario, kind, deployment))
    if json_path is not None:
        from fxmeter.annotators.documents.crosscheck import to_json

        write_json(to_json(model, checks), json_path)
    else:
        from fxmeter.annotators.views.crosscheck import crosscheck_view

        show(crosscheck_view(model, checks, depth if every else None))
    failures = [row for check in checks for row in check.failures]
    if failures:
        first = failures[0]
        raise Failed(
            f"{len(failures)} comparisons do not hold, the first: {first.path or '(root)'} {first.field}: "
            f"traced {first.traced:,}, hand-written {first.hand_written:,}",
            EXIT_ERROR,
        )
