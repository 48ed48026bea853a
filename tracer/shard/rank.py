"""Rank 0 of a sharded model, on meta: a copy whose parameters are this rank's, and whose forwards exchange the rest.

Rank 0 is the fullest: what does not divide evenly is dealt out from it on.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import initialization as init

from fxmeter.models.deployment import Deployment
from fxmeter.models.errors import DeploymentError
from fxmeter.tracer.private import on_demand
from fxmeter.tracer.serving.experts import choosing, runs_all_experts
from fxmeter.tracer.shard.experts import exchange_of
from fxmeter.tracer.shard.plans import experts_plan, has_plans, tensor_plan
from fxmeter.tracer.shard.world import Meshes, world_of
from fxmeter.tracer.state.tree import derived, walk

_HEADS = ("q_proj", "q_b_proj", "qkv_proj", "query_key_value")
_INNER_WIDTHS = ("moe_intermediate_size", "intermediate_size")
PADDING = "padding"
"""The attribute in which a rank carries how its sizes are filled up, in words, or None."""
_SHARED_HEADS = ("k_proj", "qkv_proj", "query_key_value")


@contextmanager
def rank_of(model: nn.Module, deployment: Deployment, *, exchange: str | None = None) -> Iterator[nn.Module]:
    """Inside the block, rank 0 of ``model`` as ``deployment`` shards it; ``model`` itself is unchanged.

    ``exchange`` names one of transformers' own ways for tokens to reach experts, in place of the expected counts.

    Raises:
        DeploymentError: a model that cannot be sharded like this.
    """
    exchange = exchange or exchange_of(deployment)
    chosen_alone = deployment.kernels == "serving" and runs_all_experts(model)
    padding = _padding(model, deployment)
    key = (deployment.tp, deployment.ep, deployment.dp, exchange, chosen_alone, padding)
    ranks = derived(model, _made)
    with world_of(deployment) as meshes:
        if key not in ranks:
            with choosing(model) if chosen_alone else nullcontext():  # a plan keeps the forward that it wraps
                ranks[key] = _rank(model, deployment, meshes, exchange, padding)
        yield ranks[key]


def _made(model: nn.Module) -> dict[Any, nn.Module]:
    """The ranks of a model that were made so far, for as long as it stays as it is. Worlds of one size are alike."""
    return {}


def _rank(
    model: nn.Module, deployment: Deployment, meshes: Meshes, exchange: str, padding: Padding | None
) -> nn.Module:
    if not has_plans(model):
        raise DeploymentError(f"{type(model).__name__} is no transformers model, whose plan says how it is sharded")
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise DeploymentError(f"{type(model).__name__} has an encoder and a decoder, which are priced on one device")
    plan, experts = tensor_plan(model, deployment), experts_plan(model, deployment)
    changes = _heads_for_all(model, plan, deployment.tp) | ({} if padding is None else {padding.field: padding.padded})
    rank: Any = _with_sizes(model, changes) if changes else copy.deepcopy(model)
    setattr(rank, PADDING, None if padding is None else str(padding))
    tied = _untied(rank)
    try:
        on_demand("apply_tensor_parallelism")(rank, meshes.tensor, plan)
        _own_widths(rank, plan)
        if experts:
            spread = on_demand("apply_expert_parallelism")
            spread(rank, meshes.experts, meshes.tensor, experts, ep_implementation=exchange)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DeploymentError(f"{type(model).__name__}: its plan cannot be applied: {reason:.200}") from error
    if tied:
        rank.tie_weights()
    return rank


@dataclass(frozen=True, slots=True)
class Padding:
    """The inner width of experts, a ``field`` of the config, that ranks share in whole blocks: ``padded`` to as much as
    all of them have together where each has what the first one has."""

    field: str
    width: int
    padded: int
    block: int

    def __str__(self) -> str:
        return (
            f"experts' inner width of {self.width:,} is padded to {self.padded:,}: whole blocks of {self.block} "
            "on each rank, as engines do it"
        )


def _padding(model: Any, deployment: Deployment) -> Padding | None:
    """Where a share of experts' inner width would cut through blocks that engines fill up; None where none does."""
    formats = deployment.weights or getattr(model, "weight_formats", None)
    item = next((item for _, item in getattr(formats, "groups", ()) if item.padded), None)
    if item is None or deployment.ep > 1:
        return None
    block, ranks = item.block[1], deployment.tp
    for _, module in walk(model):
        down = module._parameters.get("down_proj")
        if down is None or down.dim() != 3:
            continue
        width = down.shape[1 if getattr(module, "is_transposed", False) else 2]
        fields = (name for name in _INNER_WIDTHS if getattr(model.config, name, None) == width)
        field = next(fields, None)
        if field is not None and width % block == 0 and width % (block * ranks):
            return Padding(field, width, -(-width // (block * ranks)) * block * ranks, block)
    return None


def _heads_for_all(model: Any, plan: Mapping[str, str], tp: int) -> dict[str, int]:
    """Where a model has fewer heads of keys and values than ranks: one of them for each rank, as engines copy them.

    Raises:
        DeploymentError: heads that cannot be shared out evenly.
    """
    sharded = {name.rpartition(".")[2] for name, style in plan.items() if style == "colwise"}
    heads, shared = (_heads(model.config, kind) for kind in ("attention", "key_value"))
    name = type(model).__name__
    if heads is not None and heads % tp and sharded & {*_HEADS}:
        raise DeploymentError(f"{name} has {heads} attention heads, which tp={tp} ranks cannot share evenly")
    if shared is None or shared % tp == 0 or not sharded & {*_SHARED_HEADS}:
        return {}
    if tp % shared:
        raise DeploymentError(f"{name} has {shared} heads of keys and values, which tp={tp} ranks cannot share evenly")
    return {"num_key_value_heads": tp}


def _with_sizes(model: Any, changes: Mapping[str, int]) -> nn.Module:
    """A copy of ``model`` whose config has other sizes."""
    config = copy.deepcopy(model.config)
    for name, value in changes.items():
        setattr(config, name, value)
    with torch.device("meta"), init.no_init_weights(), init.meta_device_safe_creation_ops():
        wider = type(model)._from_config(config, dtype=model.dtype, attn_implementation="eager")
    wider.to("meta").tie_weights()
    for own, parameter in zip(model.parameters(), wider.parameters(), strict=True):
        parameter.data = parameter.data.to(own.dtype)
    wider.weight_formats = getattr(model, "weight_formats", None)
    return wider.eval()


def _heads(config: Any, kind: str) -> int | None:
    """How many heads all layers have; None where that differs, or is not said."""
    try:
        count = getattr(config, f"num_{kind}_heads", None)
    except Exception:  # configs whose layers differ refuse to say, each in its own way
        return None
    return count if isinstance(count, int) else None


@dataclass(frozen=True, slots=True)
class _OfLayer:
    """What the style of latent projections reads of a config: its layer's width of rotated keys."""

    qk_rope_head_dim: int


def _own_widths(rank: nn.Module, plan: Mapping[str, str]) -> None:
    """Give that style the width of each layer, where the layer has one: the config's may differ from layer to layer."""
    modules = dict(walk(rank))
    for name in (name for name, style in plan.items() if style == "mla_kv_a_proj" and name in modules):
        width = getattr(modules[name.rpartition(".")[0]], "qk_rope_head_dim", None)
        if isinstance(width, int):
            cast(Any, modules[name]).config = _OfLayer(width)


def _untied(model: nn.Module) -> bool:
    """Give every name of a parameter one of its own, as transformers' plans expect; whether there was a tie."""
    seen: set[int] = set()
    tied = False
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) in seen:
                module._parameters[name] = nn.Parameter(torch.empty_like(parameter), parameter.requires_grad)
                tied = True
            seen.add(id(parameter))
    return tied
