"""What can be chosen about a pass beside its sizes, in the words that Python, JSON and the command line share."""

from __future__ import annotations

from typing import Literal

Attention = Literal["eager", "flash"]
"""The model's own attention code, or one fused core per layer."""

StageName = Literal["vision", "encode", "prefill", "decode"]
"""What a pass is for: look at a page, run the encoder before a decoder, read a prompt, write tokens."""

Causal = Literal["full", "exact"]
"""Pairs of a query and a key that a fused core computes: all, or those that its mask lets through."""

Logits = Literal["all", "last", "none"]
"""Logits of all positions, what ``forward`` computes, of the last one, what ``generate`` needs, or of none, as in a
chunk of a prompt that is not the last."""

Routing = Literal["uniform", "worst"]
"""Routed experts whose weights are read: as many as uniform routing lets one expect, or the most possible."""

Dtype = Literal["bfloat16", "float16", "float32", "float64"]
"""Of weights, cache and activations."""

DTYPE_OF: dict[str, Dtype] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
"""What else people call them."""

OpsBy = Literal["time", "flops", "bytes"]
