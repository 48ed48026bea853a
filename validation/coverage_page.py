"""``docs/coverage.md`` and the summary, from the results of ``validation/coverage.py``. No checks here."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from typing import Any

Result = dict[str, Any]

INTRODUCTION = """\
# Coverage

Every model type of transformers' `MODEL_FOR_CAUSAL_LM_MAPPING_NAMES`, on a small config that has every kind of layer of
the type's default config, for at least two periods of its layer pattern: prefill and decode, eager and flash.
`make coverage` writes this page. The reference is the same config as a real float32 model on the CPU.

A combination holds where

- it is priced, with no uncosted op;
- its matmul FLOPs equal torch's `FlopCounterMode` over the real model, eager attention, experts as batched products,
  which that counter sees. What it cannot see is named, and computed:
  - *fused scan*, *fused indexer*: the real model runs with the same operators in the place of its Python loops, and
    their own FLOPs are taken out. That these are the loops' own is tested apart
    (`tests/tracer/operators/test_scans.py`);
  - *sparse core*: where a query attends only to the keys that an indexer picks, the fused core computes those pairs and
    eager attention all of them;
  - *balanced routing*: where some experts compute nothing, FLOPs depend on which a token picks. fxmeter takes every
    top-k to pick each position equally often; the real model, its top-k made to pick those, has the same FLOPs;
- its KV bytes equal those of the tensors that the real pass leaves alive, asked of Python's garbage collector: all but
  weights, inputs and outputs, whoever holds them;
- the folded recording equals the full one in every field of the pass, of every op and of every module, peaks included,
  and in the table of the cache. (A peak is a level: that of a module which stands for others is the highest of theirs.)
- its graph has one size, at two prompts far above every window and chunk (160 and 240 tokens): nothing loops over time.
"""

CANNOT_RUN = "## What transformers itself does not run"
BEYOND = """\
## What transformers keeps beside what is priced

Entries of the cache are priced as they are seen. A real pass keeps a little more alive; a serving cache need not.
"""


_CHECKS = (("matmul", "matmul FLOPs"), ("cache", "KV bytes"), ("folding", "folded"), ("growth", "the graph grows:"))


def running(results: list[Result]) -> list[Result]:
    """The denominator: what transformers itself builds and runs forward, prefill and decode, on the CPU."""
    return [result for result in results if result["runs"]]


def holds(result: Result) -> bool:
    """Whether all four combinations of a type hold."""
    return len(result["passes"]) == 4 and all(item["holds"] for item in result["passes"])


def summary(results: list[Result]) -> str:
    """The denominator, what holds, and what does not and why."""
    base = running(results)
    good = [result for result in base if holds(result)]
    lines = [
        f"{len(results)} types; transformers builds and runs {len(base)} of them on a small CPU config",
        f"{len(good)} of {len(base)} hold in all four combinations ({len(good) / max(1, len(base)):.1%})",
    ]
    lines += [f"  {result['model_type']}: {reasons(result)}" for result in base if not holds(result)]
    lines += [f"  transformers cannot run {r['model_type']}: {r['reason']}" for r in results if not r["runs"]]
    return "\n".join(lines)


def reasons(result: Result) -> str:
    """Why a type does not hold: each reason with the number of combinations that it touches."""
    if result["reason"]:
        return str(result["reason"])
    found: Counter[str] = Counter()
    for item in result["passes"]:
        if item["reason"]:
            found[item["reason"]] += 1
        elif not item["holds"]:
            parts = [f"no rule for {', '.join(item['uncosted'])}"] if item["uncosted"] else []
            for name, label in _CHECKS:
                if not item[name].startswith(("equal", "explained")):
                    parts.append(f"{label} {item[name]}")
            found[f"{item['stage']}: {'; '.join(parts)}"] += 1
    return " | ".join(f"{reason} ({count} of 4)" if count < 4 else reason for reason, count in found.items())


def page(results: list[Result]) -> str:
    """The whole page, Markdown."""
    base = running(results)
    good = [result for result in base if holds(result)]
    lines = [
        INTRODUCTION,
        f"transformers {version('transformers')}, torch {version('torch')}: of {len(results)} types, transformers "
        f"itself builds and runs {len(base)}; **{len(good)} of those {len(base)} "
        f"({len(good) / max(1, len(base)):.1%}) hold in all four combinations.**",
        "",
        "| type | layers | holds | matmul FLOPs | cache |",
        "|---|---|---|---|---|",
        *(row(result) for result in base),
        "",
        "## What does not hold",
        "",
        *([f"- `{result['model_type']}`: {reasons(result)}" for result in base if not holds(result)] or ["Nothing."]),
        "",
        BEYOND,
        *beyond(base),
        "",
        CANNOT_RUN,
        "",
        *(f"- `{result['model_type']}`: {result['reason']}" for result in results if not result["runs"]),
        "",
    ]
    return "\n".join(lines)


def beyond(results: list[Result]) -> list[str]:
    """What transformers keeps, each with the types where it does."""
    types: dict[str, list[str]] = {}
    for result in results:
        for name in sorted({name for item in result["passes"] for name in item["beyond"]}):
            types.setdefault(name, []).append(f"`{result['model_type']}`")
    return [f"- {name}: {', '.join(found)}" for name, found in types.items()]


def row(result: Result) -> str:
    """A line of the table."""
    count = sum(item["holds"] for item in result["passes"])
    kinds = ", ".join(result["cache_kinds"]) or "none kept"
    against = sorted({item["matmul"].replace("explained: ", "but for ") for item in result["passes"]} - {""})
    shown = [text if text.startswith(("equal", "but")) else "differs" for text in against]
    mark = "all" if holds(result) else f"{count} of 4"
    return f"| `{result['model_type']}` | {result['layers']} | {mark} | {', '.join(dict.fromkeys(shown))} | {kinds} |"
