"""Choosing the attention that a model runs: its own eager code, or one fused core per layer."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from types import ModuleType
from typing import Any, get_args

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel

from fxmeter.models.choices import Attention as Attention
from fxmeter.models.errors import ScenarioError
from fxmeter.models.names import Kwargs
from fxmeter.tracer.operators.ops import attend, flash_attention, sparse_attention
from fxmeter.tracer.private import (
    attention_name,
    can_fuse,
    choose_attention,
    has_attention_interface,
    sdpa_mask,
    takes_no_mask,
)
from fxmeter.tracer.run.patches.sdpa import FuseSdpa, needs_gradients
from fxmeter.tracer.serving.latent import absorbed_attention, latents_of
from fxmeter.tracer.state.tree import derived, walk

ATTENTIONS: tuple[Attention, ...] = get_args(Attention)

FUSED = "fxmeter_fused"
"""The name of the fused core in transformers' attention interface. transformers builds no mask for it (it builds
masks for the names it knows), and looks for a kernel package only where a name contains "flash"."""

FUSED_MASKED = "fxmeter_fused_masked"
"""The same core for models whose own code reads the mask: sparse attention's indexers score what it lets through."""


def fused_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    indices: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface, as one node: query, key, value [B, H, S, D] → out [B, S_q, H, D_v].

    With ``indices`` [B, S_q, k] each query attends to those k keys alone.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    latents = latents_of(module)
    if latents is not None:
        causal = indices is None and bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
        options: Kwargs = {"indices": indices, "bias": attention_mask, "sinks": s_aux}
        options |= {"window": sliding_window, "softcap": softcap}
        return absorbed_attention(module, query, latents, scale=float(scale), causal=causal, **options), None
    if indices is not None:
        return sparse_attention(query, key, value, indices, attention_mask, s_aux, float(scale), softcap), None
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    core = attend if needs_gradients(query, key, value) else flash_attention
    out = core(query, key, value, attention_mask, s_aux, float(scale), bool(causal), sliding_window, softcap)
    return out, None


for _name in (FUSED, FUSED_MASKED):
    AttentionInterface.register(_name, fused_attention)
AttentionMaskInterface.register(FUSED_MASKED, sdpa_mask)


@contextmanager
def attention_of(model: nn.Module, attention: Attention, *, masked: bool = False) -> Iterator[None]:
    """Run ``model`` with this attention inside the block; its configs are as before afterwards.

    ``masked`` hands the fused core a mask. Code that predates the attention interface has no place for a core; where
    it can call ``scaled_dot_product_attention`` that call becomes one, and otherwise it stays as it is.
    """
    if attention not in ATTENTIONS:
        raise ScenarioError(f"attention must be one of {', '.join(ATTENTIONS)}, not {attention!r}")
    name = "eager" if attention == "eager" else _fused_name(model, masked)
    configs = _configs(model)
    before = [attention_name(config) for config in configs]
    for config in configs:
        choose_attention(config, name)
    try:
        with FuseSdpa() if attention == "flash" and derived(model, _may_call_sdpa) else nullcontext():
            yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            choose_attention(config, implementation)


def asks_for_a_mask(model: nn.Module) -> bool:
    """Whether transformers says that the model's code has no path without a mask."""
    return any(not takes_no_mask(cls) for cls in _model_classes(model))


def _fused_name(model: nn.Module, masked: bool) -> str:
    if any(has_attention_interface(code) for code in _code_of(model)) or not _code_of(model):
        return FUSED_MASKED if masked else FUSED
    return "sdpa" if all(can_fuse(cls) for cls in _model_classes(model)) else "eager"


def _may_call_sdpa(model: nn.Module) -> bool:
    """Whether any code of ``model`` may call ``scaled_dot_product_attention`` itself.

    Watching for it slows every call of torch. Modules of transformers say so in their source, and of torch's own layers
    only those that attend do; of anybody else's code it has to be expected.
    """
    for _, module in walk(model):
        cls = type(module)
        package = cls.__module__.partition(".")[0]
        if package == "torch":
            if cls.__name__.startswith(("MultiheadAttention", "Transformer")):
                return True
        elif package not in ("transformers", "tracer") or _mentions_sdpa(cls.__module__):
            return True
    return False


@cache
def _mentions_sdpa(module_name: str) -> bool:
    return "scaled_dot_product_attention" in inspect.getsource(sys.modules[module_name])


def _code_of(model: nn.Module) -> list[ModuleType]:
    """The modelling modules of transformers that the model's classes come from."""
    names = {type(module).__module__ for _, module in walk(model)}
    return [sys.modules[name] for name in sorted(names) if name.startswith("transformers.models.")]


def _model_classes(model: nn.Module) -> list[type[PreTrainedModel]]:
    """The transformers models in ``model``, or else those of the modelling modules that it comes from."""
    found = [type(module) for _, module in walk(model) if isinstance(module, PreTrainedModel)]
    if found:
        return found
    classes = [value for code in _code_of(model) for value in vars(code).values() if isinstance(value, type)]
    return [cls for cls in classes if issubclass(cls, PreTrainedModel) and cls is not PreTrainedModel]


def _configs(model: nn.Module) -> list[PreTrainedConfig]:
    """Every distinct config that a part of the model carries, sub-configs included."""
    found: dict[int, PreTrainedConfig] = {}
    todo = [*derived(model, _configs_of_parts)]
    while todo:
        config = todo.pop()
        if id(config) not in found:
            found[id(config)] = config
            subs = (getattr(config, name, None) for name in config.sub_configs)
            todo.extend(sub for sub in subs if isinstance(sub, PreTrainedConfig))
    return list(found.values())


def _configs_of_parts(model: nn.Module) -> list[PreTrainedConfig]:
    configs = (getattr(module, "config", None) for _, module in walk(model))
    return list({id(config): config for config in configs if isinstance(config, PreTrainedConfig)}.values())
