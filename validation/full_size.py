"""Every causal-LM type at the size of its default config: writes the second table of ``docs/coverage.md``.

python -m validation.full_size [TYPE ...] [--limit SECONDS] [--no-write]

Each type is loaded and priced, prefill and decode, eager and flash, in a process of its own that may use so many
seconds of CPU: what does not end is a row that says so. One at a time, so that types do not slow one another.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import re
import resource
import signal
import sys
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig

from fxmeter import annotate, decode, load_model, prefill
from fxmeter.tracer.run.prompt import max_positions
from validation.coverage import FULL_SIZE, PAGE, every_type
from validation.coverage_page import CANNOT_RUN
from validation.coverage_type import ATTENTIONS, one_line
from validation.small_configs import LANGUAGE, default_config

LENGTH = 2048
"""Tokens of the prompt, and behind the decode step, where the model has positions for them."""
PROMISED = 10
"""CPU seconds that a type may take, loading included."""
FIELDS: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [9, 18, 27]},
    "cohere_compass_text": {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [24, 20, 20]}
        }
    },
    "deepseek_v2": {"num_experts_per_tok": 6, "topk_method": "greedy", "n_group": None, "topk_group": None},
    "dots1": {"n_shared_experts": 2, "n_routed_experts": 128, "num_experts_per_tok": 6},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 16},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16},
    "ministral": {"head_dim": 128},
    "mpt": {"max_seq_len": 2 * 2048},
    "musicgen": {"num_codebooks": 1},
    "musicgen_decoder": {"num_codebooks": 1},
    "musicgen_melody": {"num_codebooks": 1},
    "musicgen_melody_decoder": {"num_codebooks": 1},
    "nemotron": {"num_key_value_heads": 48},
    "qwen4_exp_text": {
        "indexer_n_heads": 16,
        "indexer_head_dim": 256,
        "indexer_kv_heads": 1,
        "indexer_budget": 2048,
        "indexer_compress_ratio": 4,
    },
    "xmod": LANGUAGE,
}
"""Type → fields without which its default config does not run, at the size of the published models."""
DTYPES = {"xlnet": "float32"}
"""Types whose code runs in one dtype alone."""


@dataclass(frozen=True, slots=True)
class Row:
    """One type. CPU seconds of loading and of the passes; ``reason`` says what went wrong, "" where nothing did."""

    model_type: str
    parameters: int = 0
    ops: int = 0
    loading_s: float = 0.0
    passes_s: float = 0.0
    reason: str = ""

    @property
    def seconds(self) -> float:
        """CPU seconds in all."""
        return self.loading_s + self.passes_s

    @property
    def holds(self) -> bool:
        """Whether it was priced in the time promised."""
        return not self.reason and self.seconds <= PROMISED


def main() -> None:
    """Run, write the section, print what does not hold; exit 1 where something does not."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("types", nargs="*")
    parser.add_argument("--limit", type=int, default=60, help="CPU seconds before a type is given up")
    parser.add_argument("--no-write", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    before, _, _ = PAGE.read_text(encoding="utf-8").partition(FULL_SIZE)
    without = cannot_run(before)
    rows = []
    for name in given.types or [name for name in every_type() if name not in without]:
        rows.append(in_process(name, given.limit))
        print(f"{name:32} {rows[-1].seconds:6.1f} s  {rows[-1].reason}", file=sys.stderr, flush=True)
    if not given.no_write and not given.types:
        PAGE.write_text(before + section(rows), encoding="utf-8")
    late = [row.model_type for row in rows if not row.holds]
    print(f"{len(rows) - len(late)} of {len(rows)} types priced at full size in {PROMISED} s of CPU each")
    if late:
        sys.exit(f"not: {', '.join(late)}")


def cannot_run(page: str) -> set[str]:
    """The types that transformers itself does not run, by the first table's page."""
    return set(re.findall(r"^- `(\S+)`: ", page.partition(CANNOT_RUN)[2], flags=re.MULTILINE))


def in_process(model_type: str, limit: int) -> Row:
    """Check a type in a fork of this process, whose imports it has."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=_serve, args=(theirs, model_type, limit), daemon=True)
    process.start()
    theirs.close()
    try:
        row: Row = ours.recv() if ours.poll(10 * limit) else Row(model_type, reason="does not end")
    except EOFError:
        process.join()
        late = process.exitcode == -signal.SIGXCPU
        row = Row(model_type, passes_s=limit, reason=f"more than {limit} s" if late else "the process died")
    process.kill()
    process.join()
    return row


def _serve(pipe: Connection, model_type: str, limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    try:
        pipe.send(full_size(model_type))
    except Exception as error:
        pipe.send(Row(model_type, passes_s=_cpu_s(), reason=one_line(error)))


def full_size(model_type: str) -> Row:
    """Load a type at its default size, and price its four passes."""
    model = load_model(full_config(model_type), dtype=DTYPES.get(model_type))
    loading_s = _cpu_s()
    limit = max_positions(model)
    length = LENGTH if limit is None else min(LENGTH, limit.positions // 2)
    ops = 0
    for attention in ATTENTIONS:
        for scenario in (prefill(length), decode(length)):
            stage = annotate(model, scenario, attention=attention)
            ops += len(stage.graph)
            if stage.uncosted:
                names = ", ".join(sorted({item.op for item in stage.uncosted}))
                return Row(model_type, reason=f"no rule for {names}")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Row(model_type, parameters, ops, loading_s, _cpu_s() - loading_s)


def full_config(model_type: str) -> PreTrainedConfig:
    """The default config as a decoder. Raises whatever transformers does about it."""
    default = default_config(model_type)
    given = dict(FIELDS.get(default.model_type, {}))
    if getattr(default, "is_decoder", None) is False:
        given["is_decoder"] = True
    if getattr(default, "is_encoder_decoder", False):
        given["is_encoder_decoder"] = False  # the decoder alone, as AutoModelForCausalLM builds it
    return type(default)(**given)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def section(rows: list[Row]) -> str:
    """The section of ``docs/coverage.md``, Markdown."""
    good = [row for row in rows if row.holds]
    return "\n".join(
        [
            FULL_SIZE,
            "",
            "The same types at the size of their default config, written by `python -m validation.full_size`: prefill "
            f"of {LENGTH:,} tokens (half of a model's positions where it has fewer) and a decode step behind as many, "
            f"eager and flash. Each runs in a process of its own with a limit, at most {PROMISED} s of CPU for loading "
            f"and all four; **{len(good)} of {len(rows)} are done by then.** The others say why not.",
            "",
            "| type | parameters | ops recorded | loading, s | four passes, s | |",
            "|---|---:|---:|---:|---:|---|",
            *(
                f"| `{row.model_type}` | {row.parameters / 1e6:,.0f} M | {row.ops:,} | {row.loading_s:.1f} "
                f"| {row.passes_s:.1f} | {row.reason or ('' if row.holds else 'late')} |"
                for row in rows
            ),
            "",
        ]
    )


if __name__ == "__main__":
    main()
