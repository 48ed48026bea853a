"""What a pass starts from: the cache, or other state, that holds the tokens before it.

The prompt is run through the model. On meta that allocates nothing and takes one folded pass.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import Cache, DynamicLayer

from models.errors import TraceError
from tracer.cache import CacheTensor, cache_of, cache_tensors

CACHE_ARGUMENTS = ("past_key_values", "cache_params", "state")
"""Names that the forward methods of transformers give the cache."""


@dataclass(frozen=True)
class Held:
    """A cache, and the tensors that modules of ``model`` keep as attributes from one pass to the next."""

    cache: Any
    model: nn.Module
    before: Mapping[tuple[str, str], Any]
    batch: int

    def tensors(self) -> Iterator[CacheTensor]:
        """Every tensor held, the cache's first."""
        yield from cache_tensors(self.cache)
        for path, name, value in _attributes(self.model):
            old = self.before.get((path, name))
            if value is not old and value.dim() > 1 and value.shape[0] == self.batch:
                layer = re.search(r"\.(\d+)(\.|$)", path)
                owner = type(self.model.get_submodule(path)).__name__
                yield CacheTensor(int(layer[1]) if layer else -1, owner, name, value)


def _attributes(model: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    """Tensors that modules keep as plain attributes, neither parameter nor buffer."""
    for path, module in model.named_modules():
        for name, value in module.__dict__.items():
            if isinstance(value, Tensor):
                yield path, name, value


@contextmanager
def attributes_restored(model: nn.Module) -> Iterator[Mapping[tuple[str, str], Any]]:
    """Plain attributes of all modules that a pass changes are afterwards as they were; yields the tensors among them."""
    kept = [(module, {k: v for k, v in module.__dict__.items() if not k.startswith("_")}) for module in model.modules()]
    try:
        yield {(path, name): value for path, name, value in _attributes(model)}
    finally:
        for module, attributes in kept:
            for name in [n for n in module.__dict__ if not n.startswith("_") and n not in attributes]:
                del module.__dict__[name]
            module.__dict__.update(attributes)


def empty_cache(model: nn.Module) -> Any:
    """The cache that generation would start with; None where the model makes its own, or takes none."""
    if "past_key_values" not in forward_parameters(model) or _has_cache_class(model):
        return None
    cache = DynamicCache(config=config_of(model))
    if getattr(cache, "layer_class_to_replicate", False) is None:
        cache.layer_class_to_replicate = DynamicLayer  # decoders may be deeper than the layers that the config counts
    return cache


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
    modes: list[Callable[[], AbstractContextManager[Any]]],
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
                stack.enter_context(mode())
                out = model(**arguments(prompt, cache))
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
