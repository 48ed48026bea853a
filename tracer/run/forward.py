"""The forward of a language model that takes tokens and the cache, however deep a wrapper hides it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import nn

from fxmeter.models.errors import ScenarioError
from fxmeter.tracer.graph.values import Function
from fxmeter.tracer.state.cache import CACHE_ARGUMENTS
from fxmeter.tracer.state.tree import derived, walk


@dataclass(frozen=True, slots=True)
class Forward:
    """``names`` of the arguments that a model takes, those that a wrapper passes on in its ``**kwargs`` included; the
    ``cache`` among them, and the ``code`` that takes it."""

    names: frozenset[str]
    cache: str | None
    code: ModuleType


def forward_of(model: nn.Module) -> Forward:
    """What a call of ``model`` may pass on to where the cache is taken."""
    return derived(model, _forward)


def _forward(model: nn.Module) -> Forward:
    names: set[str] = set()
    for function in _hidden_behind(model):
        parameters = inspect.signature(function).parameters
        names |= parameters.keys()
        cache = next((name for name in CACHE_ARGUMENTS if name in parameters), None)
        passes_on = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        if cache is not None or not passes_on:
            return Forward(frozenset(names), cache, sys.modules[inspect.unwrap(function).__module__])
    return Forward(frozenset(names), None, sys.modules[type(model).__module__])


def _hidden_behind(model: nn.Module) -> Iterator[Function]:
    """The forwards of the model's class and of its bases, and of the first part which takes tokens and a cache,
    as a model wrapped by adapters is."""
    for cls in type(model).__mro__:
        if "forward" in vars(cls) and cls is not nn.Module:
            yield vars(cls)["forward"]
    for path, module in walk(model):
        parameters = inspect.signature(type(module).forward).parameters if path else {}
        if "input_ids" in parameters and any(name in parameters for name in CACHE_ARGUMENTS):
            yield type(module).forward
            return


def require_tokens(model: nn.Module) -> None:
    """Raises ScenarioError where a model takes no tokens."""
    names = forward_of(model).names
    if not names & {"input_ids", "decoder_input_ids"} and not any(
        p.kind is inspect.Parameter.VAR_KEYWORD for p in _own(model)
    ):
        raise ScenarioError(
            f"{type(model).__name__} takes no input_ids, so it is no language model that a scenario describes; "
            "annotate_module prices one call of any module"
        )


def _own(model: nn.Module) -> Iterator[inspect.Parameter]:
    return iter(inspect.signature(type(model).forward).parameters.values())


def head_of(model: nn.Module) -> nn.Module | None:
    """The layer that makes logits of hidden states; None where nothing says which."""
    owner: Any = next((module for _, module in walk(model) if hasattr(module, "get_output_embeddings")), None)
    head = getattr(model, "lm_head", None) if owner is None else owner.get_output_embeddings()
    return head if isinstance(head, nn.Linear) else None


@contextmanager
def head_given(model: nn.Module, kept: slice) -> Iterator[None]:
    """Inside the block the head gets the hidden states of these positions alone, [B, S, h] → [B, kept, h]: what forward
    methods that take no ``logits_to_keep`` would do with one."""
    head = head_of(model)
    hook = None if head is None else head.register_forward_pre_hook(lambda _, given: (given[0][..., kept, :],))
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()


def device_of(model: nn.Module) -> torch.device:
    """Where a model's weights are; meta where it has none."""
    tensors = (tensor for store in (model.parameters(), model.buffers()) for tensor in store)
    return next((tensor.device for tensor in tensors), torch.device("meta"))
