"""fxmeter beside the public tools: how long each takes on the same model, and what each says.

    python benchmarks/vs_public_tools.py [--install] [--runs 5] [--skip-slow] [MODEL ...]

Every tool gets the same model on meta and the same prefill of 2,048 tokens, batch 1, in this process. Times are
medians, as ratios to one ``FlopCounterMode`` forward pass of that prefill, taken in turn so that a busy machine slows
all alike. fxmeter's time is the complete annotation (record, price, roll up) of that prefill *and* of a decode step at
4,096 tokens of context, with flash attention. ``--install`` puts the other tools into ``build/bench-tools``; they are
no dependency of fxmeter. Results go to ``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache
from transformers.utils import logging

from annotators import annotate
from models import decode, prefill
from tracer import load_model

ROOT = Path(__file__).parent.parent
TOOLS = ROOT / "build" / "bench-tools"
PACKAGES = (
    "calflops fvcore iopath portalocker yacs termcolor tabulate deepspeed"
    " hjson ninja py-cpuinfo msgpack einops psutil accelerate"
)
MODELS = ("deepseek-v3", "deepseek-v2-lite", "llama-2-7b")
LENGTH, CONTEXT = 2048, 4096
LIMITS = {"deepseek-v3": 1 / 5, "deepseek-v2-lite": 1 / 2, "llama-2-7b": 1 / 2}


@dataclass
class Result:
    """What one tool said of one model, and how long it took relative to FlopCounterMode."""

    tool: str
    says: str
    seconds: float | None = None
    ratio: float | None = None


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


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what the function returned; whatever it prints is dropped."""
    gc.collect()
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        started = time.perf_counter()
        value = function()
        return time.perf_counter() - started, value


def measure(name: str, runs: int, *, skip_slow: bool) -> list[Result]:
    """All tools on one model."""
    model = load_model(name)
    exact = truth(name, model)
    for tool in (by_flop_counter, by_fxmeter):
        timed(partial(tool, model))
    theirs, ours = [], []
    for _ in range(runs):
        seconds, counted = timed(partial(by_flop_counter, model))
        theirs.append(seconds)
        seconds, said = timed(partial(by_fxmeter, model))
        ours.append(seconds)
    reference = statistics.median(theirs)
    results = [
        Result("truth (FlopCounterMode, experts as batched products)", f"{exact / 1e12:.6f} TFLOP"),
        Result("FlopCounterMode, one forward pass", _says(counted, exact), reference, 1.0),
        Result(
            "**fxmeter**, prefill and decode",
            _says(said, exact) + ", vector FLOPs, bytes, activations, peak, KV, by op and module",
            statistics.median(ours),
            statistics.median(o / t for o, t in zip(ours, theirs, strict=True)),
        ),
    ]
    others = {
        "calflops": by_calflops,
        "fvcore": by_fvcore,
        "DeepSpeed profiler": by_deepspeed,
        "MemTracker": by_mem_tracker,
    }
    for tool, function in others.items():
        if skip_slow and tool in ("fvcore", "MemTracker"):
            continue
        print(f"  {tool}", file=sys.stderr)
        try:
            seconds, value = timed(partial(function, model))
        except Exception as error:
            results.append(Result(tool, f"fails: {type(error).__name__}: {' '.join(str(error).split())[:80]}"))
            model = load_model(name)  # some tools leave their patches behind when they fail
            continue
        says = value if isinstance(value, str) else _says(value, exact)
        results.append(Result(tool, says, seconds, seconds / reference))
    return results


def _says(flops: int, exact: int) -> str:
    if flops == exact:
        return f"{flops / 1e12:.6f} TFLOP, equal"
    return f"{flops / 1e12:.6f} TFLOP, {flops / exact - 1:+.1%}"


def distinct_layers() -> list[tuple[int, float]]:
    """Seconds for one prefill against the number of distinct layers, folding off."""
    from transformers import LlamaConfig

    found = []
    for layers in (1, 2, 4, 8, 16, 32, 64, 128):
        model = load_model(
            LlamaConfig(num_hidden_layers=layers, hidden_size=512, intermediate_size=1024, num_attention_heads=8)
        )
        times = [timed(partial(annotate, model, prefill(LENGTH), fold=False))[0] for _ in range(3)]
        found.append((layers, statistics.median(times)))
    return found


def page(results: dict[str, list[Result]], layers: list[tuple[int, float]], runs: int) -> str:
    """docs/benchmarks.md."""
    lines = [
        "# Speed and truth beside the public tools",
        "",
        f"Written by `python benchmarks/vs_public_tools.py` on {date.today().isoformat()}: torch {version('torch')}, "
        f"transformers {version('transformers')}, Python {platform.python_version()}, {os.cpu_count()} cores, no "
        "GPU. "
        f"Prefill of {LENGTH:,} tokens, batch 1, on meta; fxmeter also annotates a decode step at {CONTEXT:,}. Times "
        "are "
        f"medians of {runs} (others: one run) relative to one `FlopCounterMode` forward pass of that prefill in the "
        "same process.",
        "",
    ]
    for name, rows in results.items():
        lines += [f"## {name}", "", "| tool | time | says |", "|---|---:|---|"]
        for row in rows:
            ratio = "–" if row.ratio is None else f"{row.ratio:.2f}× ({row.seconds:.3f} s)"
            lines.append(f"| {row.tool} | {ratio} | {row.says} |")
        lines.append("")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    slope = (layers[-1][1] - layers[0][1]) / (layers[-1][0] - layers[0][0])
    lines += [
        "## Time against distinct layers",
        "",
        "One prefill of a Llama whose layers are all recorded (`fold=False`), as if no two were alike:",
        "",
        "| distinct layers | " + " | ".join(str(n) for n, _ in layers) + " |",
        "|---|" + "---:|" * len(layers),
        "| seconds | " + " | ".join(f"{s:.3f}" for _, s in layers) + " |",
        "| seconds per layer | " + " | ".join(f"{s / n:.4f}" for n, s in layers) + " |",
        "",
        f"Linear: {slope * 1000:.1f} ms a layer.",
        "",
        f"Peak memory of the process that did all of this, torch, transformers and all tools included: {peak:.2f} GiB.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write docs/benchmarks.md; exit 1 where fxmeter misses a limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--install", action="store_true", help="install the other tools into build/bench-tools")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--skip-slow", action="store_true", help="leave out fvcore and MemTracker")
    options = parser.parse_args()
    if options.install:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--no-deps", "--no-build-isolation"]
        subprocess.run([*command, "--target", str(TOOLS), *PACKAGES.split()], check=True)
    sys.path.append(str(TOOLS))
    logging.set_verbosity_error()
    results = {}
    for name in options.models:
        print(name, file=sys.stderr)
        results[name] = measure(name, options.runs, skip_slow=options.skip_slow)
    text = page(results, distinct_layers(), options.runs)
    (ROOT / "docs" / "benchmarks.md").write_text(text, encoding="utf-8")
    print(text)
    missed = [
        f"{name}: {row.ratio:.3f} > {LIMITS[name]:.3f}"
        for name, rows in results.items()
        for row in rows
        if "fxmeter" in row.tool and row.ratio is not None and row.ratio > LIMITS.get(name, 1)
    ]
    if missed:
        sys.exit("slower than promised: " + ", ".join(missed))


if __name__ == "__main__":
    main()
