"""A decoder with the layers of its checkpoint that predict further tokens, which transformers leaves out unless asked.

A pass of it is a step of an engine that drafts with them (multi-token prediction, DeepSeek-V3, arXiv:2412.19437,
section 2.2): the decoder on its tokens, then each of these layers on the hidden states of the one before and on the
tokens after them, and the head on the last position for the token that it drafts. Modules are transformers' own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.modeling_outputs import CausalLMOutputWithPast

from fxmeter.models.errors import ModelError
from fxmeter.tracer.load.decoder import kept_positions
from fxmeter.tracer.private import DynamicLayer, on_demand

COUNTS = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers", "num_mtp_modules")
"""Names that configs give the number of layers for multi-token prediction."""


def further_layers(*configs: PreTrainedConfig) -> int:
    """How many layers predict further tokens, as the first of ``configs`` that has any says; 0 where none has."""
    counts = (getattr(config, field, None) for config in configs for field in COUNTS)
    return next((count for count in counts if type(count) is int and count > 0), 0)


def with_layers(config: PreTrainedConfig, count: int) -> PreTrainedConfig:
    """``config`` as transformers asks for it to make ``count`` further layers.

    Where it does not say what kind they are, they are of the last layer's.
    """
    config = copy.deepcopy(config)
    config.num_mtp_layers = count
    for kinds in ("layer_types", "mlp_layer_types"):
        if getattr(config, kinds, None) and getattr(config, f"mtp_{kinds}", None) is None:
            setattr(config, f"mtp_{kinds}", [getattr(config, kinds)[-1]] * count)
    return config


class DraftingDecoder(nn.Module):
    """A decoder as ``model``, its head as ``lm_head``, and as ``mtp`` the layers that predict further tokens."""

    def __init__(self, main: Any, count: int) -> None:
        super().__init__()
        self.config = main.config
        self.model = main.get_decoder()
        self.lm_head = main.lm_head
        try:
            self.mtp = on_demand("MtpModel")(main, count)
        except Exception as error:
            raise _refused(main.config, "build", error) from error
        # What quantisers leave as it is: DeepSeek-V3 stores the projection of two hidden states to one in bfloat16, and
        # the lists of other checkpoints name it.
        self.unconverted = tuple(f"mtp.layers.{depth}.eh_proj" for depth in range(count))
        # Where a checkpoint keeps them as further decoder layers (``model.layers.61`` of DeepSeek-V3), each has
        # embedding and head once more; under a name of their own (``mtp.``) they share the decoder's.
        keys = getattr(main, "_keys_to_ignore_on_load_unexpected", None) or ()
        as_decoder_layers = any("layers" in key and "mtp" not in key for key in keys)
        self.stored_again = (*self._paths(self.mtp.embed_tokens, main.lm_head),) * (count * as_decoder_layers)
        for name in ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict"):
            setattr(self, name, getattr(main, name, None))

    def forward(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        logits_to_keep: int | slice = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits [B, S_q, vocabulary] of the decoder, and in ``hidden_states`` the drafts [B, 1, vocabulary] of each
        further layer. Nothing is drafted where no logits are kept: there, only the cache is filled."""
        before = 0 if past_key_values is None else past_key_values.get_seq_length()
        out = self.model(input_ids=input_ids, past_key_values=past_key_values, use_cache=use_cache, **kwargs)
        hidden, cache = out.last_hidden_state, out.past_key_values
        logits = self._logits(kept_positions(hidden, logits_to_keep))
        assert input_ids is not None
        positions = torch.arange(before, before + input_ids.shape[1], device=hidden.device)[None]
        latest, drafts = logits, []
        for depth in range(len(self.mtp.layers)):
            following = latest[:, -1:].argmax(-1) if latest.shape[1] else input_ids[:, -1:]
            input_ids, positions = torch.cat([input_ids[:, 1:], following], dim=-1), positions + 1
            hidden = self._further(depth, hidden, positions, cache, input_ids)
            if latest.shape[1]:
                latest = self._logits(hidden[:, -1:])
                drafts.append(latest)
        return CausalLMOutputWithPast(logits=logits, past_key_values=cache, hidden_states=tuple(drafts))

    def _further(self, depth: int, hidden: Tensor, positions: Tensor, cache: Any, tokens: Tensor) -> Tensor:
        """Hidden states [B, S_q, h] of one more layer, whose part of ``cache`` lies behind those of the decoder's.

        Raises ModelError for a kind of layer that transformers cannot run as a further one.
        """
        start = vars(cache).setdefault("_decoder_layers", len(cache.layers))
        own = vars(cache).get("_further")  # one for all layers, which can be told apart by nothing then
        if own is None:
            own = cache._further = on_demand("MtpCache")(config=self.mtp.config)
        own.layers = cache.layers[start:] or own.layers
        own.layer_class_to_replicate = own.layer_class_to_replicate or DynamicLayer  # a layer may have two parts of it
        try:
            out: Tensor = self.mtp.forward_layer(depth, hidden, positions, own, input_ids=tokens)
        except (KeyError, AttributeError, TypeError) as error:
            raise _refused(self.config, "run", error) from error
        cache.layers[start:] = own.layers
        return out

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.mtp._project_to_logits(hidden)
        return logits

    def _paths(self, *modules: nn.Module) -> Iterator[str]:
        return (path for path, module in self.named_modules() if module in modules)


def _refused(config: PreTrainedConfig, what: str, error: Exception) -> ModelError:
    """That transformers' own code is not made for the further layers of such a model."""
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ModelError(
        f"{config.model_type}: transformers cannot {what} its layers that predict further tokens ({reason:.160}); "
        "without mtp (--mtp) the decoder alone is priced"
    )
