"""The public tools that count what a forward pass costs, each behind one function of the model."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from fxmeter import annotate, decode, prefill

LENGTH, CONTEXT = 2048, 4096


def tokens() -> torch.Tensor:
    """The prompt, on meta."""
    return torch.zeros(1, LENGTH, dtype=torch.long, device="meta")


def forward(model: nn.Module) -> None:
    """One forward pass of the prompt."""
    model(input_ids=tokens(), past_key_values=DynamicCache(config=model.config), use_cache=True)


class Logits(nn.Module):
    """Tokens in, logits out, with a cache of its own: what tools can call that know nothing of caches."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """ids [B, S] → logits [B, S, vocabulary]"""
        cache = DynamicCache(config=self.model.config)
        return self.model(input_ids=ids, past_key_values=cache, use_cache=True).logits


def by_flop_counter(model: nn.Module) -> int:
    """matmul FLOPs, by torch's counter."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward(model)
    return counter.get_total_flops()


def by_fxmeter(model: nn.Module) -> int:
    """matmul FLOPs of the prefill; the decode step is annotated too."""
    cost = annotate(model, prefill(LENGTH), attention="flash").cost
    annotate(model, decode(CONTEXT), attention="flash")
    return cost.matmul_flops


def by_calflops(model: nn.Module) -> int:
    """calflops counts FLOPs of the modules that it patches."""
    from calflops import calculate_flops

    flops, _, _ = calculate_flops(model=Logits(model), args=[tokens()], print_results=False, output_as_string=False)
    return int(flops)


def by_fvcore(model: nn.Module) -> int:
    """fvcore counts multiply-accumulates; twice that is FLOPs."""
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(Logits(model), tokens())
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    return 2 * int(analysis.total())


def by_deepspeed(model: nn.Module) -> int:
    """DeepSpeed's profiler counts multiply-accumulates of the functions that it patches."""
    from deepspeed.profiling.flops_profiler import FlopsProfiler

    profiler = FlopsProfiler(model)
    profiler.start_profile()
    try:
        with torch.no_grad():
            forward(model)
        return int(profiler.get_total_flops())
    finally:
        profiler.end_profile()


def by_mem_tracker(model: nn.Module) -> str:
    """torch's MemTracker: peak memory, no FLOPs."""
    from torch.distributed._tools.mem_tracker import MemTracker

    tracker = MemTracker()
    tracker.track_external(model)
    with torch.no_grad(), tracker:
        forward(model)
    peak = tracker.get_tracker_snapshot("peak")
    total = max(int(sizes["Total"]) for sizes in peak.values())
    return f"peak {total / 2**30:,.2f} GiB, weights included; no FLOPs"


def truth(name: str, model: nn.Module) -> int:
    """matmul FLOPs with the experts where FlopCounterMode can see them, eager attention."""
    config = model.config.get_text_config()
    before = config._experts_implementation
    config._experts_implementation = "batched_mm"
    try:
        return by_flop_counter(model)
    finally:
        config._experts_implementation = before
