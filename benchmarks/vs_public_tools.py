"""fxmeter beside the public tools: how long each takes on the same model, and what each says.

    python -m benchmarks.vs_public_tools [--install] [--runs 5] [--skip-slow] [MODEL ...]

Every tool gets the same model on meta and the same prefill of 2,048 tokens, batch 1, in this process. Times are of the
processor, medians, as ratios to one ``FlopCounterMode`` forward pass of that prefill, taken in turn so that a busy
machine slows all alike. fxmeter's time is the complete annotation (record, price, roll up) of that prefill *and* of a
decode step at 4,096 tokens of context, with flash attention. ``--install`` puts the other tools into
``build/bench-tools``; they are no dependency of fxmeter. Results go to ``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import platform
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

from transformers.utils import logging

from benchmarks.public_tools import (
    CONTEXT,
    LENGTH,
    by_calflops,
    by_deepspeed,
    by_flop_counter,
    by_fvcore,
    by_fxmeter,
    by_mem_tracker,
    truth,
)
from fxmeter import annotate, load_model, prefill

ROOT = Path(__file__).parent.parent
TOOLS = ROOT / "build" / "bench-tools"
PACKAGES = (
    "calflops fvcore iopath portalocker yacs termcolor tabulate deepspeed"
    " hjson ninja py-cpuinfo msgpack einops psutil accelerate"
)
MODELS = ("deepseek-v3", "deepseek-v2-lite", "llama-2-7b")
LIMITS = {"deepseek-v3": 1 / 5, "deepseek-v2-lite": 1 / 2, "llama-2-7b": 1 / 2}


@dataclass
class Result:
    """What one tool said of one model, and how long it took relative to FlopCounterMode."""

    tool: str
    says: str
    seconds: float | None = None
    ratio: float | None = None


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the process's own time, and what the function returned; whatever it prints is dropped."""
    gc.collect()
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        started = time.process_time()
        value = function()
        return time.process_time() - started, value


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
    """Seconds for one prefill against the number of layers, each told apart from the others by an attribute."""
    from transformers import LlamaConfig

    found = []
    for layers in (1, 2, 4, 8, 16, 32, 64, 128):
        model = load_model(
            LlamaConfig(num_hidden_layers=layers, hidden_size=512, intermediate_size=1024, num_attention_heads=8)
        )
        for index, layer in enumerate(model.model.layers):
            layer.mark = f"number {index}"
        times = [timed(partial(annotate, model, prefill(LENGTH)))[0] for _ in range(3)]
        found.append((layers, statistics.median(times)))
    return found


OWN_MEMORY = """
import sys
from pathlib import Path
from fxmeter import annotate, decode, load_model, prefill
import fxmeter.annotators.api


def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))


imported = peak()
model = load_model(sys.argv[1])
annotate(model, prefill(int(sys.argv[2])))
annotate(model, decode(int(sys.argv[3])))
print(imported, peak())
"""


def own_memory(name: str) -> tuple[int, int]:
    """MiB resident after the imports, and at the most, of a fresh process that annotates both stages (Linux only)."""
    command = [sys.executable, "-c", OWN_MEMORY, name, str(LENGTH), str(CONTEXT)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    imported, peak = map(int, done.stdout.split())
    return imported, peak


def page(
    results: dict[str, list[Result]],
    layers: list[tuple[int, float]],
    memory: dict[str, tuple[int, int]],
    runs: int,
) -> str:
    """docs/benchmarks.md."""
    lines = [
        "# Speed and truth beside the public tools",
        "",
        f"Written by `python -m benchmarks.vs_public_tools` on {date.today().isoformat()}: torch {version('torch')}, "
        f"transformers {version('transformers')}, Python {platform.python_version()}, {os.cpu_count()} cores, no "
        "GPU. "
        f"Prefill of {LENGTH:,} tokens, batch 1, on meta; fxmeter also annotates a decode step at {CONTEXT:,}. Times "
        "are of the processor, on a machine that others use too: "
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
    base = next(iter(memory.values()))[0]
    slope = (layers[-1][1] - layers[0][1]) / (layers[-1][0] - layers[0][0])
    lines += [
        "## Time against distinct layers",
        "",
        "One prefill of a Llama no two layers of which are alike, so that all are recorded:",
        "",
        "| distinct layers | " + " | ".join(str(n) for n, _ in layers) + " |",
        "|---|" + "---:|" * len(layers),
        "| seconds | " + " | ".join(f"{s:.3f}" for _, s in layers) + " |",
        "| seconds per layer | " + " | ".join(f"{s / n:.4f}" for n, s in layers) + " |",
        "",
        f"Linear: {slope * 1000:.1f} ms a layer.",
        "",
        "## Memory",
        "",
        "Peak resident memory of a process that annotates both stages of a model and does nothing else:",
        "",
        "| after importing torch and transformers | " + " | ".join(memory) + " |",
        "|---:|" + "---:|" * len(memory),
        f"| {base} MiB | " + " | ".join(f"{peak} MiB" for _, peak in memory.values()) + " |",
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
    memory = {name: own_memory(name) for name in options.models}
    text = page(results, distinct_layers(), memory, options.runs)
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
