"""What a pass starts from: the cache, or other state, that holds the tokens before it.

The prompt is run through the model. On meta that allocates nothing and takes one folded pass. The cache is of
transformers' own class for the config, so a layer with a window keeps a window, and nothing here computes one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache as cached
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from fxmeter.models.errors import TraceError
from fxmeter.models.model_info import PositionLimit
from fxmeter.models.names import Kwargs
from fxmeter.tracer.capture.recorder import Recorder
from fxmeter.tracer.operators.meta_kernels import MetaKernels
from fxmeter.tracer.private import Cache, DynamicLayer
from fxmeter.tracer.run.calls import declare_inputs
from fxmeter.tracer.run.failures import as_trace_errors
from fxmeter.tracer.run.forward import device_of, forward_of
from fxmeter.tracer.state.cache import cache_of, refuse_another
from fxmeter.tracer.state.session import running
from fxmeter.tracer.state.tree import walk


def empty_cache(model: nn.Module) -> Any:
    """The cache that generation would start with; None where the model makes its own, or takes none."""
    if forward_of(model).cache != "past_key_values" or _has_cache_class(model) or is_encoder(model):
        return None
    if getattr(find_config(model), "is_encoder_decoder", False):  # its own code makes a cache of two parts
        return None
    try:
        cache = DynamicCache(config=config_of(model))
    except AttributeError:  # a config that does not say how many layers there are
        return None
    if getattr(cache, "layer_class_to_replicate", False) is None:
        cache.layer_class_to_replicate = DynamicLayer  # decoders may be deeper than the layers that the config counts
    return cache


_FILLS_IN = {*MODEL_FOR_MASKED_LM_MAPPING_NAMES.values()} - {
    *MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values(),
    *MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.values(),
}
"""Names of the classes that transformers has for encoders alone."""


def is_encoder(model: nn.Module) -> bool:
    """Whether a model sees all tokens at once and keeps none: its config says that it is no decoder and its code asks
    for that, or transformers knows it as one that fills in masked tokens and not as one that continues a text."""
    config = find_config(model)
    no_decoder = getattr(config, "is_decoder", None) is False and not getattr(config, "is_encoder_decoder", False)
    return (no_decoder and _asks_whether_decoder(forward_of(model).code)) or not _FILLS_IN.isdisjoint(
        cls.__name__ for cls in type(model).__mro__
    )


@cached
def _asks_whether_decoder(code: ModuleType) -> bool:
    """Whether a class of a modelling file reads a config's ``is_decoder``: GPT-NeoX has the field, False, and never
    does."""
    classes = (value for value in vars(code).values() if inspect.isclass(value) and value.__module__ == code.__name__)
    functions = (inspect.unwrap(value) for cls in classes for value in vars(cls).values() if callable(value))
    return any(
        "is_decoder" in function.__code__.co_names for function in functions if isinstance(function, FunctionType)
    )


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
    arguments: Callable[[Tensor, Any], Kwargs],
    around: Callable[[], AbstractContextManager[Any]],
) -> Any:
    """A cache with ``length`` tokens in it, from one pass.

    Layers folded away (``around`` folds) leave their own cache empty; the pass that follows folds the same ones.
    """
    cache = None

    def given() -> Kwargs:
        nonlocal cache
        cache = empty_cache(model)
        return arguments(torch.zeros((batch, length), dtype=torch.long, device=device_of(model)), cache)

    with as_trace_errors(model):
        out = run_unrecorded(model, given, around)
    refuse_another(cache, out)
    return cache_of(out) if cache is None else cache


def run_unrecorded(
    model: nn.Module,
    arguments: Callable[[], Kwargs],
    around: Callable[[], AbstractContextManager[Any]],
    part: nn.Module | None = None,
) -> Any:
    """What ``model``, or the ``part`` of it, returns for ``arguments()``: a pass for what it leaves behind.

    The fast way records nothing; where it does not get through, a recording can answer what code asks about data.
    """
    call = model if part is None else part
    fast = MetaKernels if device_of(model).type == "meta" else nullcontext
    try:
        with running(), around(), fast():
            return call(**arguments())
    except (NotImplementedError, RuntimeError):
        recorder = Recorder(model)
        with around():
            kwargs = arguments()
            declare_inputs(recorder, (), kwargs)
            with recorder.watching():
                return call(**kwargs)


def config_of(model: nn.Module) -> PreTrainedConfig:
    """The config that a transformers model carries, or the first of its parts that has one."""
    config = find_config(model)
    if config is None:
        raise TraceError(f"{type(model).__name__} carries no transformers config; annotate_module prices any module")
    return config


def find_config(model: nn.Module) -> PreTrainedConfig | None:
    """The same, or None where no part has one."""
    own = getattr(model, "config", None)  # nearly always, and then the tree need not be looked at
    if isinstance(own, PreTrainedConfig):
        return own
    configs = (getattr(module, "config", None) for _, module in walk(model))
    return next((config for config in configs if isinstance(config, PreTrainedConfig)), None)


_DECODER_LIMITS = ("max_position_embeddings", "max_decoder_position_embeddings", "max_target_positions")
_ENCODER_LIMITS = ("max_encoder_position_embeddings", "max_position_embeddings", "max_source_positions")


def max_positions(model: nn.Module) -> PositionLimit | None:
    """The longest context that a model's config allows; None where it has no limit."""
    config = find_config(model)
    return None if config is None else _limit(config.get_text_config(decoder=True), _DECODER_LIMITS)


def max_encoder_positions(encoder: nn.Module) -> PositionLimit | None:
    """The same of what an encoder reads."""
    config = find_config(encoder)
    return None if config is None else _limit(config, _ENCODER_LIMITS)


def _limit(config: PreTrainedConfig, fields: tuple[str, ...]) -> PositionLimit | None:
    found = ((field, getattr(config, field, None)) for field in fields)
    return next((PositionLimit(field, n) for field, n in found if type(n) is int and n > 0), None)
