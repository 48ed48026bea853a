"""What a pass starts from: the cache, or other state, that holds the tokens before it.

The prompt is run through the model. On meta that allocates nothing and takes one folded pass.
"""

from __future__ import annotations

import inspect
import operator
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import Cache, DynamicLayer

from fxmeter.models.errors import TraceError
from fxmeter.tracer.state.cache import CacheTensor, cache_of, cache_tensors
from fxmeter.tracer.state.tree import Stores, walk

CACHE_ARGUMENTS = ("past_key_values", "cache_params", "past_buckets_states", "state", "mems")
"""Names that the forward methods of transformers give the cache."""


class Attributes:
    """The attributes and submodules of all modules of a model as they were, to see and undo what a pass changes."""

    def __init__(self, model: nn.Module) -> None:
        modules = walk(model)
        self._stores = Stores([store for _, module in modules for store in (module.__dict__, module._modules)])
        self._kept = [(path, module, dict(module.__dict__)) for path, module in modules]
        self._modules = [(module, dict(module._modules)) for _, module in modules if module._modules]

    def _changed(self) -> Iterator[tuple[str, nn.Module, dict[str, Any]]]:
        if self._stores.same():
            return
        for path, module, kept in self._kept:
            now = module.__dict__
            if len(now) != len(kept) or not all(map(operator.is_, now.values(), kept.values())):
                yield path, module, kept

    def new_tensors(self) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
        """(path, module, name, tensor) of every attribute that has become another tensor."""
        for path, module, kept in self._changed():
            for name, value in module.__dict__.items():
                if isinstance(value, Tensor) and value is not kept.get(name):
                    yield path, module, name, value

    def restore(self) -> None:
        """Put everything back but what torch keeps for itself."""
        if self._stores.same():
            return
        for _, module, kept in self._changed():
            now = module.__dict__
            for name in [n for n in now if not n.startswith("_") and n not in kept]:
                del now[name]
            now.update({name: value for name, value in kept.items() if not name.startswith("_")})
        for module, submodules in self._modules:
            if not all(map(operator.is_, module._modules.values(), submodules.values())):
                module._modules.update(submodules)


@contextmanager
def attributes_restored(model: nn.Module) -> Iterator[Attributes]:
    """Attributes and submodules that a pass changes are afterwards as they were."""
    attributes = Attributes(model)
    try:
        yield attributes
    finally:
        attributes.restore()


@dataclass(frozen=True)
class Held:
    """A cache, and the tensors that modules keep as ``attributes`` from one pass to the next."""

    cache: Any
    attributes: Attributes
    batch: int

    def tensors(self) -> Iterator[CacheTensor]:
        """Every tensor held, the cache's first."""
        yield from cache_tensors(self.cache)
        for path, module, name, value in self.attributes.new_tensors():
            if value.dim() > 1 and value.shape[0] == self.batch:
                layer = re.search(r"\.(\d+)(\.|$)", path)
                yield CacheTensor(int(layer[1]) if layer else -1, type(module).__name__, name, value)


def empty_cache(model: nn.Module) -> Any:
    """The cache that generation would start with; None where the model makes its own, or takes none."""
    if "past_key_values" not in forward_parameters(model) or _has_cache_class(model):
        return None
    try:
        cache = DynamicCache(config=config_of(model))
    except AttributeError:  # a config that does not say how many layers there are
        return None
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
