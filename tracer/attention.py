"""Choosing the attention that a model runs: its own eager code, or one fused core per layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface, PreTrainedConfig

from models.errors import ScenarioError
from tracer.ops import flash_attention

Attention = Literal["eager", "flash"]
ATTENTIONS: tuple[Attention, ...] = ("eager", "flash")

FUSED = "fxmeter_fused"
"""The name of the fused core in transformers' attention interface. transformers builds no mask for it (it builds
masks for the names it knows), and looks for a kernel package only where a name contains "flash"."""


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
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface, as one node: query, key, value [B, H, S, D] → out [B, S_q, H, D_v]."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    out = flash_attention(query, key, value, attention_mask, s_aux, float(scale), bool(causal), sliding_window, softcap)
    return out, None


AttentionInterface.register(FUSED, fused_attention)


class FuseSdpa(TorchFunctionMode):
    """Turns ``scaled_dot_product_attention``, which meta would take apart, into the fused core."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            return _fused_sdpa(*args, **kwargs)
        return func(*args, **kwargs)


def _fused_sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    *lead, s_q, _ = query.shape
    as_4d = [
        x.reshape(-1, *x.shape[-3:]) if x.dim() > 4 else x[None] if x.dim() == 3 else x for x in (query, key, value)
    ]
    out = flash_attention(*as_4d, attn_mask, None, float(scale), is_causal, None, None).transpose(1, 2)
    return out.reshape(*lead, s_q, value.shape[-1])


@contextmanager
def attention_of(model: nn.Module, attention: Attention) -> Iterator[None]:
    """Run ``model`` with this attention inside the block; its configs are as before afterwards."""
    if attention not in ATTENTIONS:
        raise ScenarioError(f"attention must be one of {', '.join(ATTENTIONS)}, not {attention!r}")
    name = FUSED if attention == "flash" else "eager"
    configs = _configs(model)
    before = [config._attn_implementation_internal for config in configs]
    for config in configs:
        config._attn_implementation_internal = name
    try:
        if attention == "flash":
            with FuseSdpa():
                yield
        else:
            yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation_internal = implementation


def _configs(model: nn.Module) -> list[PreTrainedConfig]:
    """Every distinct config that a part of the model carries, sub-configs included."""
    found: dict[int, PreTrainedConfig] = {}
    todo = [
        config for module in model.modules() if isinstance(config := getattr(module, "config", None), PreTrainedConfig)
    ]
    while todo:
        config = todo.pop()
        if id(config) not in found:
            found[id(config)] = config
            subs = (getattr(config, name, None) for name in config.sub_configs)
            todo.extend(sub for sub in subs if isinstance(sub, PreTrainedConfig))
    return list(found.values())
