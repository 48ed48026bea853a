"""What a pass starts from: the cache, or other state, that holds the tokens before it.

The prompt is run through the model. On meta that allocates nothing and takes one folded pass. The cache is of
transformers' own class for the config, so a layer with a window keeps a window, and nothing here computes one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedConfig

from fxmeter.models.errors import TraceError
from fxmeter.tracer.private import Cache, DynamicLayer
from fxmeter.tracer.run.forward import device_of, forward_of
from fxmeter.tracer.state.cache import cache_of
from fxmeter.tracer.state.tree import walk


def empty_cache(model: nn.Module) -> Any:
    """The cache that generation would start with; None where the model makes its own, or takes none."""
    if forward_of(model).cache != "past_key_values" or _has_cache_class(model) or is_encoder(model):
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
    return getattr(_config(model), "is_decoder", None) is False


def _has_cache_class(model: nn.Module) -> bool:
    """Whether the model's own modelling code defines a cache."""
    code = forward_of(model).code
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
    device = device_of(model)
    for index, mode in enumerate(modes):
        cache = empty_cache(model)
        prompt = torch.zeros((batch, length), dtype=torch.long, device=device)
        try:
            with ExitStack() as stack:
                stack.enter_context(around())
                kwargs = arguments(prompt, cache)
                stack.enter_context(mode(kwargs))
                out = model(**kwargs)
            return cache_of(out) if cache is None else cache
        except (NotImplementedError, RuntimeError):
            if index == len(modes) - 1:
                raise
    return None


def config_of(model: nn.Module) -> PreTrainedConfig:
    """The config that a transformers model carries, or the first of its parts that has one."""
    config = _config(model)
    if config is None:
        raise TraceError(f"{type(model).__name__} carries no transformers config; annotate_module prices any module")
    return config


def _config(model: nn.Module) -> PreTrainedConfig | None:
    configs = (getattr(module, "config", None) for _, module in walk(model))
    return next((config for config in configs if isinstance(config, PreTrainedConfig)), None)


def max_positions(model: nn.Module) -> int | None:
    """The longest context that a model's config allows; None where it has no limit."""
    config = _config(model)
    text = None if config is None else config.get_text_config(decoder=True)
    limit = getattr(text, "max_position_embeddings", None)
    return limit if type(limit) is int and limit > 0 else None
