"""Real passes on the CPU of five small models, and what their traces say, read without fxmeter."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from functools import cache
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DynamicCache

from fxmeter.annotators.studies.measured.run import MeasuredRun, measured
from tests.tracer import tiny

BATCH, PROMPT = 2, 48
WIDER = {"hidden_size": 512, "intermediate_size": 1536, "head_dim": 64, "vocab_size": 512}
"""Wide enough that ops take longer than PyTorch takes to find their kernels, and than Gemma 3's making of masks for its
windows, which is not recorded, takes beside them."""
MODELS = {
    "llama": tiny.LLAMA,
    "qwen3_moe": {**tiny.QWEN_MOE, "moe_intermediate_size": 64},
    "gemma3": tiny.GEMMA3,
    "deepseek_v3": {**tiny.DEEPSEEK, "moe_intermediate_size": 64, "head_dim": None},
    "gpt_oss": tiny.GPT_OSS,
}
CASES = [
    (name, attention, stage)
    for name in MODELS
    for attention in ("eager", "sdpa")
    for stage in ("prefill", "decode")
    if (name, attention) != ("gpt_oss", "sdpa")  # transformers refuses it: its core has no sinks
]


@cache
def model_of(name: str, attention: str) -> torch.nn.Module:
    """A small model with random weights."""
    fields = {key: value for key, value in {**MODELS[name], **WIDER, **_own(name)}.items() if value is not None}
    torch.manual_seed(0)
    config = tiny.config(fields)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention).eval()


def _own(name: str) -> dict[str, Any]:
    return {"head_dim": None} if name == "deepseek_v3" else {}


def arguments_of(model: torch.nn.Module, stage: str) -> dict[str, Any]:
    """Of a call, with a cache of its own; before a decode step the prompt has run."""
    cache = DynamicCache(config=model.config)
    tokens = torch.randint(5, 100, (BATCH, PROMPT))
    if stage == "decode":
        model(input_ids=tokens, past_key_values=cache, use_cache=True)
        tokens = tokens[:, :1]
    return {"input_ids": tokens, "past_key_values": cache, "use_cache": True}


@torch.no_grad()
def real_run(name: str, attention: str, stage: str, *, passes: int = 1) -> MeasuredRun:
    """A model measured, once it is warm."""
    model = model_of(name, attention)
    model(**arguments_of(model, stage))
    calls = [arguments_of(model, stage) for _ in range(passes)]
    with measured(model) as run:
        for call in calls:
            model(**call)
    return run


def events_in(text: str) -> list[dict[str, Any]]:
    """The events of a trace, times in ns."""
    events = [e for e in json.loads(text, parse_float=Decimal)["traceEvents"] if "dur" in e]
    for event in events:
        event["ts"], event["dur"] = int(event["ts"] * 1000), int(event["dur"] * 1000)
    return events


def op_time_by_range(events: Iterable[dict[str, Any]]) -> dict[str, int]:
    """ns of the outermost ops by the innermost range around each that begins with "fxmeter: "."""
    found: dict[str, int] = {}
    for event, around in _nested(events):
        if event["cat"] == "cpu_op" and not any(outer["cat"] == "cpu_op" for outer in around):
            ranges = [o["name"] for o in around if o["name"].startswith("fxmeter: ")]
            path = ranges[-1].split(" ")[1] if ranges else None
            found[path] = found.get(path, 0) + event["dur"]
    return found


def _nested(events: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each op with what is around it, the outermost first."""
    around: list[dict[str, Any]] = []
    kept = [e for e in events if e.get("cat") in ("cpu_op", "user_annotation")]
    for event in sorted(kept, key=lambda e: (e["tid"], e["ts"], -e["dur"], e["cat"] == "cpu_op")):
        around = [o for o in around if o["tid"] == event["tid"] and event["ts"] < o["ts"] + o["dur"]]
        yield event, around
        around.append(event)
