"""Choosing keys for sparse attention."""

from __future__ import annotations

from fxmeter.annotators.rules.cost import Flops
from fxmeter.annotators.rules.registry import rule
from fxmeter.models.stage_cost import Size
from fxmeter.tracer.graph.spec import Spec
from fxmeter.tracer.operators.indexers import block_index


@rule(block_index)
def block_index_rule(query: Spec, keys: Spec, cos: Spec, block: int) -> Flops:
    """scores of each query's whole blocks of past keys: 2·H·D per block; its mean, norm and turn, and the choice

    Query i of S_q has ⌊(S_kv − S_q + i + 1) / block⌋ whole blocks, whatever the mask hides. As transformers executes
    it, every query makes the keys of its blocks anew: sum and quotient (block + 1)·D, norm 4·D + 3, turn 3½ of what is
    turned; then relu and sum over heads, √D, top-k.
    """
    batch, s_q, heads, width = query.shape
    s_kv, turned = keys.shape[1], cos.shape[-1]
    blocks = batch * (_whole_blocks(s_kv, block) - _whole_blocks(s_kv - s_q, block))
    each = (block + 1) * width + 4 * width + 3 + 7 * turned // 2 + 2 * heads + 2
    return Flops(matmul=2 * blocks * heads * width, vector=blocks * each)


def _whole_blocks(count: Size, block: int) -> Size:
    """Σ ⌊j / block⌋ for j from 1 to ``count``."""
    whole = count // block
    return block * (whole * (whole - 1) // 2) + whole * (count - whole * block + 1)
