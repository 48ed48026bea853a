"""Which part of a model is on every rank: transformers' own plan, and what engines shard beyond it.

A plan maps names of modules and parameters to transformers' parallel styles: "colwise" gives each rank some outputs of
a matrix, "rowwise" some inputs and sums the results. Beyond transformers' plan, and known by the names of a module's
parts: the heads of latent and of plain attention, gated MLPs, stacked experts, the embedding and the head.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import nn

from fxmeter.models.deployment import Deployment
from fxmeter.models.errors import DeploymentError
from fxmeter.tracer.private import on_demand
from fxmeter.tracer.state.tree import walk

Plan = Mapping[str, str]

_OUTPUTS = ("o_proj", "out_proj", "dense")
_WHOLE = {"q_a_proj", "kv_a_proj_with_mqa"}
"""What is the same for all heads, and may be beside them."""
_PARTS = (
    # what a module must have, and no other linear layer beside, to be sharded: (one of these each), the style of each
    ((("q_b_proj", "q_proj"), ("kv_b_proj",), _OUTPUTS), ("colwise", "colwise", "rowwise")),
    ((("q_proj",), ("k_proj",), ("v_proj",), _OUTPUTS), ("colwise", "colwise", "colwise", "rowwise")),
    ((("gate_proj",), ("up_proj",), ("down_proj",)), ("colwise", "colwise", "rowwise")),
)


def tensor_plan(model: nn.Module, deployment: Deployment) -> dict[str, str]:
    """Name of each module and parameter → its style, under tensor parallelism; without experts that ``ep`` spreads.

    Raises:
        DeploymentError: nothing of the model can be sharded.
    """
    if deployment.tp == 1:
        return {}
    own = _own(model, "tp_plan")
    plan = {**_beyond(model, {name.rpartition(".")[0] for name in own}), **_named(model, own)}
    plan |= dict.fromkeys(_reducing_own_parts(model, plan), "moe_tp_experts")
    elsewhere = (*experts_plan(model, deployment), *_embeddings_with_parts(model))
    plan = {name: style for name, style in plan.items() if not elsewhere or not name.startswith(elsewhere)}
    if not plan:
        raise DeploymentError(f"{type(model).__name__} has no part that is known to be sharded over tp={deployment.tp}")
    return plan


def experts_plan(model: nn.Module, deployment: Deployment) -> dict[str, str]:
    """The same under expert parallelism: whole experts on each rank.

    Raises:
        DeploymentError: the model has no experts that transformers knows how to spread.
    """
    if deployment.ep == 1:
        return {}
    plan = _named(model, _own(model, "ep_plan"))
    plan |= _alike(model, plan)
    if "ep_dispatch_experts" not in plan.values():
        raise DeploymentError(f"{type(model).__name__} has no experts that are known to be spread over ep ranks")
    return plan


def _alike(model: nn.Module, plan: Plan) -> dict[str, str]:
    """The same for experts that a plan does not name, of a class that it does: those of layers that predict further
    tokens."""
    styles: dict[type, Plan] = {}
    found: dict[str, str] = {}
    for path, module in walk(model):
        if plan.get(path) == "ep_dispatch_experts":
            names = [name for name in module._parameters if f"{path}.{name}" in plan]
            styles.setdefault(type(module), {name: plan[f"{path}.{name}"] for name in names})
    for path, module in walk(model):
        if type(module) in styles and path not in plan:
            found |= {f"{path}.{name}": style for name, style in styles[type(module)].items()}
            found[path] = "ep_dispatch_experts"
    return found


def has_plans(model: nn.Module) -> bool:
    """Whether a model, or what it wraps, is transformers' own."""
    return any(hasattr(module, "tp_plan") for _, module in walk(model))


def _own(model: nn.Module, which: str) -> Plan:
    """The plan of the outermost module that has one, its names as ``model`` has them."""
    path, module = next((path, module) for path, module in walk(model) if hasattr(module, which))
    return {f"{path}.{name}" if path else name: style for name, style in (getattr(module, which) or {}).items()}


def _reducing_own_parts(model: nn.Module, plan: Plan) -> Iterator[str]:
    """Modules whose outputs are summed over the ranks, and that compute with parts of parameters of their own: as
    stacked experts do, with what this rank has."""
    for path, module in walk(model):
        if plan.get(path) == "all_reduce" and any(f"{path}.{name}" in plan for name in module._parameters):
            yield path


def _embeddings_with_parts(model: nn.Module) -> Iterator[str]:
    """Embeddings that hand their rows to a norm of their own, which needs them summed over the ranks before a hook on
    the embedding would: they stay whole."""
    return (path for path, module in walk(model) if isinstance(module, nn.Embedding) and module._modules)


def _beyond(model: nn.Module, planned: Collection[str]) -> dict[str, str]:
    """What engines shard, by structure, but for the parts of modules ``planned`` (patterns) for."""
    wildcard = on_demand("replace_layer_number_by_wildcard")
    found: dict[str, str] = {}
    for path, module in walk(model):
        parts = {} if wildcard(path) in planned else _styles_of_parts(module)
        for name, style in parts.items():
            found |= _with_parameters(f"{path}.{name}", getattr(module, name), style)
        if wildcard(path) not in planned and _stacks_experts(module):
            found |= {f"{path}.{name}": style for name, style in _styles_of_experts(module).items()}
            found[path] = "moe_tp_experts"
        if parts and isinstance(getattr(module, "sinks", None), nn.Parameter):  # one for each head
            found |= {f"{path}.sinks": "colwise", path: "local_params"}
    for find, style in (
        ("get_input_embeddings", "embedding_rowwise"),
        ("get_output_embeddings", "colwise_gather_output"),
    ):
        owner: Any = next((module for _, module in walk(model) if hasattr(module, find)), None)
        part = getattr(owner, find, lambda: None)() or (getattr(model, "lm_head", None) if "output" in find else None)
        for path, module in walk(model):
            if module is part and isinstance(module, (nn.Embedding, nn.Linear)):
                found |= _with_parameters(path, module, style)
    return found


def _styles_of_parts(module: nn.Module) -> Mapping[str, str]:
    """Linear layer of a module → its style; nothing where there are others, which may go by what is whole."""
    linear = {name for name, part in module._modules.items() if isinstance(part, nn.Linear)} - _WHOLE
    for wanted, styles in _PARTS:
        parts = [next((name for name in names if name in linear), "") for names in wanted]
        if {*parts} == linear:
            return dict(zip(parts, styles, strict=True))
    return {}


def _stacks_experts(module: nn.Module) -> bool:
    return all(getattr(module._parameters.get(name), "ndim", 0) == 3 for name in ("gate_up_proj", "down_proj"))


def _styles_of_experts(module: nn.Module) -> Mapping[str, str]:
    """Parameter of stacked experts → its style: each rank has a part of every expert's inner width.

    The bias of their outputs is whole on each rank, where an engine adds it on one.
    """
    packed = "packed_" if getattr(module, "is_concatenated", True) else ""
    if not getattr(module, "is_transposed", False):
        return {"gate_up_proj": f"{packed}colwise", "down_proj": "rowwise"}
    styles = {"gate_up_proj": f"{packed}rowwise", "gate_up_proj_bias": f"{packed}rowwise", "down_proj": "colwise"}
    return {name: style for name, style in styles.items() if module._parameters.get(name) is not None}


def _with_parameters(path: str, module: nn.Module, style: str) -> dict[str, str]:
    """A module and its parameters, those first: they are sharded before it is hooked."""
    names = [name for name, parameter in module._parameters.items() if parameter is not None]
    return {**{f"{path}.{name}": style for name in names}, path: style}


def _named(model: nn.Module, plan: Plan) -> dict[str, str]:
    """What a plan of patterns says of every module and of its parameters, those first."""
    style_of, found = on_demand("_get_parameter_plan"), {}
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
