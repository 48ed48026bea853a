"""A causal language model for configs that transformers only knows as the decoder of something larger."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from fxmeter.models.errors import ModelError


class DecoderWithHead(nn.Module):
    """A decoder as ``model`` and an output projection as ``lm_head``, the way every ``ForCausalLM`` is put together."""

    def __init__(self, model: PreTrainedModel, dtype: torch.dtype) -> None:
        super().__init__()
        self.config = model.config
        self.model = model
        self.lm_head = nn.Linear(self.config.hidden_size, self.config.vocab_size, bias=False, dtype=dtype)
        if getattr(self.config, "tie_word_embeddings", False):
            self.lm_head.weight = cast(nn.Embedding, model.get_input_embeddings()).weight

    @classmethod
    def from_config(cls, config: PreTrainedConfig, *, dtype: torch.dtype) -> nn.Module:
        """The decoder that ``config``, or its text part, describes, found in the config's own modelling module."""
        text = config.get_text_config(decoder=True)
        if type(text) in MODEL_FOR_CAUSAL_LM_MAPPING:
            from transformers import AutoModelForCausalLM

            return AutoModelForCausalLM.from_config(text, dtype=dtype, attn_implementation="eager")
        model = _decoder_class(text)._from_config(text, dtype=dtype, attn_implementation="eager")
        return cls(model, dtype)

    def forward(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        logits_to_keep: int | slice = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits [B, S_q, vocabulary], or of the last ``logits_to_keep`` positions, or of a slice of them."""
        out = self.model(input_ids=input_ids, past_key_values=past_key_values, use_cache=use_cache, **kwargs)
        logits = self.lm_head(kept_positions(out.last_hidden_state, logits_to_keep))
        return CausalLMOutputWithPast(logits=logits, past_key_values=out.past_key_values)


def kept_positions(hidden: Tensor, logits_to_keep: int | slice) -> Tensor:
    """``hidden`` [B, S_q, h] of the positions whose logits a forward is asked for: the last so many, a slice, or all
    (0)."""
    kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
    return hidden[:, kept, :] if logits_to_keep else hidden


def _decoder_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The model class of ``config``'s modelling module that takes token ids and a cache, and is built from it."""
    module_name = type(config).__module__.replace("configuration_", "modeling_")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ModelError(f"{config.model_type}: its modelling code cannot be imported: {error}") from None
    for cls in vars(module).values():
        if isinstance(cls, type) and issubclass(cls, PreTrainedModel) and cls.config_class is type(config):
            parameters = inspect.signature(cls.forward).parameters
            if "input_ids" in parameters and "past_key_values" in parameters:
                return cls
    raise ModelError(f"{config.model_type} is not a text decoder: no class of {module_name} takes tokens and a cache")
