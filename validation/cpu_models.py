"""Real models with random weights on this machine, and how long their passes take."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from fxmeter import decode, prefill
from fxmeter.annotators.timing.benchmarks import clock_of
from fxmeter.models.scenario import Scenario

COMMON = {"num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 8192, "max_position_embeddings": 4096}


def _fields(model_type: str, hidden: int, inner: int, layers: int, **others: Any) -> dict[str, Any]:
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
    return {**COMMON, "model_type": model_type, **sizes, **others}


MODELS: dict[str, dict[str, Any]] = {
    "dense, 20 M": _fields("llama", 384, 1024, 6),
    "dense, 100 M": _fields("llama", 768, 2048, 12),
    "dense, 500 M": _fields("llama", 1536, 4096, 16, num_attention_heads=16, num_key_value_heads=16),
    "dense, 1 B": _fields("llama", 2048, 5632, 19, num_attention_heads=16, num_key_value_heads=16),
    "grouped queries, 160 M": _fields("qwen3", 1024, 3072, 10, head_dim=128, num_key_value_heads=2),
    "grouped queries, biases, 50 M": _fields("qwen2", 512, 2048, 10, num_key_value_heads=2),
    "fused projections, 70 M": _fields("phi3", 640, 1792, 10, num_key_value_heads=4, pad_token_id=0),
    "parallel blocks, 50 M": _fields("gpt_neox", 512, 2048, 12),
    "one key head, 40 M": _fields("falcon", 512, 2048, 10, multi_query=True, new_decoder_architecture=False),
    "row by row weights, 40 M": {
        "model_type": "gpt2",
        "n_embd": 512,
        "n_layer": 10,
        "n_head": 8,
        "vocab_size": 8192,
        "n_positions": 4096,
    },
    "sliding window, 60 M": _fields("gemma3_text", 640, 2048, 8, head_dim=80, num_key_value_heads=2, sliding_window=96),
    "sliding window, 120 M": _fields("mistral", 768, 2688, 12, num_key_value_heads=2, sliding_window=256),
    "experts, 90 M": _fields(
        "qwen3_moe",
        512,
        1024,
        8,
        head_dim=64,
        num_key_value_heads=2,
        moe_intermediate_size=512,
        num_experts=8,
        num_experts_per_tok=2,
    ),
    "state space, 40 M": {
        "model_type": "mamba2",
        "hidden_size": 512,
        "num_hidden_layers": 12,
        "vocab_size": 8192,
        "state_size": 64,
        "expand": 2,
        "head_dim": 64,
        "num_heads": 16,
        "n_groups": 1,
        "chunk_size": 64,
    },
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SCENARIOS: dict[str, Scenario] = {
    "prefill 64": prefill(64),
    "prefill 256": prefill(256),
    "prefill 1,024": prefill(1024),
    "prefill 2,048": prefill(2048),
    "decode at 256": decode(256),
    "decode at 1,024": decode(1024),
    "decode at 256, B = 8": decode(256, batch=8),
    "decode at 1,024, B = 4": decode(1024, batch=4),
}
LONGEST = 2.5
"""Seconds of a pass beyond which it is left out."""
LONG = 0.5
"""Seconds of a pass from which on two repeats are enough."""
STEPS = 12
"""Repeats of a pass at most: a context of 256 grows by a twentieth."""


def real(fields: dict[str, Any], dtype: torch.dtype, attention: str) -> nn.Module:
    """A model with random weights on the CPU (on "meta", under that device)."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(**fields)
    return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention).eval()


def attentions(name: str) -> tuple[str, ...]:
    """Implementations of attention that PyTorch runs for a model."""
    with torch.device("meta"):
        fused = getattr(real(MODELS[name], torch.float32, "eager"), "_supports_sdpa", False)
    return ("eager", "sdpa") if fused else ("eager",)


def run_as(model: Any, attention: str, dtype: torch.dtype) -> None:
    """Change what runs: the implementation of attention, and the dtype of the parameters (buffers keep theirs)."""
    model.config._attn_implementation = attention
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def measured(model: Any, scenario: Scenario, seconds: float, state: Any) -> tuple[float, float] | None:
    """(least, median) seconds of a pass; None for one that takes too long. Decode steps follow one another, as in
    a generation, at most ``STEPS`` after the context in ``state``, the arguments that have it."""
    ids = torch.randint(0, 8000, (scenario.batch, scenario.query_len))
    clock = clock_of("cpu")
    times: list[float] = []
    with torch.inference_mode():
        while len(times) < 3 or (len(times) < STEPS and sum(times) < seconds and times[0] < LONG):
            started = clock()
            model(input_ids=ids, use_cache=True, **state)
            times.append(clock() - started)
            if times[0] > LONGEST:
                return None
    return min(times[1:]), statistics.median(times[1:])


class States:
    """What ``model`` keeps of prompts of these lengths, as the argument of the next call."""

    @torch.inference_mode()
    def __init__(self, model: Any, lengths: Iterable[int]) -> None:
        self._known: dict[int, dict[str, Any]] = {}
        for past_len in lengths:
            found = model(input_ids=torch.randint(0, 8000, (1, past_len)), use_cache=True, logits_to_keep=1)
            name = "past_key_values" if found.get("past_key_values") is not None else "cache_params"
            self._known[past_len] = {name: found[name]}

    @torch.inference_mode()
    def of(self, past_len: int, batch: int, dtype: torch.dtype) -> dict[str, Any]:
        """That of ``batch`` sequences with the same prompt, in a dtype; none of no prompt."""
        if not past_len:
            return {}
        state = copy.deepcopy(self._known[past_len])
        for layer in next(iter(state.values())).layers:
            for field, value in vars(layer).items():
                setattr(layer, field, dtype if field == "dtype" else _repeated(value, batch, dtype))
        return state


def _repeated(value: Any, batch: int, dtype: torch.dtype) -> Any:
    """A state, or those in a container, of ``batch`` sequences with the same past, in a dtype."""
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.to(dtype).repeat_interleave(batch, 0)
    if isinstance(value, dict):
        return {key: _repeated(each, batch, dtype) for key, each in value.items()}
    return [_repeated(each, batch, dtype) for each in value] if isinstance(value, list) else value
