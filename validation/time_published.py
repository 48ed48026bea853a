"""Published timings beside fxmeter's: signed errors by phase, dtype, batch and framework, into docs/validation_time.md.

python -m validation.time_published
"""

from __future__ import annotations

import functools
import json
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
POINTS = Path(__file__).with_name("published_timings.json")
PAGE = ROOT / "docs" / "validation_time.md"
CLASSES = ("decode-single", "decode-batch", "prefill")
PRESETS = {
    "Llama-2-7B": "llama-2-7b",
    "Llama-3-8B": "llama-3-8b",
    "Llama-3-70B": "llama-3-70b",
    "Qwen2.5-7B": "qwen2.5-7b",
    "Mixtral-8x7B": "mixtral-8x7b",
}
DEVICES = {
    "A100-80G-SXM": "a100-sxm4-80g",
    "H100-SXM": "h100-sxm5-80g",
    "H100-PCIe": "h100-pcie-80g",
    "H200": "h200-sxm-141g",
    "B200": "b200-sxm-180g",
    "GB200": "gb200-per-gpu",
    "L40S": "l40s-48g",
    "RTX3090": "rtx3090-24g",
    "RTX4090": "rtx4090-24g",
    "GB10": "dgx-spark-gb10",
}
WEIGHTS = {
    "fp16": "float16",
    "bf16": "bfloat16",
    "int8wo": "int8-weight-only",
    "int4-tinygemm": "torchao-int4",
    "int4-fused": "int4-g128",
    "fp8": "fp8-channel",
}
"""Names of storage formats; weight-only ones compute in 16 bits."""

Point = Mapping[str, Any]


def points() -> list[Point]:
    """The published points of whole passes."""
    return [point for point in json.loads(POINTS.read_text(encoding="utf-8")) if point["cls"] in CLASSES]


def obstacle(point: Point) -> str | None:
    """Why a point cannot be expressed; None where it can."""
    if "t_ms" not in point:
        return "no time of one pass is given"
    if point["model"] not in PRESETS:
        return f"no preset of {point['model']}"
    if point["device"] not in DEVICES:
        return f"no device file of {point['device']}, or not known which of several"
    if point["dtype"] not in WEIGHTS:
        return f"no weight format {point['dtype']}"
    if (point.get("tp") or 1) > 1:
        return "tensor parallelism is not recorded"
    return None


@functools.cache
def _form(preset: str, weights: str, kv: str | None, stage: str) -> Any:
    from fxmeter import closed_form, deploy, load_model

    model = load_model(preset, dtype="float16" if weights == "float16" else "bfloat16")
    return closed_form(model, stage=stage, causal="exact", logits="last", deployment=deploy(weights=weights, kv=kv))  # type: ignore[arg-type]


def predicted_ms(point: Point) -> float:
    """The estimate for a point, in milliseconds."""
    stage = "prefill" if point["cls"] == "prefill" else "decode"
    kv = "fp8" if point.get("kv_bytes") == 1 else None
    form = _form(PRESETS[point["model"]], WEIGHTS[point["dtype"]], kv, stage)
    sizes = {"query_len": point["isl"]} if stage == "prefill" else {"past_len": round(point["ctx"])}
    return float(form.time(DEVICES[point["device"]], batch=point["batch"], **sizes).estimate_s) * 1000


def _length(point: Point) -> str:
    return "512 tokens and more" if point["isl"] >= 512 else "below 512 tokens"


GROUPS: Mapping[str, Callable[[Point], str]] = {
    "phase": lambda point: f"prefill, {_length(point)}" if point["cls"] == "prefill" else "decode",
    "dtype": lambda point: str(point["dtype"]),
    "batch": lambda point: "1" if point["batch"] == 1 else "above 1",
    "framework": lambda point: str(point["framework"]),
}


def page(found: Iterable[tuple[Point, float]], left_out: Iterable[str]) -> str:
    """The page: errors in groups, then point by point, then what is left out."""
    rows = [(point, value, value / point["t_ms"] - 1) for point, value in found]
    lines = [
        "# Published timings",
        "",
        "Signed errors of `estimate_s`: predicted / measured − 1. Nothing is fitted to these points here.",
        "",
    ]
    for title, key in GROUPS.items():
        lines += [f"| {title} | points | median | median of sizes | nine in ten within |", "|---|---:|---:|---:|---:|"]
        for name in dict.fromkeys(key(point) for point, _, _ in rows):
            errors = [error for point, _, error in rows if key(point) == name]
            sizes = sorted(map(abs, errors))
            ninth = sizes[min(len(sizes) - 1, -(-9 * len(sizes) // 10) - 1)]
            middle = statistics.median(errors)
            lines.append(f"| {name} | {len(errors)} | {middle:+.1%} | {statistics.median(sizes):.1%} | {ninth:.1%} |")
        lines.append("")
    lines += ["| model | device | dtype | phase | batch | tokens | measured ms | predicted ms | error | framework |"]
    lines += ["|---|---|---|---|---:|---:|---:|---:|---:|---|"]
    for point, value, error in rows:
        tokens = point["isl"] if point["cls"] == "prefill" else point["ctx"]
        names = (
            f"| {point['model']} | {point['device']} | {point['dtype']} | {point['cls']} | {point['batch']} | {tokens} "
        )
        lines.append(f"{names}| {point['t_ms']:.4g} | {value:.4g} | {error:+.1%} | {point['framework']} |")
    lines += ["", "Not expressed:", ""]
    lines += [f"- {count} × {reason}" for reason, count in Counter(left_out).most_common()]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Predict every point that can be expressed, and write the page."""
    every = [(point, obstacle(point)) for point in points()]
    found = [(point, predicted_ms(point)) for point, reason in every if reason is None]
    PAGE.write_text(page(found, [reason for _, reason in every if reason is not None]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
