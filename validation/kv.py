"""KV bytes against the cache that a real pass leaves behind.

python -m validation.kv [--no-write]
"""

from __future__ import annotations

import sys

from validation.page import Row, Section, Table, progress, run
from validation.real_runs import STAGES, entries_in, predicted, real_run

KINDS = {
    "llama": "full",
    "mistral": "sliding",
    "gemma3_text": "sliding and full",
    "llama4_text": "chunked and full",
    "deepseek_v3": "latent (MLA)",
    "deepseek_v32": "latent and indexer",
    "deepseek_v4": "compressed",
    "mamba": "state space",
    "bamba": "state space and full",
    "qwen3_next": "delta rule and full",
    "lfm2": "convolution and full",
    "minimax": "linear attention, a cache class of its own",
    "gemma3n_text": "shared between layers",
}
"""Model type → the cache that it stands for."""

PROMPTS = (24, 101)
METHOD = """\
**Measured** is the size of the tensors in the cache object after a real pass (float32, 2 sequences), found by pickling
it: whatever their class and wherever they are. Scalars, which count tokens, are left out; what stands under two names
(keys that serve as values, layers that share) counts once. Prompts of 24 and of 101 tokens, beyond every window (8)
and chunk; a decode step after each.
"""


def check(model_type: str, stage: str, prompt: int) -> Row:
    """One pass."""
    with real_run(model_type, stage, prompt=prompt) as real:
        entries = entries_in(real.cache_after(real()))
    ours = predicted(model_type, stage, prompt=prompt).cost.kv_bytes
    row = Row(f"{KINDS[model_type]}: {model_type}, {stage} {prompt}", ours, sum(entry.nbytes for entry in entries))
    progress(f"{row.case}: {row.predicted:,} {row.measured:,}")
    return row


def measure() -> Section:
    """Every kind of cache."""
    rows = [check(name, stage, prompt) for name in KINDS for prompt in PROMPTS for stage in STAGES]
    equal = sum(row.predicted == row.measured for row in rows)
    verdict = f"{equal} of {len(rows)} passes over {len(KINDS)} kinds of cache equal to the byte."
    return Section("kv", "KV cache", METHOD, [Table("After the pass", rows)], verdict, equal == len(rows))


if __name__ == "__main__":
    sys.exit(run(measure, __doc__))
