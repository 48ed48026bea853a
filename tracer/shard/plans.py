"""Which part of a model is on every rank: transformers' own plan, and what engines shard beyond it.

A plan maps names of modules and parameters, layer numbers replaced by "*", to transformers' parallel styles: "colwise"
gives each rank some outputs of a matrix, "rowwise" some inputs and sums the results. Beyond it, known by the names
of a module's parts: the heads of latent attention, plain attention and gated MLPs, the embedding and the head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from fxmeter.models.deployment import Deployment
from fxmeter.models.errors import DeploymentError
from fxmeter.tracer.private import distributed
from fxmeter.tracer.state.tree import walk

Plan = Mapping[str, str]

_OUTPUTS = ("o_proj", "out_proj", "dense")
_PARTS = (
    # what a module must have to be sharded as follows: (one of these each), then the style of each
    ((("q_b_proj", "q_proj"), ("kv_b_proj",), _OUTPUTS), ("colwise", "colwise", "rowwise")),
    ((("q_proj",), ("k_proj",), ("v_proj",), _OUTPUTS), ("colwise", "colwise", "colwise", "rowwise")),
    ((("gate_proj",), ("up_proj",), ("down_proj",)), ("colwise", "colwise", "rowwise")),
)


def tensor_plan(model: nn.Module, deployment: Deployment) -> dict[str, str]:
    """Name of each module and parameter → its style, under tensor parallelism; without experts that ``ep`` spreads.

    Raises:
        DeploymentError: nothing of the model can be sharded, or its heads cannot be shared out.
    """
    if deployment.tp == 1:
        return {}
    plan = dict(_own(model, "tp_plan"))
    taken = {name.rpartition(".")[0] for name in plan}
    plan |= {name: style for name, style in _beyond(model) if name.rpartition(".")[0] not in taken}
    if deployment.ep > 1:
        spread = tuple(experts_plan(model, deployment, named=False))
        plan = {name: style for name, style in plan.items() if not name.startswith(spread)}
    if not plan:
        raise DeploymentError(f"{type(model).__name__} has no part that is known to be sharded over tp={deployment.tp}")
    return _named(model, plan)


def experts_plan(model: nn.Module, deployment: Deployment, *, named: bool = True) -> dict[str, str]:
    """The same under expert parallelism: whole experts on each rank.

    Raises:
        DeploymentError: the model has no experts that transformers knows how to spread.
    """
    if deployment.ep == 1:
        return {}
    plan = dict(_own(model, "ep_plan"))
    if "ep_dispatch_experts" not in plan.values():
        raise DeploymentError(f"{type(model).__name__} has no experts that are known to be spread over ep ranks")
    return _named(model, plan) if named else plan


def _own(model: nn.Module, which: str) -> Plan:
    return getattr(model, which, None) or {}


def _beyond(model: nn.Module) -> Iterator[tuple[str, str]]:
    """What engines shard, by structure."""
    wildcard = distributed("replace_layer_number_by_wildcard")
    for path, module in walk(model):
        for wanted, styles in _PARTS:
            parts = [
                next((n for n in names if isinstance(getattr(module, n, None), nn.Linear)), None) for names in wanted
            ]
            if None not in parts:
                yield from ((wildcard(f"{path}.{part}"), style) for part, style in zip(parts, styles, strict=True))
                if isinstance(getattr(module, "sinks", None), nn.Parameter):  # one for each head
                    yield wildcard(f"{path}.sinks"), "colwise"
                    yield wildcard(path), "local_params"
                break
    for find, style in (
        ("get_input_embeddings", "embedding_rowwise"),
        ("get_output_embeddings", "colwise_gather_output"),
    ):
        part: Any = getattr(model, find, lambda: None)()
        yield from ((path, style) for path, module in walk(model) if module is part and module is not None)


def _named(model: nn.Module, plan: Plan) -> dict[str, str]:
    """The plan of every module and of its parameters, those before it: they are sharded before it is hooked."""
    style_of, found = distributed("_get_parameter_plan"), {}
    for path, module in walk(model):
        for name, parameter in module._parameters.items():
            full = f"{path}.{name}" if path else name
            style = style_of(full, plan, is_weight=True) if parameter is not None else None
            if style is not None:
                found[full] = style
        style = style_of(path, plan, is_weight=False)
        if style is not None:
            found[path] = style
    return found
