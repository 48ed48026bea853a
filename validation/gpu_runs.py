"""Running a cell on a device: a model with random weights, a filled cache, one pass, and what CUDA says about it."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel

from fxmeter.tracer.load.decoder import DecoderWithHead
from fxmeter.tracer.load.loading import load_config
from validation.gpu_plan import READ, WRITTEN, Cell, Measurement, dram_bytes

WARM_UPS, REPEATS = 3, 20
COPY_BYTES = 2**30
NCU_SECONDS = 1800


def random_model(config: PreTrainedConfig, device: str, dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    """A model with random weights, made on the device."""
    torch.manual_seed(0)
    with torch.device(device):
        return DecoderWithHead.from_config(config, dtype=dtype).eval().requires_grad_(False)


@dataclass
class Pass:
    """A cell about to run: every call executes the same pass, :meth:`reset` between them."""

    model: Any
    cell: Cell

    def __post_init__(self) -> None:
        vocabulary, device = self.model.config.vocab_size, next(self.model.parameters()).device
        self.tokens = torch.randint(0, vocabulary, (self.cell.batch, self.cell.context), device=device)
        self.cache: Any = None
        if self.cell.stage == "decode":
            attend_with(self.model, "sdpa")  # the prompt's scores are not what is measured
            self.cache = DynamicCache(config=self.model.config)
            with torch.no_grad():
                self.model(input_ids=self.tokens, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
            self.tokens = self.tokens[:, :1].clone()
        attend_with(self.model, "eager" if self.cell.attention == "eager" else "sdpa")
        self.reset()

    def __call__(self) -> Any:
        """Execute it."""
        cache = DynamicCache(config=self.model.config) if self.cache is None else self.cache
        with torch.no_grad():
            return self.model(input_ids=self.tokens, past_key_values=cache, use_cache=True)

    def reset(self) -> None:
        """Take the token that a decode step has appended out of the cache again, and its memory with it."""
        if self.cache is not None:
            for layer in self.cache.layers:
                layer.keys, layer.values = (
                    entries[..., : self.cell.context, :].clone() for entries in (layer.keys, layer.values)
                )


def attend_with(model: nn.Module, implementation: str) -> None:
    """Choose the attention of a model, or of the decoder in it."""
    next(part for part in model.modules() if isinstance(part, PreTrainedModel)).set_attn_implementation(implementation)


def measure(model: nn.Module, cell: Cell) -> Measurement:
    """Memory and times of a cell on the current CUDA device."""
    call = Pass(model, cell)
    for _ in range(WARM_UPS):
        call()
        call.reset()
    allocated = allocated_at_most(call)
    call.reset()
    seconds = []
    for _ in range(REPEATS):
        seconds.append(timed(call))
        call.reset()
    in_kernels = statistics.median(kernel_seconds(call) for _ in range(WARM_UPS))
    del call
    torch.cuda.empty_cache()
    return Measurement(allocated, statistics.median(seconds), in_kernels)


def allocated_at_most(call: Callable[[], Any]) -> int:
    """Bytes of tensors on the device at the fullest moment of a call, what was there before among them."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    out = call()
    torch.cuda.synchronize()
    del out
    return torch.cuda.max_memory_allocated()


def timed(call: Callable[[], Any]) -> float:
    """Seconds from before the first kernel to after the last."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def kernel_seconds(call: Pass) -> float:
    """Seconds in which kernels ran, gaps between them left out."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        call()
        torch.cuda.synchronize()
    call.reset()
    return sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6


def copy_bandwidth() -> float:
    """Bytes per second that a copy within the device's memory moves, reads and writes; the best of several."""
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device="cuda").zero_()
    target = torch.empty_like(source)
    for _ in range(WARM_UPS):
        target.copy_(source)
    return 2 * COPY_BYTES / min(timed(lambda: target.copy_(source)) for _ in range(REPEATS))


def under_ncu(cell: Cell) -> int:
    """DRAM bytes of one pass, in a process of its own under Nsight Compute."""
    script = Path(__file__).with_name("validate_gpu.py")
    options = ["--profile-from-start", "off", "--csv", "--page", "raw", "--print-units", "base"]
    metrics = ["--metrics", f"{READ},{WRITTEN}"]
    command = ["ncu", *options, *metrics, sys.executable, str(script), "--one", json.dumps(asdict(cell))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=NCU_SECONDS, check=False)
    if done.returncode:
        last = (done.stdout + done.stderr).strip().splitlines()[-1:]
        raise RuntimeError(f"ncu ended with {done.returncode}: {' '.join(last)}")
    return dram_bytes(done.stdout)


def profiled_alone(cell: Cell) -> None:
    """One pass between the marks that Nsight Compute waits for, after a warm-up."""
    call = Pass(random_model(load_config(cell.model), "cuda"), cell)
    call()
    call.reset()
    torch.cuda.synchronize()
    torch.cuda.profiler.start()
    call()
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()


def machine() -> str:
    """Device, driver and CUDA of this machine."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        answer = []
    driver = answer[0] if answer else "unknown"
    return f"{torch.cuda.get_device_name()}, driver {driver}, CUDA {torch.version.cuda}"
