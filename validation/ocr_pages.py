"""A page of DeepSeek-OCR on A100-40G from its pixels to its last token, beside the paper's 200,000 pages a day."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from fxmeter import closed_form, deploy, load_model
from fxmeter.annotators.studies.chunks import ENGINE_TOKENS, PromptForms, time_of_step
from fxmeter.models import scenario
from fxmeter.models.devices import device
from fxmeter.models.page import page_context
from fxmeter.tracer.load.vision import load_vision

DEVICE = "a100-sxm4-40g"
PAPER = 200_000
OUTPUTS = (250, 500, 1000)
"""Tokens that a page is read as: the paper does not say."""
MEMORY_SHARE = 0.9


def rows() -> Iterator[str]:
    """The lines of a section of docs/validation_time.md."""
    yield from (
        "## DeepSeek-OCR: a page to its last token",
        "",
        f"On {DEVICE}, a page without crops (1024 x 1024, {page_context((0, 0))} tokens), bf16, serving kernels. The",
        f"paper gives {PAPER:,} pages a day for one A100-40G, and neither its batch nor the tokens of a page. Busy:",
        "as many pages in decode as fit in nine tenths of the memory, vision one page at a time, no preprocessing of",
        "images, no scheduler, no idle time; so an upper figure, extrapolated.",
        "",
        "| output tokens | vision ms | prefill ms | a token ms | page s | pages at once | busy: a token ms "
        "| pages a day | of the paper's |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    )
    where, grid = device(DEVICE), (0, 0)
    context = page_context(grid)
    deployment = deploy(kernels="serving")
    decoder = load_model("deepseek-ocr")
    prefill, decode = (
        closed_form(decoder, stage=stage, logits="last", deployment=deployment)
        for stage in ("prefill", "decode")  # type: ignore[arg-type]
    )
    tower = closed_form(load_vision("deepseek-ocr"), stage="vision")
    seen, cost = tower.time(where, crops=grid).estimate_s, tower.at(crops=grid)
    first = prefill.time(where, query_len=context).estimate_s
    for steps in OUTPUTS:
        step = time_of_step(decode, where, batch=1, past_len=context, steps=steps).estimate_s
        resident = decode.at(past_len=context + steps - 1)
        fixed = resident.weight_bytes + cost.weight_bytes + cost.peak_activation_bytes
        batch = int((MEMORY_SHARE * where.memory_bytes - fixed) // resident.kv_bytes)
        busy_step = time_of_step(decode, where, batch=batch, past_len=context, steps=steps).estimate_s
        pages = PromptForms(
            prefill, partial(closed_form, decoder, stage="prefill", logits="none", deployment=deployment)
        )
        prompts = pages.time(where, scenario.prefill(context, batch=batch), ENGINE_TOKENS).estimate_s
        a_day = 86_400 * batch / (batch * float(seen) + prompts + steps * busy_step)
        yield (
            f"| {steps:,} | {seen * 1e3:.1f} | {first * 1e3:.1f} | {step * 1e3:.2f} "
            f"| {seen + first + steps * step:.2f} "
            f"| {batch} | {busy_step * 1e3:.1f} | {a_day:,.0f} | {a_day / PAPER:.1f} x |"
        )
    yield ""
