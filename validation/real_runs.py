"""Small models of many families with real weights on the CPU, and one pass of each: what the predictions are held to.

Nothing of the real side comes from fxmeter but the scans: where a model's code loops over time in Python, fxmeter
prices one operator, and that operator runs in the real pass too.
"""

from __future__ import annotations

import inspect
import io
import pickle
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedConfig

from fxmeter import annotate, decode, load_model, prefill
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.tracer.run.patches.attention import Attention
from fxmeter.tracer.run.patches.scan_hooks import scans_as_operators
from validation.small_configs import small_config

BATCH, PROMPT = 2, 24
STAGES = ("prefill", "decode")
FAMILIES = {
    "llama": "dense, multi-head",
    "mistral": "grouped queries, sliding window",
    "qwen3": "norms of queries and keys",
    "gemma3_text": "sliding and full attention, tied embeddings",
    "gpt2": "layer norm, learned positions, tied embeddings",
    "opt": "layer norm, biases",
    "gpt_neox": "parallel attention",
    "phi": "parallel attention, partial rotary",
    "gptj": "attention code of its own",
    "mixtral": "experts",
    "qwen3_moe": "experts, grouped queries",
    "deepseek_v3": "latent attention, experts",
    "deepseek_v32": "latent attention with an indexer",
    "gpt_oss": "experts, sinks, sliding window",
    "llama4_text": "chunked attention, every expert on every token",
    "gemma3n_text": "layers that share a cache",
    "mamba": "selective scan",
    "jamba": "hybrid of selective scan and attention, experts",
    "bamba": "hybrid of state-space duality and attention",
    "qwen3_next": "hybrid of delta rule and attention, experts",
}
"""Model type → what stands for it: one for each mechanism."""


def config_of(model_type: str) -> PreTrainedConfig:
    """The small config that stands for a type."""
    return small_config(model_type.split()[0], **FIELDS.get(model_type, {}))


def predicted(model_type: str, stage: str, *, attention: Attention = "eager", prompt: int = PROMPT) -> AnnotatedStage:
    """What fxmeter makes of the pass that :func:`real_run` executes, from the config alone."""
    scenario = prefill(prompt, batch=BATCH) if stage == "prefill" else decode(prompt, batch=BATCH)
    return annotate(load_model(config_of(model_type), dtype="float32"), scenario, attention=attention)


EQUAL_HEADS = "deepseek_v3 with equal head sizes"
FIELDS: dict[str, dict[str, Any]] = {
    "deepseek_v3": {"first_k_dense_replace": 1},  # without it a small one has no experts
    EQUAL_HEADS: {"first_k_dense_replace": 1, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16 + 8},
}
"""Name → fields that its small config has; the name's first word is the type."""
OWN_CACHE = ("minimax",)
"""Types that refuse transformers' own cache and start one themselves."""


@dataclass(frozen=True)
class Run:
    """A real model about to execute one pass. ``cache`` is what holds the tokens before it, None where nothing does."""

    model: nn.Module
    tokens: Tensor
    arguments: dict[str, Any]

    def __call__(self) -> Any:
        """Execute it. The output holds the cache."""
        return self.model(input_ids=self.tokens, use_cache=True, **self.arguments)

    def cache_after(self, out: Any) -> Any:
        """The cache: the object given, if it was one that grows in place, or else the one returned."""
        given = next(iter(self.arguments.values()), None)
        return _returned_cache(out)[1] if given is None else given


@contextmanager
def real_run(
    model_type: str, stage: str, *, attention: str = "eager", prompt: int = PROMPT, scans: bool = True
) -> Iterator[Run]:
    """A small model with random float32 weights in front of the pass; a decode step has a real prefill behind it.

    Without ``scans`` a model's own Python loop over time runs.
    """
    torch.manual_seed(0)
    config = config_of(model_type)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention).eval()
    tokens = torch.randint(5, 100, (BATCH, prompt))
    arguments: dict[str, Any] = {}
    if model_type not in OWN_CACHE and "past_key_values" in inspect.signature(type(model).forward).parameters:
        arguments["past_key_values"] = DynamicCache(config=model.config)
    with torch.no_grad(), scans_as_operators(model) if scans else nullcontext():
        if stage == "decode":
            name, cache = _returned_cache(model(input_ids=tokens, use_cache=True, **arguments))
            arguments = {name: cache}
            tokens = torch.randint(5, 100, (BATCH, 1))
        yield Run(model, tokens, arguments)


def _returned_cache(out: Any) -> tuple[str, Any]:
    name = next(n for n in ("past_key_values", "cache_params") if getattr(out, n, None) is not None)
    return name, getattr(out, name)


class _Finder(pickle.Pickler):
    """Finds the tensors in an object by pickling it: whatever its class, and wherever they are."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO())
        self.tensors: dict[int, Tensor] = {}

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, Tensor):
            return None
        self.tensors[id(value)] = value
        return id(value)


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor that ``value`` holds, once."""
    finder = _Finder()
    finder.dump(value)
    return list(finder.tensors.values())


def entries_in(cache: Any) -> list[Tensor]:
    """The cache's entries: its tensors but for scalars, which only count, and for what two layers share."""
    found = {(t.data_ptr(), tuple(t.shape)): t for t in tensors_in(cache) if t.dim() > 0 and t.numel() > 0}
    return list(found.values())
