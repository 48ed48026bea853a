"""Fused traffic against Inductor's own count of bytes accessed, for decoder layers and their parts on the CPU.

python -m validation.fused [--no-write]
"""

from __future__ import annotations

import sys

from fxmeter import annotate_module
from fxmeter.models.stage_cost import StageCost
from validation.fused_parts import DEEPSEEK, HEAD_DIM, HEADS, HIDDEN, KV_HEADS, PARTS, Part, Size
from validation.inductor import count_bytes
from validation.page import Row, Section, Table, named, progress, run

SIZE = Size()
BAND = {"part": 0.12, "layer": 0.06}
F32, I64 = 4, 8
ROPE, LATENT = DEEPSEEK["qk_rope_head_dim"], DEEPSEEK["kv_lora_rank"]
GROUPS, TOP_GROUPS, TOP_K = DEEPSEEK["n_group"], DEEPSEEK["topk_group"], DEEPSEEK["num_experts_per_tok"]

Term = tuple[str, int]


def terms_of(name: str, size: Size) -> tuple[Term, ...]:
    """What Inductor counts and the policy does not (below zero, the reverse), in sizes of the architecture."""
    tokens, states = size.tokens, size.tokens * HIDDEN * F32
    scores = size.batch * HEADS * size.length * size.length * F32
    softmax = ("exp of the scores, between two kernels of a softmax", 2 * scores)
    slices: tuple[Term, ...] = (
        ("the latent's norm counts the rotary part beside it", tokens * ROPE * F32),
        ("halves of cos and sin count whole, for queries and keys", 2 * 2 * size.length * (ROPE // 2) * F32),
        ("the keys' rotary part counts the latent beside it", tokens * LATENT * F32),
        ("the keys' part of their projection counts more of it", tokens * HEADS * ROPE * F32),
    )
    if size.batch == 1:  # no copy makes the values of one sequence dense
        slices += (("values count the keys beside them", tokens * HEADS * DEEPSEEK["qk_nope_head_dim"] * F32),)
    selections = (
        ("indices of the first top-k, that nobody reads", -tokens * GROUPS * 2 * I64),
        ("values of the others, that nobody reads", -tokens * (TOP_GROUPS + TOP_K) * F32),
        ("the mask of groups is a comparison, not a scatter", -tokens * (GROUPS * F32 + TOP_GROUPS * (I64 + F32))),
    )
    named: dict[str, tuple[Term, ...]] = {
        "softmax attention, eager (Llama, grouped queries)": (softmax,),
        "router (DeepSeek-V3)": (
            *selections,
            ("three loads of the gathered weights, not one", 2 * tokens * TOP_K * F32),
        ),
        "whole layer (Llama)": (softmax,),
        "whole layer (Gemma 3)": (
            softmax,
            ("norms of queries and keys read them apart", tokens * (HEADS + KV_HEADS) * HEAD_DIM * F32),
            ("and keep their means", 2 * tokens * (HEADS + KV_HEADS) * F32),
            ("the norm before the residual sum is worked out twice from its means", 2 * tokens * F32),
            ("and its weight", HIDDEN * F32),
        ),
        "whole layer (DeepSeek-V3, dense)": (softmax, *slices),
        "whole layer (DeepSeek-V3, experts)": (
            softmax,
            *slices,
            *selections,
            ("a row that several experts get is read once", -(TOP_K - 1) * states),
            ("the experts' results are weighted where they are gathered", -2 * TOP_K * states),
            ("their sum is a kernel of its own", 2 * states),
            ("weights and indices of the routing", tokens * TOP_K * (I64 + F32)),
        ),
    }
    return named.get(name, ())


METHOD = f"""\
**Predicted** is `fused_io_bytes` of `annotate_module` with eager attention; **measured** what Inductor counts for the
kernels that it makes of the same module and inputs (`torch._inductor.metrics.num_bytes_accessed`), float32,
{SIZE.batch} × {SIZE.length} tokens, {HIDDEN} wide. Concatenations are pointwise (`force_pointwise_cat`), as Inductor
makes those of few inputs on a GPU; its CPU backend writes them to memory, and the second table has what that adds. The
explanation names every byte of the difference, each term from the sizes of the architecture; at other sizes the same
terms hold. Stated band: {BAND["part"]:.0%} for a part, {BAND["layer"]:.0%} for a layer.
"""


def predicted(part: Part) -> StageCost:
    """What fxmeter makes of a part."""
    return annotate_module(part.module, *part.args, **part.kwargs, attention="eager").cost


def check(name: str, size: Size = SIZE) -> tuple[Row, int]:
    """One part, and what of the difference no term names."""
    part = PARTS[name](size)
    cost, measured = predicted(part), count_bytes(part).nbytes
    terms = terms_of(name, size)
    unexplained = measured - cost.fused_io_bytes - sum(amount for _, amount in terms)
    text = named(terms)
    text += f"; unexplained {unexplained:,}" if unexplained else ""
    progress(f"{name}: {cost.fused_io_bytes:,} {measured:,}, unexplained {unexplained:,}")
    return Row(name, cost.fused_io_bytes, measured, text.removeprefix("; ")), unexplained


def in_band(row: Row) -> bool:
    """Whether a row is within the stated band."""
    return abs(row.error or 0) <= BAND["layer" if row.case.startswith("whole layer") else "part"]


def concatenations(name: str) -> Row:
    """A part as the CPU backend has it by default."""
    part = PARTS[name](SIZE)
    memory, pointwise = (count_bytes(part, pointwise_cat=flag).nbytes for flag in (False, True))
    text = f"concatenations written and read {memory - pointwise:,}" if memory != pointwise else ""
    return Row(name, predicted(part).fused_io_bytes, memory, text)


def measure() -> Section:
    """Every part."""
    found = [check(name) for name in PARTS]
    rows = [row for row, _ in found]
    by_default = [concatenations(name) for name in PARTS]
    named_all = all(unexplained == 0 for _, unexplained in found)
    equal, good = sum(row.predicted == row.measured for row in rows), sum(map(in_band, rows))
    verdict = (
        f"{good} of {len(rows)} within the band, {equal} equal; "
        + ("every difference is named to the byte. " if named_all else "differences remain that no term names. ")
        + "The policy counts a softmax as one kernel, which Inductor makes it on a GPU; a slice as the elements that "
        "are read, where Inductor counts up to its buffer; and it writes what a gather reads."
    )
    tables = [Table("Concatenations pointwise", rows), Table("Concatenations in memory, the CPU's default", by_default)]
    return Section("fused", "Fused traffic", METHOD, tables, verdict, named_all and good == len(rows))


if __name__ == "__main__":
    sys.exit(run(measure, __doc__))
