"""``docs/coverage.md`` and the summary, from the results of ``benchmarks/coverage.py``. No checks here."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from typing import Any

Result = dict[str, Any]

INTRODUCTION = """\
# Coverage

Every model type of transformers' `MODEL_FOR_CAUSAL_LM_MAPPING_NAMES`, on a small config that has every kind of layer of
the type's default config, for at least two periods of its layer pattern: prefill and decode, eager and flash.
`make coverage` writes this page; it takes a few minutes.

A combination holds where

- it is priced, with no uncosted op;
- its matmul FLOPs equal torch's `FlopCounterMode` over the same config as a real float32 model on the CPU, eager
  attention, experts as batched products, which that counter sees. The counter cannot see into a fused scan: the same
  operators run under it, and their own FLOPs are taken out ("fused scan"). Where a query attends only to the keys that
  an indexer picks, the fused core computes those pairs and eager attention all of them ("sparse core");
- its KV bytes equal those of the cache that the real model holds after the same pass;
- the folded recording equals the full one in every field, op by op, and in the table of the cache.
"""


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
            for name, label in (("matmul", "matmul FLOPs"), ("cache", "KV bytes"), ("folding", "folded")):
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
        *(f"- `{result['model_type']}`: {reasons(result)}" for result in base if not holds(result)),
        "",
        "## What transformers itself does not run",
        "",
        *(f"- `{result['model_type']}`: {result['reason']}" for result in results if not result["runs"]),
        "",
    ]
    return "\n".join(lines)


def row(result: Result) -> str:
    """A line of the table."""
    count = sum(item["holds"] for item in result["passes"])
    kinds = ", ".join(result["cache_kinds"]) or "none kept"
    against = sorted({item["matmul"].replace("explained: ", "but for ") for item in result["passes"]} - {""})
    shown = [text if text.startswith(("equal", "but")) else "differs" for text in against]
    mark = "all" if holds(result) else f"{count} of 4"
    return f"| `{result['model_type']}` | {result['layers']} | {mark} | {', '.join(dict.fromkeys(shown))} | {kinds} |"
