"""Closed forms beside annotating each point, and beside torch's FlopCounterMode: how long each takes.

    python -m benchmarks.closed_form [--runs 5] [--out docs/benchmarks_closed_form.md]

All in one process and by its own processor time, each run taking its turn, so that a busy machine slows all alike;
figures are medians, and the ones to read are ratios. Building both stages of DeepSeek-V3 is held to one
``FlopCounterMode`` forward pass of a prefill of 2,048 tokens; evaluating decode to annotating each point; a sweep over
page grids of DeepSeek-OCR (vision tower, prefill and 100 decode steps, eager and flash) to annotating each of them; a
form to ``torch.export`` with dynamic shapes, which finds sizes in symbols too; and the thousandth form of a process to
its first. Exits with 1 where a limit is missed.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.export import Dim, export
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, DynamicCache

from fxmeter import annotate, closed_form, decode, generation, load_model, prefill, vision
from fxmeter.annotators.sheets.steps import over_steps
from fxmeter.models.page import page_context
from fxmeter.models.stage_cost import FIELDS
from fxmeter.tracer.load.vision import load_vision

ROOT = Path(__file__).parent.parent
LENGTH, CONTEXT, STEPS = 2048, 4096, 100
POINTS = 1_000_000
GRIDS = [(rows, columns) for rows in range(1, 11) for columns in range(1, 21)]
ATTENTIONS = ("eager", "flash")
MOST_PASSES, LEAST_POINTS, LEAST_SWEEP = 3.0, 1_000_000, 100
EXPORTED = ("llama-3.1-8b", "deepseek-v2-lite", "gpt-oss-20b")
FORMS, ENDS, MOST_GROWTH = 1000, 100, 1.3
TINY = {
    "model_type": "qwen3_moe",
    "hidden_size": 32,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}
"""Rounded expectations and maxima of many moments: what its costs are made of is no polynomial alone."""


@dataclass(frozen=True)
class Line:
    """One measured figure, and what it has to be."""

    what: str
    figure: str
    limit: str
    holds: bool


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one run."""
    started = time.process_time()
    work()
    return time.process_time() - started


def by_flop_counter(model: nn.Module) -> None:
    """One forward pass of the prompt under torch's counter."""
    ids = torch.zeros(1, LENGTH, dtype=torch.long, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False):
        model(input_ids=ids, past_key_values=DynamicCache(config=model.config), use_cache=True)


def build_both(model: nn.Module) -> None:
    """The closed forms of prefill and decode, up to their first figures."""
    closed_form(model, stage="prefill").at(batch=8, query_len=LENGTH)
    closed_form(model, stage="decode").at(batch=8, past_len=CONTEXT)


def building(model: nn.Module, runs: int) -> Line:
    """Both stages of a model against passes of FlopCounterMode."""
    build_both(model), by_flop_counter(model)  # warm
    ratios = [seconds(lambda: build_both(model)) / seconds(lambda: by_flop_counter(model)) for _ in range(runs)]
    ratio = statistics.median(ratios)
    return Line(
        "DeepSeek-V3: building the closed forms of prefill and decode, in FlopCounterMode passes",
        f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        f"at most {MOST_PASSES:g}",
        ratio <= MOST_PASSES,
    )


def evaluating(model: nn.Module, runs: int) -> list[Line]:
    """Points per second of all totals of decode, on a scattered million points, and against annotating each."""
    form = closed_form(model, stage="decode")
    generator = np.random.default_rng(0)
    batches, pasts = generator.integers(1, 512, POINTS), generator.integers(1, 200_000, POINTS)

    def evaluate() -> None:
        form.evaluate(batch=batches, past_len=pasts)

    evaluate()
    each = statistics.median(seconds(evaluate) for _ in range(runs)) / POINTS
    chosen = [(int(batches[i]), int(pasts[i])) for i in range(runs)]
    annotated = statistics.median(seconds(lambda p=p: annotate(model, decode(p[1], batch=p[0]))) for p in chosen)
    for batch, past_len in chosen:
        assert form.at(batch=batch, past_len=past_len) == annotate(model, decode(past_len, batch=batch)).cost
    return [
        Line(
            "DeepSeek-V3 decode: points per second on one core, all totals, scattered points",
            f"{1 / each:,.0f}",
            f"at least {LEAST_POINTS:,}",
            1 / each >= LEAST_POINTS,
        ),
        Line("the same: times faster than annotating each point", f"{annotated / each:,.0f}", "", True),
    ]


def sweep(tower: nn.Module, decoder: nn.Module) -> list[object]:
    """Every grid, both attentions, three stages, by closed forms built for the purpose."""
    rows, columns = np.array(GRIDS).T
    contexts = np.array([page_context(grid) for grid in GRIDS])
    found: list[object] = []
    for attention in ATTENTIONS:
        seen = closed_form(tower, stage="vision", attention=attention)
        read = closed_form(decoder, stage="prefill", attention=attention)
        written = closed_form(decoder, stage="decode", attention=attention)
        found += [
            seen.evaluate(crops=(rows, columns), fields=FIELDS),
            read.evaluate(query_len=contexts, fields=FIELDS),
            written.evaluate_generation(past_len=contexts, steps=STEPS, fields=FIELDS),
        ]
    return found


def sweeping(runs: int) -> Line:
    """A sweep over page grids against annotating each grid in turn: vision, prefill and every one of the steps."""
    tower, decoder = load_vision("deepseek-ocr"), load_model("deepseek-ocr")
    generator = np.random.default_rng(1)
    ratios, took = [], []
    for _ in range(runs):
        grid = GRIDS[int(generator.integers(len(GRIDS)))]
        context = page_context(grid)

        def one_point(grid=grid, context=context) -> None:
            for attention in ATTENTIONS:
                annotate(tower, vision(crops=grid), attention=attention)
                annotate(decoder, prefill(context), attention=attention)
                passes = [annotate(decoder, decode(context + j), attention=attention).cost for j in range(STEPS)]
                over_steps(passes)

        took.append(seconds(lambda: sweep(tower, decoder)))
        ratios.append(len(GRIDS) * seconds(one_point) / took[-1])
    ratio = statistics.median(ratios)
    return Line(
        f"DeepSeek-OCR, {len(GRIDS)} page grids × eager and flash × vision, prefill, {STEPS} decode steps, forms built"
        f" for it ({statistics.median(took):.1f} s): times faster than annotating each pass",
        f"{ratio:,.0f}",
        f"at least {LEAST_SWEEP}",
        ratio >= LEAST_SWEEP,
    )


def generating(runs: int) -> list[Line]:
    """A generation by its closed form against one step after another."""
    model = load_model("deepseek-ocr")
    lines = []
    for steps in (12, STEPS):
        ratios = []
        for _ in range(runs):
            stepping = seconds(lambda s=steps: over_steps([annotate(model, decode(493 + j)).cost for j in range(s)]))
            ratios.append(stepping / seconds(lambda s=steps: annotate(model, generation(493, steps=s))))
        ratio = statistics.median(ratios)
        what = f"DeepSeek-OCR, generation(493, steps={steps}), modules and ops included: times faster than stepping"
        lines.append(Line(what, f"{ratio:.1f}", "more than 1", ratio > 1))
    return lines


class Prompt(nn.Module):
    """A prefill as ``torch.export`` takes it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits of token ids [B, S]."""
        cache = DynamicCache(config=self.model.config)
        return self.model(input_ids=ids, past_key_values=cache, use_cache=True).logits


def exporting(name: str) -> Line:
    """A form of the prefill, up to its first figures, against exporting it with batch and length in symbols."""
    model = load_model(name)
    model.set_attn_implementation("eager")
    ids = torch.zeros(2, 8, dtype=torch.long, device="meta")
    form = closed_form(model, stage="prefill", attention="eager")
    took = seconds(lambda: form.at(batch=8, query_len=LENGTH))
    started = time.process_time()
    program = export(Prompt(model), (ids,), dynamic_shapes=({0: Dim.DYNAMIC, 1: Dim.DYNAMIC},), strict=False)
    ratio = (time.process_time() - started) / took
    batches, lengths = (
        f"{r.lower} to {str(r.upper).replace('int_oo', '∞')}" for r in program.range_constraints.values()
    )
    return Line(
        f"{name} prefill, eager: a form at its first point ({form.sheet.recordings} recordings); times longer that"
        " `torch.export` takes with batch and length dynamic, and the sizes that its result is for",
        f"{ratio:.0f}; batch {batches}, length {lengths}",
        "more than 1",
        ratio > 1,
    )


def remembering() -> Line:
    """Many forms of models that all differ, one after another in one process."""
    took = []
    for vocabulary in range(FORMS):
        model = load_model(AutoConfig.for_model(**TINY, vocab_size=40 + vocabulary))
        took.append(seconds(lambda m=model: closed_form(m, attention="eager").at(batch=2, past_len=40)))
    growth = statistics.median(took[-ENDS:]) / statistics.median(took[:ENDS])
    return Line(
        f"{FORMS:,} forms of small models in one process: the last {ENDS} in times of the first {ENDS}",
        f"{growth:.2f}",
        f"at most {MOST_GROWTH:g}",
        growth <= MOST_GROWTH,
    )


def page(lines: list[Line], runs: int) -> str:
    """The document."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "numpy"))
    table = "\n".join(f"| {line.what} | {line.figure} | {line.limit or '–'} |" for line in lines)
    return (
        "# Closed forms: how fast\n\n"
        f"Measured on {date.today():%d %B %Y} with {versions}, Python {platform.python_version()}, one thread, by"
        f" `python -m benchmarks.closed_form --runs {runs}`. Medians of runs taken in turn, by the process's own"
        " time; ratios say more than seconds on a machine that others use too.\n\n"
        "| | measured | wanted |\n|---|---|---|\n"
        f"{table}\n\n"
        "What closed forms are, and what they rest on: [closed_forms.md](closed_forms.md).\n"
    )


def main() -> int:
    """Measure, write the page, and say whether every limit holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks_closed_form.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model("deepseek-v3")
    lines = [
        building(model, arguments.runs),
        *evaluating(model, arguments.runs),
        *generating(arguments.runs),
        sweeping(arguments.runs),
        *map(exporting, EXPORTED),
        remembering(),
    ]
    arguments.out.write_text(page(lines, arguments.runs), encoding="utf-8")
    for line in lines:
        print(f"{'ok  ' if line.holds else 'MISS'} {line.what}: {line.figure} {line.limit and f'({line.limit})'}")
    return 0 if all(line.holds for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
