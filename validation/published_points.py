"""Published timings, each as what fxmeter can predict: a pass, a product, or what a busy server makes.

A point is a dictionary of ``published_timings.json``. Each of three readers says what a point is, or why it cannot be
expressed (an :class:`UnexpressedError`), and gives the prediction and the measurement in the same unit.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

POINTS = Path(__file__).with_name("published_timings.json")
PASSES = ("decode-single", "decode-batch", "prefill", "prefill-saturated")
MODELS = {
    "Llama-2-7B": "llama-2-7b",
    "Llama-2-13B": "llama-2-13b",
    "Llama-2-70B": "llama-2-70b",
    "Llama-3-8B": "llama-3-8b",
    "Llama-3-70B": "llama-3-70b",
    "Llama-3.1-8B": "llama-3.1-8b",
    "Llama-3.1-405B": "llama-3.1-405b",
    "Llama-3.3-70B": "llama-3.3-70b",
    "Qwen2.5-7B": "qwen2.5-7b",
    "Qwen3-8B": "qwen3-8b",
    "Qwen3-8B-FP8": "qwen3-8b",
    "Qwen3-32B": "qwen3-32b",
    "Qwen3-Coder-30B-A3B Q8_0": "qwen3-30b-a3b",
    "Mixtral-8x7B": "mixtral-8x7b",
    "gpt-oss-120B MXFP4": "gpt-oss-120b",
}
DEVICES = {
    "A100": "a100-sxm4-80g",
    "A100-80G-SXM": "a100-sxm4-80g",
    "H100": "h100-sxm5-80g",
    "H100-SXM": "h100-sxm5-80g",
    "H100-PCIe": "h100-pcie-80g",
    "H200": "h200-sxm-141g",
    "H800": "h800-sxm-80g",
    "H20": "h20-96g",
    "B200": "b200-sxm-180g",
    "GB200": "gb200-per-gpu",
    "L40S": "l40s-48g",
    "RTX3090": "rtx3090-24g",
    "RTX4090": "rtx4090-24g",
    "GB10": "dgx-spark-gb10",
    "A40": "a40-48g",
    "RTXA6000": "rtx-a6000-48g",
    "RTX6000Ada": "rtx-6000-ada-48g",
    "RTX3090Ti": "rtx3090ti-24g",
    "MI210": "mi210-64g",
    "M1Max": "apple-m1-max",
    "M2Ultra": "apple-m2-ultra-76c",
    "M3Max40": "apple-m3-max-40c",
}
WEIGHTS: Mapping[str, str] = {
    "fp16": "float16",
    "bf16": "bfloat16",
    "int8wo": "int8-weight-only",
    "int4-tinygemm": "torchao-int4",
    "int4-fused": "int4-g128",
    "fp8": "fp8-channel",
    "nvfp4": "nvfp4",
    "fp4": "nvfp4",
    "q4_0": "gguf-q4_0",
    "q4_K_M": "gguf-q4_k_m",
    "q8_0": "gguf-q8_0",
    "Q8_0": "gguf-q8_0",
    "MXFP4": "gguf-mxfp4_moe",
}
"""Names of storage formats; weight-only ones compute in 16 bits."""
WIDTHS = {"fp8": 1, "fp16": 2, "bf16": 2}
KV_OF_FP8 = ("TRT-LLM",)
"""Frameworks whose fp8 and fp4 deployments keep the cache in fp8, where a point does not say."""
MEMORY_SHARE = 0.9
"""Of the device's memory that a server uses, where the batch is as much as fits (vLLM, TensorRT-LLM: 0.9)."""

Point = Mapping[str, Any]


class UnexpressedError(Exception):
    """A point that cannot be expressed, and why."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was measured and predicted, in milliseconds; of servers, milliseconds a new token. ``launch_ms`` of the
    prediction is outside of the roofs."""

    point: Point
    measured_ms: float
    predicted_ms: float
    launch_ms: float = 0.0

    @property
    def error(self) -> float:
        """Signed, relative to the measurement."""
        return self.predicted_ms / self.measured_ms - 1


def points() -> list[Point]:
    """Every published point."""
    return list(json.loads(POINTS.read_text(encoding="utf-8")))


def predict(point: Point) -> Prediction:
    """The prediction for a point. Raises UnexpressedError."""
    if point["cls"] in PASSES:
        return _pass(point)
    return _kernels(point) if point["cls"] == "kernel" else _server(point)


def _known(what: str, table: Mapping[str, Any], name: str) -> Any:
    if name not in table:
        raise UnexpressedError(f"no {what} {name}")
    return table[name]


@functools.cache
def _forms(preset: str, weights: str | None, kv: str | None, tp: int) -> dict[str, Any]:
    from fxmeter import closed_form, deploy, load_model
    from fxmeter.annotators.studies.chunks import PromptForms
    from fxmeter.models.errors import DeploymentError

    try:
        deployment = deploy(weights=weights, kv=kv, tp=tp)
    except DeploymentError as error:
        raise UnexpressedError(str(error)) from None
    model = load_model(preset, dtype="float16" if weights == "float16" else "bfloat16")
    options: Any = {"causal": "exact", "logits": "last", "deployment": deployment}
    forms: dict[str, Any] = {stage: closed_form(model, stage=stage, **options) for stage in ("prefill", "decode")}  # type: ignore[arg-type]
    unread = functools.cache(lambda: closed_form(model, stage="prefill", **{**options, "logits": "none"}))
    return {**forms, "prompts": PromptForms(forms["prefill"], unread)}


def forms_of(point: Point) -> tuple[dict[str, Any], Any]:
    """(closed forms by stage, device) of a point."""
    from fxmeter.models.devices import device

    preset = _known("preset of", MODELS, point["model"])
    name = _known("device file of (or not known which)", DEVICES, point["device"])
    weights = _known("weight format", WEIGHTS, point["dtype"])
    engine = point["framework"].startswith(KV_OF_FP8) and point["dtype"] in ("fp8", "fp4", "nvfp4")
    kv = "fp8" if point.get("kv_bytes", 1 if engine and point["cls"] == "saturation" else 2) == 1 else None
    return _forms(preset, weights, kv, point.get("tp") or 1), device(name)


def _pass(point: Point) -> Prediction:
    """One prefill or decode step."""
    if "t_ms" not in point and point.get("unit") != "tok/s":
        raise UnexpressedError("no time of one pass is given")
    measured = point.get("t_ms") or 1000 / point["value"]
    forms, device = forms_of(point)
    if "isl" in point:
        time = forms["prefill"].time(device, batch=point["batch"], query_len=point["isl"])
    else:
        time = forms["decode"].time(device, batch=point["batch"], past_len=round(point.get("ctx", 64)))
    return Prediction(point, measured, float(time.estimate_s) * 1000, float(time.launch_s) * 1000)


def _kernels(point: Point) -> Prediction:
    """Products alone: one [M, K] @ [K, N], or those of a Llama layer."""
    from fxmeter.models.devices import device

    one = re.fullmatch(r"(?:FP8|fp16) GEMM (\d+)x(\d+)x(\d+)", point["model"])
    layer = re.fullmatch(r"Llama-2-7B one layer, (\d+) tokens: qkv/o/gate_up/down", point["model"])
    if one is None and layer is None:
        raise UnexpressedError(f"no pass and no single product: {point['framework']}")
    where = device(_known("device file of (or not known which)", DEVICES, point["device"]))
    if one is not None:
        m, n, k = map(int, one.groups())
        shapes = [(m, n, k)]
        rate = point["tflops"] if "tflops" in point else point["value"]
        measured = 2 * m * n * k / (rate * 1e12) * 1000
    else:
        tokens = int(layer[1])  # type: ignore[index]
        shapes = [(tokens, 3 * 4096, 4096), (tokens, 4096, 4096), (tokens, 2 * 11008, 4096), (tokens, 4096, 11008)]
        measured = point["value"] / 1000
    times = [_product(*shape, point["dtype"], where) for shape in shapes]
    return Prediction(point, measured, *(sum(part) * 1000 for part in zip(*times, strict=True)))


def _product(m: int, n: int, k: int, dtype: str, device: Any) -> tuple[float, float]:
    """(estimate, launch) of [M, K] @ [K, N] in seconds; its result has 16 bits."""
    from fxmeter.annotators.timing.kernels import Kernel
    from fxmeter.annotators.timing.roofline import kernel_time

    nbytes = WIDTHS[dtype] * (m * k + k * n) + 2 * m * n
    kernel = Kernel("mm", "aten.mm", "", 1, "product", dtype, 2 * m * n * k, 0, nbytes)
    time = kernel_time(kernel, device)
    return float(time.estimate_s), float(time.launch_s)


def _server(point: Point) -> Prediction:
    """New tokens of a busy server, at its batch, or at as many sequences as fit."""
    if "osl" not in point:
        raise UnexpressedError("a server's lengths are not given")
    from fxmeter import prefill
    from fxmeter.annotators.studies.chunks import ENGINE_TOKENS, time_of_step

    forms, device = forms_of(point)
    prompt, steps = point["isl"], point["osl"]
    batch = point.get("batch") or _most(forms, device, prompt + steps)
    first = forms["prompts"].time(device, prefill(prompt, batch=batch), ENGINE_TOKENS)
    step = time_of_step(forms["decode"], device, batch=batch, past_len=prompt, steps=steps)
    parts = [first] if "decode" not in point["metric"] else []
    seconds, launch = (
        sum(getattr(part, name) for part in parts) + steps * getattr(step, name) for name in ("estimate_s", "launch_s")
    )
    tokens = batch * steps
    return Prediction(point, 1000 / point["value"], seconds / tokens * 1000, launch / tokens * 1000)


def _most(forms: dict[str, Any], device: Any, context: int) -> int:
    """Sequences of a context that fit beside the weights."""
    costs = forms["decode"].evaluate(batch=np.array([1, 2]), past_len=context - 1, fields=("kv_bytes", "weight_bytes"))
    each = int(costs["kv_bytes"][1] - costs["kv_bytes"][0])
    room = int(MEMORY_SHARE * device.memory_bytes) - int(costs["weight_bytes"][0])
    if room < each:
        raise UnexpressedError(f"the weights leave no room in the memory of {device.name}")
    return room // each
