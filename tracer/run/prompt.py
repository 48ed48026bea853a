"""What a pass starts from: the cache, or other state, that holds the tokens before it.

The prompt is run through the model. On meta that allocates nothing and takes one folded pass.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedConfig

from fxmeter.models.errors import TraceError
from fxmeter.tracer.private import Cache, DynamicLayer
from fxmeter.tracer.state.cache import cache_of


def empty_cache(model: nn.Module) -> Any:
    """The cache that generation would start with; None where the model makes its own, or takes none."""
    if "past_key_values" not in forward_parameters(model) or _has_cache_class(model) or is_encoder(model):
        return None
    try:
        cache = DynamicCache(config=config_of(model))
    except AttributeError:  # a config that does not say how many layers there are
        return None
    if getattr(cache, "layer_class_to_replicate", False) is None:
        cache.layer_class_to_replicate = DynamicLayer  # decoders may be deeper than the layers that the config counts
    return cache


def is_encoder(model: nn.Module) -> bool:
    """Whether a model sees all tokens at once and keeps none: its config says that it is no decoder."""
    return getattr(getattr(model, "config", None), "is_decoder", None) is False


def _has_cache_class(model: nn.Module) -> bool:
    """Whether the model's own modelling code defines a cache."""
    code = sys.modules[type(model).__module__]
    return any(
        inspect.isclass(value) and issubclass(value, Cache) and value.__module__ == code.__name__
        for value in vars(code).values()
    )


def run_prompt(
    model: nn.Module,
    batch: int,
    length: int,
    arguments: Callable[[Tensor, Any], dict[str, Any]],
    modes: Sequence[Callable[[dict[str, Any]], AbstractContextManager[Any]]],
    around: Callable[[], AbstractContextManager[Any]],
) -> Any:
    """A cache with ``length`` tokens in it, from one pass under the first of ``modes`` that gets through.

    The fast mode records nothing; one that records can answer what a model's code asks about data. Layers folded away
    (``around`` folds) leave their own cache empty; the pass that follows folds the same ones.
    """
    device = next(model.parameters()).device
    for index, mode in enumerate(modes):
        cache = empty_cache(model)
        prompt = torch.zeros((batch, length), dtype=torch.long, device=device)
        try:
            with torch.no_grad(), ExitStack() as stack:
                stack.enter_context(around())
                kwargs = arguments(prompt, cache)
                stack.enter_context(mode(kwargs))
                out = model(**kwargs)
            return cache_of(out) if cache is None else cache
        except (NotImplementedError, RuntimeError):
            if index == len(modes) - 1:
                raise
    return None


def forward_parameters(model: nn.Module) -> Mapping[str, inspect.Parameter]:
    """The arguments that the model's forward takes."""
    return inspect.signature(type(model).forward).parameters


def config_of(model: nn.Module) -> PreTrainedConfig:
    """The config that a transformers model carries."""
    config = getattr(model, "config", None)
    if not isinstance(config, PreTrainedConfig):
        raise TraceError(f"{type(model).__name__} carries no transformers config; annotate_module prices any module")
    return config


def max_positions(model: nn.Module) -> int | None:
    """The longest context that a model's config allows; None where it has no limit."""
    config = getattr(model, "config", None)
    text = config.get_text_config(decoder=True) if isinstance(config, PreTrainedConfig) else None
    limit = getattr(text, "max_position_embeddings", None)
    return limit if type(limit) is int and limit > 0 else None
