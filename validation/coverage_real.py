"""The reference of ``validation/coverage_type.py``: the same config as a real float32 model on the CPU.

transformers alone runs it, prefill and then a decode step. Of fxmeter there are only the operators in the place of
scans (so that a pass is what it is for fxmeter too); what is left afterwards is what Python says is alive.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from fxmeter import decode, prefill
from fxmeter.models import Scenario
from fxmeter.tracer.load.decoder import DecoderWithHead
from fxmeter.tracer.run.forward import forward_of
from fxmeter.tracer.run.patches.scan_hooks import scans_as_operators
from fxmeter.tracer.run.prompt import empty_cache
from fxmeter.tracer.state.attributes import attributes_restored
from fxmeter.tracer.state.cache import cache_of
from fxmeter.tracer.state.session import running
from validation.even_choices import EvenChoices
from validation.held_tensors import left_behind, only_new_objects

BATCH, PROMPT = 3, 24
SCENARIOS: dict[str, Scenario] = {"prefill": prefill(PROMPT, batch=BATCH), "decode": decode(PROMPT, batch=BATCH)}

aten = torch.ops.aten


@dataclass(frozen=True)
class RealPass:
    """A pass of the real model: FLOPs that the counter saw, and bytes of the tensors that it left.

    ``allocated_bytes`` are those of whole allocations, of which an entry may show a slice; ``counter_bytes`` are
    scalars that count tokens, ``table_bytes`` tensors that no sequence owns, such as positions.
    """

    counted: int
    cache_bytes: int
    allocated_bytes: int
    counter_bytes: int
    table_bytes: int


def real_model(config: PreTrainedConfig) -> nn.Module:
    """The model with random float32 weights on the CPU."""
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
        return model.eval()
    return DecoderWithHead.from_config(config, dtype=torch.float32).eval()


def real_pass(model: nn.Module, stage: str, *, balanced: bool = False) -> RealPass:
    """Run ``model``; a decode step follows a prefill of its own. ``balanced``: every top-k picks evenly."""
    routing = EvenChoices() if balanced else nullcontext()
    with torch.no_grad(), _as_counted(model), attributes_restored(model), running(), only_new_objects():
        tokens = torch.randint(5, 100, (BATCH, PROMPT))
        cache, kwargs = None, cache_argument(model, empty_cache(model))
        if stage == "decode":
            with routing:
                out = model(input_ids=tokens, use_cache=True, **kwargs)
            cache = cache_of(out) or next(iter(kwargs.values()), None)
            kept = left_behind(out, [tokens], BATCH).entries
            tokens = torch.randint(5, 100, (BATCH, 1 if kept else PROMPT + 1))
            kwargs = cache_argument(model, cache)
            del kept, out, cache
        with FlopCounterMode(display=False) as counter, routing:
            out = model(input_ids=tokens, use_cache=True, **kwargs)
        if cache_of(out) is not None:
            kwargs = {}  # what was given is the state before the pass
        left = left_behind(out, [tokens], BATCH)
        return RealPass(
            counted=counter.get_total_flops(),
            cache_bytes=left.entry_bytes,
            allocated_bytes=left.allocated_bytes,
            counter_bytes=sum(t.nbytes for t in left.counters),
            table_bytes=sum(t.nbytes for t in left.tables),
        )


def cache_argument(model: nn.Module, cache: Any) -> dict[str, Any]:
    """The cache under the name that the model's forward gives it."""
    name = forward_of(model).cache
    return {} if cache is None or name is None else {name: cache}


@contextmanager
def _as_counted(model: nn.Module) -> Iterator[None]:
    """Scans as operators, attention as products, routed experts in the form that FlopCounterMode sees."""
    configs = [m.config for m in model.modules() if hasattr(getattr(m, "config", None), "_experts_implementation")]
    before = [config._experts_implementation for config in configs]
    for config in configs:
        config._experts_implementation = "batched_mm"
    try:
        with sdpa_kernel(SDPBackend.MATH), scans_as_operators(model):
            yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._experts_implementation = implementation
