"""Time on this machine: real models with real weights, predicted from a calibration that is interleaved with them.

    python -m validation.time_cpu [--seconds N] [--no-write]

Each case is a model with random weights, run by PyTorch op by op, so the prediction is the estimate without fusion.
Calibration is repeated between the models, since a shared machine drifts; a case is predicted with the one before it.
Errors are signed, predicted less measured, against the least of the repeats; the spread of the repeats is beside each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from fxmeter import annotate, decode, prefill
from fxmeter.annotators.timing.calibrate import calibrate
from fxmeter.models.scenario import Scenario
from validation.page import progress, quiet

PAGE = Path(__file__).parent.parent / "docs" / "validation_time_cpu.md"
DENSE = {"num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 8192, "max_position_embeddings": 4096}
MODELS: dict[str, dict[str, Any]] = {
    "dense, 20 M": {
        **DENSE,
        "model_type": "llama",
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_hidden_layers": 6,
    },
    "dense, 100 M": {
        **DENSE,
        "model_type": "llama",
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
    },
    "grouped queries, 160 M": {
        **DENSE,
        "model_type": "qwen3",
        "hidden_size": 1024,
        "head_dim": 128,
        "num_key_value_heads": 2,
        "intermediate_size": 3072,
        "num_hidden_layers": 10,
    },
    "sliding window, 60 M": {
        **DENSE,
        "model_type": "gemma3_text",
        "hidden_size": 640,
        "head_dim": 80,
        "num_key_value_heads": 2,
        "intermediate_size": 2048,
        "num_hidden_layers": 8,
        "sliding_window": 128,
    },
    "experts, 90 M": {
        **DENSE,
        "model_type": "qwen3_moe",
        "hidden_size": 512,
        "head_dim": 64,
        "num_key_value_heads": 2,
        "intermediate_size": 1024,
        "moe_intermediate_size": 512,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 8,
    },
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SCENARIOS: dict[str, Scenario] = {
    "prefill 64": prefill(64),
    "prefill 256": prefill(256),
    "prefill 1,024": prefill(1024),
    "decode at 256": decode(256),
    "decode at 256, B = 8": decode(256, batch=8),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One measured pass beside its prediction, in seconds."""

    model: str
    dtype: str
    attention: str
    scenario: str
    predicted_s: float
    least_s: float
    median_s: float

    @property
    def error(self) -> float:
        """Predicted less measured, as a share of the least."""
        return self.predicted_s / self.least_s - 1


def cases(seconds: float) -> Iterator[Case]:
    """Every case; ``seconds`` for each calibration and for the repeats of each pass."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "here.json"
        for name, fields in MODELS.items():
            file.write_text(json.dumps(calibrate("cpu", seconds=5 * seconds)))
            for dtype in DTYPES:
                for attention in ("eager", "sdpa"):
                    model = real(fields, DTYPES[dtype], attention)
                    for label, scenario in SCENARIOS.items():
                        progress(f"{name}, {dtype}, {attention}, {label}")
                        kind = "eager" if attention == "eager" else "flash"
                        predicted = annotate(model, scenario, attention=kind).time(file, fused=False).estimate_s
                        yield Case(name, dtype, attention, label, predicted, *measured(model, scenario, seconds))


def real(fields: dict[str, Any], dtype: torch.dtype, attention: str) -> nn.Module:
    """A model with random weights on the CPU."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(**fields)
    return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention).eval()


def measured(model: Any, scenario: Scenario, seconds: float) -> tuple[float, float]:
    """(least, median) seconds of a pass; what it appends to the cache is cut off again between repeats."""
    ids = torch.randint(0, 8000, (scenario.batch, scenario.kv_len))
    times: list[float] = []
    with torch.inference_mode():
        until = time.perf_counter() + seconds
        while len(times) < 4 or time.perf_counter() < until:
            cache = DynamicCache(config=model.config)
            if scenario.past_len:
                model(input_ids=ids[:, : scenario.past_len], past_key_values=cache, use_cache=True, logits_to_keep=1)
            started = time.perf_counter()
            model(input_ids=ids[:, scenario.past_len :], past_key_values=cache, use_cache=True)
            times.append(time.perf_counter() - started)
    return min(times[1:]), statistics.median(times[1:])


def page(found: list[Case]) -> str:
    """The document."""
    errors = [abs(case.error) for case in found]
    lines = [
        "# Time on a CPU",
        "",
        "Written by `python -m validation.time_cpu`. " + " ".join(str(__doc__).split("\n\n")[2].split()),
        "",
        f"{len(found)} passes: median absolute error {statistics.median(errors):.0%}, nine in ten within "
        f"{sorted(errors)[int(0.9 * len(errors))]:.0%}, worst {max(errors):.0%}. "
        f"Kendall's τ of the ranking: {kendall(found):.2f}.",
        "",
        "| by | passes | median absolute error | median error |",
        "|---|---:|---:|---:|",
        *(line for field in ("scenario", "dtype", "attention") for line in by(found, field)),
        "",
        "| model | dtype | attention | pass | predicted | measured, least | spread | error |",
        "|---|---|---|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {case.model} | {case.dtype} | {case.attention} | {case.scenario} | {case.predicted_s * 1e3:.2f} ms "
        f"| {case.least_s * 1e3:.2f} ms | {case.median_s / case.least_s - 1:.0%} | {case.error:+.0%} |"
        for case in found
    ]
    return "\n".join(lines) + "\n"


def by(found: list[Case], field: str) -> list[str]:
    """Rows of the errors of the cases that have one value of a field each."""
    groups = {
        value: [c.error for c in found if getattr(c, field) == value] for value in (getattr(c, field) for c in found)
    }
    return [
        f"| {value} | {len(errors)} | {statistics.median(map(abs, errors)):.0%} | {statistics.median(errors):+.0%} |"
        for value, errors in groups.items()
    ]


def kendall(found: list[Case]) -> float:
    """Kendall's τ between predicted and measured times: concordant less discordant pairs, as a share of all."""
    pairs = [(a, b) for i, a in enumerate(found) for b in found[:i]]
    signs = [(a.predicted_s - b.predicted_s) * (a.least_s - b.least_s) for a, b in pairs]
    return sum(1 if sign > 0 else -1 for sign in signs) / len(signs)


def main() -> None:
    """Measure, print, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="for the repeats of each pass")
    parser.add_argument("--no-write", action="store_true", help="leave the page as it is")
    given = parser.parse_args()
    quiet()
    text = page(list(cases(given.seconds)))
    print(text)
    if not given.no_write:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
