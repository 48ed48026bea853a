"""Options that commands share, each declared once, and the types of their values.

An option's text is read by the function of the library that knows what it means; what that refuses is a usage error.
"""

from __future__ import annotations

import functools
from importlib.util import find_spec
from typing import Any, get_args

import click
from click.core import ParameterSource

from fxmeter.annotators.cli.values import Command, Decorator, Read, choice, gathered, size
from fxmeter.annotators.conventions import USUAL, Conventions
from fxmeter.annotators.studies.architectures.expressions import read_assignment
from fxmeter.models.choices import Attention, Causal, Dtype, Logits, Routing
from fxmeter.models.deployment import Kernels, deploy
from fxmeter.models.devices import Device, device
from fxmeter.models.errors import DeploymentError, FxmeterError


def _given_model(context: click.Context, _: click.Parameter, model: str | None) -> str:
    if model is None:
        file = context.params.get("json_path")
        swallowed = f"; {file!r} was taken as the FILE of --json, so put MODEL first" if file not in (None, "-") else ""
        raise click.UsageError(f"Missing argument 'MODEL'{swallowed}", context)
    return model


model_argument = click.argument("model", required=False, metavar="MODEL", callback=_given_model)

attention_option = choice(
    "--attention",
    Attention,
    "The model's own attention code, or one fused core per layer, e.g. --attention eager.",
    default="flash",
    show_default=True,
)

attentions_option = click.option(
    "--attention",
    "attentions",
    type=click.Choice([*get_args(Attention), "both"]),
    default="both",
    show_default=True,
    callback=lambda context, option, word: get_args(Attention) if word == "both" else (word,),
    help="The model's own attention code, one fused core per layer, or both, e.g. --attention flash.",
)


def conventions_as(usual: Conventions) -> Decorator:
    """--causal, --logits and --routing as ``conventions``; ``usual`` has what they are where none is given."""
    return gathered(
        "conventions",
        Conventions,
        choice(
            "--causal",
            Causal,
            "Pairs a fused attention core computes: all, or those its mask lets through, e.g. --causal exact.",
            default=usual.causal,
            show_default=True,
        ),
        choice(
            "--logits",
            Logits,
            "Logits of all positions (forward) or of the last one (generate), e.g. --logits last.",
            default=usual.logits,
            show_default=True,
        ),
        choice(
            "--routing",
            Routing,
            "Expert weights read: expected under uniform routing, or the most possible, e.g. --routing worst.",
            default=usual.routing,
            show_default=True,
        ),
    )


convention_options = conventions_as(USUAL)

cache_option = click.option(
    "--no-cache",
    "remember",
    is_flag=True,
    flag_value=False,
    default=True,
    help="Work it out again, and keep nothing (see `fxmeter cache`), e.g. report M --no-cache.",
)

dtype_option = choice(
    "--dtype", Dtype, "Of weights, cache and activations; default: the checkpoint's own, e.g. --dtype float16."
)

mtp_option = click.option(
    "--mtp",
    is_flag=True,
    help="With the layers that predict further tokens, e.g. report deepseek-v3 --draft 1 --decode 4k --mtp.",
)


def deployment_options(*, kernels: Kernels = "transformers") -> Decorator:
    """--weights, --kv, --tp, --ep, --dp, --pp and --kernels as ``deployment``, with a command's usual ``kernels``."""
    options = gathered(
        "deployment",
        deploy,
        click.option(
            "--weights",
            metavar="FMT",
            help="Storage format of the weights; default: the checkpoint's, e.g. --weights fp8, int4-g64, bfloat16.",
        ),
        click.option("--kv", metavar="FMT", help="Storage format of the KV cache, e.g. --kv fp8."),
        click.option(
            "--page-size", type=size(1), metavar="N", help="Tokens of a page of the KV cache, e.g. --page-size 16."
        ),
        click.option("--tp", type=size(1), default=1, metavar="N", help="Tensor-parallel ranks, e.g. --tp 8."),
        click.option(
            "--ep",
            type=size(1),
            default=1,
            metavar="N",
            help="Ranks that share the experts; above --tp, groups of ranks attend on their own, e.g. --ep 64.",
        ),
        click.option(
            "--dp",
            type=size(1),
            default=1,
            metavar="N",
            help="Groups of --tp ranks with --batch sequences each of their own, e.g. --dp 8.",
        ),
        click.option(
            "--pp",
            type=size(1),
            default=1,
            metavar="N",
            help="Pipeline stages, each with a part of the layers, e.g. --pp 4.",
        ),
        choice(
            "--kernels",
            Kernels,
            f"What transformers runs, or what a serving engine does, e.g. --kernels {_other(kernels)}.",
            default=kernels,
            show_default=True,
        ),
    )

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def as_engines_do(**given: Any) -> Any:
            if given["deployment"].kernels == "serving":
                _refuse_what_engines_do_not(click.get_current_context())
                if "attentions" in given:
                    given["attentions"] = ("flash",)
            return command(**given)

        return options(as_engines_do)

    return decorate


def _other(kernels: Kernels) -> str:
    return next(word for word in get_args(Kernels) if word != kernels)


def _refuse_what_engines_do_not(context: click.Context) -> None:
    """A usage error where a choice is given by hand that serving kernels leave no room for."""
    for name, flag, word in (
        ("attention", "--attention", "eager"),
        ("attentions", "--attention", ("eager",)),
        ("causal", "--causal", "full"),
        ("logits", "--logits", "all"),
    ):
        if context.params.get(name) == word and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            word = word if isinstance(word, str) else word[0]
            raise click.UsageError(
                f"{flag} {word} is not what serving kernels compute; give --kernels transformers with it", context
            )


batch_option = click.option(
    "--batch", type=size(1), default=1, metavar="B", show_default=True, help="Sequences, e.g. --batch 8."
)


encoder_len_option = click.option(
    "--encoder-len",
    type=size(1),
    metavar="N",
    help="Positions of the encoder, where a model has one; default: what its config fixes, e.g. --encoder-len 512.",
)


def _read_devices(text: str) -> tuple[Device, ...]:
    return tuple(device(name.strip()) for name in text.split(","))


def devices_option(**more: Any) -> Decorator:
    """--device as ``devices``, one or several, in nodes of --node that have --across between them."""

    def make(devices: tuple[Device, ...] | None, node: int | None, across: float | None) -> tuple[Device, ...]:
        if (node is None) != (across is None):
            raise DeploymentError("--node and --across go together: how many devices have direct links, and the rest")
        found = devices or ()
        return found if across is None else tuple(device.in_nodes(node, across * 1e9) for device in found)

    return gathered(
        "devices",
        make,
        click.option(
            "--device",
            "devices",
            type=Read("devices", _read_devices),
            metavar="NAME[,NAME]",
            help="Where it runs: names of `fxmeter devices`, or device files, e.g. --device h100-sxm5-80g,a100.",
            **more,
        ),
        click.option(
            "--node", type=size(1), metavar="N", help="Devices of a node, which have direct links, e.g. --node 8."
        ),
        click.option(
            "--across",
            type=click.FloatRange(0, min_open=True),
            metavar="GB/S",
            help="Bandwidth of a device to other nodes, in one direction, e.g. --across 50.",
        ),
    )


PICTURES = (".svg", ".png", ".pdf")


def _picture(context: click.Context, option: click.Parameter, path: str | None) -> str | None:
    """What cannot be drawn is refused before the work."""
    if path is None:
        return None
    if not path.lower().endswith(PICTURES):
        raise click.BadParameter(f"{path!r}: name a {', '.join(PICTURES)} file", context, option)
    if find_spec("matplotlib") is None:
        raise FxmeterError("a picture needs matplotlib: pip install 'fxmeter[plot]', or leave --plot out")
    return path


plot_option = click.option(
    "--plot",
    "plot_path",
    callback=_picture,
    metavar="FILE",
    help="A picture of the times, as .svg, .png or .pdf, e.g. --plot times.svg.",
)

json_option = click.option(
    "--json",
    "json_path",
    is_flag=False,
    flag_value="-",
    metavar="[FILE]",
    help="JSON to stdout, or to FILE, instead of tables, e.g. --json cost.json.",
)


def _assigned(context: click.Context, option: click.Parameter, texts: tuple[tuple[str, str], ...]) -> dict[str, str]:
    fields = [name for name, _ in texts]
    if twice := next((name for name in fields if fields.count(name) > 1), None):
        raise click.BadParameter(f"{twice} is set twice; give all its values in one list", context, option)
    return dict(texts)


def set_option(help: str, **more: Any) -> Decorator:
    """--set FIELD=VALUE, any number of times, as ``sets``: field → text."""
    return click.option(
        "--set",
        "sets",
        type=Read("assignment", read_assignment),
        multiple=True,
        callback=_assigned,
        help=help,
        **more,
    )


uncosted_option = click.option(
    "--allow-uncosted", is_flag=True, help="Exit 0 although ops have no rule, e.g. report M --allow-uncosted."
)
