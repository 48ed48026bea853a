"""Which hand-written model speaks for which ``model_type``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from fxmeter.models.choices import Attention
from fxmeter.models.errors import ModelError
from fxmeter.models.hand.causal_lm import CausalLM
from fxmeter.models.hand.deepseek import DeepseekModel, DeepseekOCRModel
from fxmeter.models.hand.llama import LlamaModel
from fxmeter.models.names import Fields
from fxmeter.models.scenario import Stage

HAND_WRITTEN: Mapping[str, type[LlamaModel] | type[DeepseekModel] | type[DeepseekOCRModel]] = {
    "llama": LlamaModel,
    "deepseek_v2": DeepseekModel,
    "deepseek_v3": DeepseekModel,
    "deepseek_ocr2_text": DeepseekOCRModel,
}


def hand_written_model(config: Fields, *, attention: Attention, element_bytes: int) -> CausalLM:
    """The hand-written model of a ``config.json``'s fields; ModelError where nobody has written one."""
    return _class_of(config).from_config(config, attention=attention, element_bytes=element_bytes)


def served_model(config: Fields, stage: Stage, *, element_bytes: int) -> CausalLM:
    """The same as an engine runs ``stage``: fused cores that compute the pairs of a causal mask, latent attention
    absorbed in decode, of a prompt the logits of the last position. ModelError as for :func:`hand_written_model`."""
    kind = _class_of(config)
    absorbed = {"absorbed": True} if kind is DeepseekModel and stage == "decode" else {}
    model = kind.from_config(config, attention="flash", element_bytes=element_bytes, **absorbed)
    layers: Iterable[Any] = model.model.layers
    causal = tuple(replace(layer, self_attn=replace(layer.self_attn, causal="exact")) for layer in layers)
    return replace(model, model=replace(model.model, layers=causal), logits="all" if stage == "decode" else "last")


def _class_of(config: Fields) -> type[LlamaModel] | type[DeepseekModel] | type[DeepseekOCRModel]:
    model_type = str(config.get("model_type"))
    if model_type not in HAND_WRITTEN:
        raise ModelError(
            f"no hand-written layer models for model_type {model_type!r}; there are some for {', '.join(HAND_WRITTEN)}"
        )
    return HAND_WRITTEN[model_type]
