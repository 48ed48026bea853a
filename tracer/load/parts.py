"""Which part of a config is priced, the text decoder, and what is left out beside it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.models.auto import modeling_auto

from fxmeter.models.errors import ModelError
from fxmeter.models.model_info import LeftOut
from fxmeter.tracer.load.drafting import further_layers


def text_decoder(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config of what is priced of ``config``: of an encoder-decoder model both parts, else the text decoder.

    That is the config itself, or its text part with the outer fields that transformers obeys, such as whether embedding
    and head are tied. Raises ModelError for an encoder-decoder model that writes no text.
    """
    whole = _encoder_decoder(config)
    text = config.get_text_config(decoder=True) if whole is None else whole
    if text is config:
        return config
    text = copy.deepcopy(text)
    tied = getattr(config, "tie_word_embeddings", None)
    if tied is not None:
        text.tie_word_embeddings = tied
    if text.dtype is None:
        text.dtype = config.dtype
    return text


def _encoder_decoder(config: PreTrainedConfig) -> PreTrainedConfig | None:
    """The config of the encoder-decoder model in ``config``: its text part, or itself; None where there is none."""
    if not getattr(config, "is_encoder_decoder", False):
        return None
    text = getattr(config, "text_config", None)
    for part in (text, config):
        if isinstance(part, PreTrainedConfig) and encoder_decoder_class(part) is not None:
            return part
    raise ModelError(
        f"{config.model_type} is an encoder-decoder model that transformers has no class for which writes text; "
        "annotate_module prices one call of any module, and a bare decoder has is_encoder_decoder false in its config"
    )


def encoder_decoder_class(config: PreTrainedConfig) -> Any:
    """transformers' own class for an encoder and a decoder that writes text; None for any other config."""
    if not getattr(config, "is_encoder_decoder", False):
        return None
    mappings = (
        modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
        modeling_auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING,
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    )
    return next((mapping[type(config)] for mapping in mappings if type(config) in mapping), None)


def left_out(config: PreTrainedConfig, *, mtp: bool = False) -> tuple[LeftOut, ...]:
    """What the checkpoint of ``config`` holds beside its text decoder: towers, projectors and, unless ``mtp`` asks for
    them, layers that predict further tokens. Builds the whole model on ``meta`` to count them, where that can be."""
    parts: list[LeftOut] = []
    whole = _encoder_decoder(config)
    text = config.get_text_config(decoder=True)
    if text is not config and whole is not config:
        parts += _beside_the_text(config, text)
    crosses = getattr(text, "cross_attention_hidden_size", None) or getattr(text, "add_cross_attention", False)
    if whole is None and crosses:
        parts.append(LeftOut("the encoder that cross-attention looks at", None))
    if (further := further_layers(text, config)) and not mtp:
        parts.append(
            LeftOut(f"{further} layer{'s' * (further > 1)} that predict{'s' * (further == 1)} further tokens", None)
        )
    parts += [LeftOut(f"an adapter ({name})", None) for name, value in vars(config).items() if _is_adapter(name, value)]
    return tuple(parts)


def _is_adapter(field: str, value: object) -> bool:
    """Whether a field says that the checkpoint holds an adapter of its text decoder beside it."""
    return bool(value) and (field == "has_lora_adapter" or (field.endswith("_lora") and isinstance(value, dict)))


def _beside_the_text(config: PreTrainedConfig, text: PreTrainedConfig) -> list[LeftOut]:
    whole = _whole_model(config)
    if whole is None:
        names = [name for name in config.sub_configs if getattr(config, name, None) not in (None, text)]
        return [
            LeftOut(name.removesuffix("_config"), None) for name in names if not _is_text(getattr(config, name), text)
        ]
    return [LeftOut(name, count) for name, count in _counted(whole) if count]


def _is_text(part: object, text: PreTrainedConfig) -> bool:
    return type(part) is type(text)


def _whole_model(config: PreTrainedConfig) -> nn.Module | None:
    """The model of the outer config on ``meta``; None where transformers cannot build it here (no image library)."""
    for mapping in (
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING,
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING,
        modeling_auto.MODEL_MAPPING,
    ):
        if type(config) not in mapping:
            continue
        try:
            with torch.device("meta"), init.no_init_weights(), init.meta_device_safe_creation_ops():
                cls: Any = mapping[type(config)]
                return cls._from_config(copy.deepcopy(config), attn_implementation="eager")
        except (
            Exception
        ):  # a tower may need what is not installed: then its parameters stay uncounted, and that is said
            continue
    return None


def _counted(whole: nn.Module) -> Iterator[tuple[str, int]]:
    """(name, parameters) of what stands beside the language model in a multimodal one."""
    inner = getattr(whole, "model", whole)
    for name, child in inner.named_children():
        if not _has_tokens(child):
            yield name, sum(parameter.numel() for parameter in child.parameters())


def _has_tokens(module: nn.Module) -> bool:
    """Whether a part is the language model, or one of its pieces (a flat model has them beside the tower)."""
    names = ("embed_tokens", "wte", "word_embeddings")
    return any(
        isinstance(part, nn.Embedding) and path.rpartition(".")[2] in names for path, part in module.named_modules()
    )
