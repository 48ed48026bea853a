"""Which hand-written model speaks for which ``model_type``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fxmeter.models.choices import Attention
from fxmeter.models.errors import ModelError
from fxmeter.models.hand.causal_lm import CausalLM
from fxmeter.models.hand.deepseek import DeepseekModel, DeepseekOCRModel
from fxmeter.models.hand.llama import LlamaModel

HAND_WRITTEN: Mapping[str, type[LlamaModel] | type[DeepseekModel] | type[DeepseekOCRModel]] = {
    "llama": LlamaModel,
    "deepseek_v2": DeepseekModel,
    "deepseek_v3": DeepseekModel,
    "deepseek_ocr2_text": DeepseekOCRModel,
}


def hand_written_model(config: Mapping[str, Any], *, attention: Attention, element_bytes: int) -> CausalLM:
    """The hand-written model of a ``config.json``'s fields; ModelError where nobody has written one."""
    model_type = str(config.get("model_type"))
    if model_type not in HAND_WRITTEN:
        raise ModelError(
            f"no hand-written layer models for model_type {model_type!r}; there are some for {', '.join(HAND_WRITTEN)}"
        )
    return HAND_WRITTEN[model_type].from_config(config, attention=attention, element_bytes=element_bytes)
