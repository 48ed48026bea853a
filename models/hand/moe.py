"""Hand-written cost of DeepSeek's mixture of experts: router, routed experts, shared experts.

Architecture: DeepSeekMoE (arXiv:2401.06066), routing of DeepSeek-V2 (arXiv:2405.04434) and V3
(arXiv:2412.19437). The order of operations and the dtypes are those of transformers' models/deepseek_v2 and
models/deepseek_v3 and, for the routed experts, of ``grouped_mm_experts_forward`` in integrations/moe.py.
Symbols: T = B·S_q tokens, E routed experts, k experts a token, h hidden size, I intermediate size of an
expert, G groups of experts.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from fxmeter.models.hand.layer import (
    BOOL_BYTES,
    FLOAT32_BYTES,
    INT64_BYTES,
    SIGMOID_FLOPS,
    SOFTMAX_FLOPS,
    Layer,
    SiLU,
    TypedLayer,
    binary,
    cast_bytes,
    pointwise,
    weights,
)
from fxmeter.models.hand.llama import LlamaMLP
from fxmeter.models.sizes import Size
from fxmeter.models.stage_cost import StageCost

TopkMethod = Literal["greedy", "group_limited_greedy", "noaux_tc"]
"""The router of V2-Lite and DeepSeek-OCR, of V2, and of V3."""


def expected_experts_bytes(tokens: Size, experts: int, experts_per_token: int, expert_bytes: int) -> Size:
    """Bytes of the distinct experts that T tokens touch: E·(1 − (1 − k/E)^T)·expert_bytes.

    Under uniform routing a token misses a given expert with probability 1 − k/E, whatever the others do. For
    a whole number of tokens the exact value is rounded to the nearest byte; for an array of them its
    double-precision value is (the same below 2^53 bytes, ties apart); for a symbol it is the exact
    expression, not rounded.
    """
    all_bytes = experts * expert_bytes
    missed = experts - experts_per_token
    if getattr(tokens, "shape", ()):
        touched = all_bytes * (1 - (missed / experts) ** tokens.astype("float64"))
        return touched.round().astype("int64").astype(tokens.dtype)
    try:
        count = operator.index(tokens)
    except TypeError:
        return all_bytes - all_bytes * missed**tokens / experts**tokens
    if missed == 0 or count * math.log(experts / missed) > math.log(4 * all_bytes):
        return all_bytes  # less than half a byte is missed; E^T could have any number of digits
    return round(all_bytes * (1 - Fraction(missed, experts) ** count))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepseekV2MLP(LlamaMLP):
    """SwiGLU, term by term `LlamaMLP`: a dense layer's, or all shared experts as one MLP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoEGate(TypedLayer):
    """The router: E scores a token, in float32, and the best k (``TopkRouter`` of V2 and V3); g of G groups are kept.

    Matmul 2·T·h·E. The weight (E·h) is read in the model's dtype and cast once. V3's correction bias, float32, is a
    buffer of E: read, but no parameter. `_operations` has the rest, which is all per token.
    """

    hidden_size: int
    n_routed_experts: int
    num_experts_per_tok: int
    topk_method: TopkMethod = "greedy"
    n_group: int = 1
    topk_group: int = 1
    norm_topk_prob: bool = False

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        up, _ = cast_bytes(self.element_bytes)
        tokens, weight = batch * query_len, self.n_routed_experts * self.hidden_size
        bias_bytes = self.n_routed_experts * FLOAT32_BYTES if self.topk_method == "noaux_tc" else 0
        per_pass = weights(weight * self.element_bytes) + pointwise(0, read=weight * up, write=weight * up)
        per_token: StageCost = StageCost.total(self._operations()) * tokens
        return StageCost(matmul_flops=2 * tokens * weight, weight_read_bytes=bias_bytes) + per_pass + per_token

    def _operations(self) -> Iterator[StageCost]:
        """What is done for one token, in order. Values are float32 (f bytes), indices int64 (i), masks boolean."""
        up, down = cast_bytes(self.element_bytes)
        f, i, pair = FLOAT32_BYTES, INT64_BYTES, FLOAT32_BYTES + INT64_BYTES
        experts, chosen, groups, kept = self.n_routed_experts, self.num_experts_per_tok, self.n_group, self.topk_group
        is_v3 = self.topk_method == "noaux_tc"
        yield pointwise(0, read=self.hidden_size * (down + f), write=self.hidden_size * up + experts * f)  # scores
        yield pointwise((SIGMOID_FLOPS if is_v3 else SOFTMAX_FLOPS) * experts, read=experts * f, write=experts * f)
        if is_v3:
            yield pointwise(experts, read=experts * f, write=experts * f)  # plus the correction bias
            yield pointwise(experts, read=experts * f, write=2 * groups * pair)  # the two best of each group
            yield pointwise(2 * groups, read=2 * groups * f, write=groups * f)  # their sum
        if self.topk_method == "group_limited_greedy":
            yield pointwise(experts, read=experts * f, write=groups * pair)  # the best of each group
        if self.topk_method != "greedy":
            yield pointwise(groups, read=groups * f, write=kept * pair)  # the best groups
            yield pointwise(0, read=0, write=groups * f)  # a mask of zeros, filled in place at their indices
            yield StageCost(activation_read_bytes=kept * i, activation_write_bytes=groups * f)
            yield pointwise(0, read=groups * f, write=experts * f)  # spread to the experts
            yield pointwise(0, read=experts * f, write=experts * BOOL_BYTES)  # made boolean
            yield pointwise(0, read=experts * BOOL_BYTES, write=experts * BOOL_BYTES)  # negated
            yield pointwise(0, read=experts * (f + BOOL_BYTES), write=experts * f)  # blanks a copy of the scores
        yield pointwise(experts, read=experts * f, write=chosen * pair)  # the best k
        if is_v3:
            yield pointwise(0, read=chosen * pair, write=chosen * f)  # their scores without the bias
        if is_v3 and self.norm_topk_prob:
            yield pointwise(chosen, read=chosen * f, write=f)  # the sum
            yield pointwise(1, read=f, write=f)  # plus 1e-20
            division = pointwise(chosen, read=(chosen + 1) * f, write=chosen * f)
            yield replace(division, activation_bytes=0)  # in place
        yield pointwise(chosen, read=chosen * f, write=chosen * f)  # times the scaling factor


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepseekV2Experts(TypedLayer):
    """E routed SwiGLU experts; each of P = T·k pairs of a token and an expert goes through that expert.

    Matmul 2·P·h·2I for gate and up together, 2·P·I·h for down. Vector: silu 5·P·I (part act_fn), its product with
    up P·I, routing weights P·h, the sum over a token's k experts P·h.

    Weights read: the expected distinct experts of gate_up_proj (2I·h each) and of down_proj (h·I), rounded apart.

    Tensors: tokens gathered by expert P·h; gate and up P·2I; product P·I; down P·h; the P routing weights, float32,
    gathered too; weighted rows, then put back in token order, P·h float32 each; their sum T·h float32, and its cast.
    The integer vectors that sort the pairs by expert are left out.
    """

    hidden_size: int
    n_routed_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int

    def children(self) -> dict[str, Layer]:
        features = self.num_experts_per_tok * self.moe_intermediate_size
        return {"act_fn": self.typed(SiLU, features=features)}

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        e = self.element_bytes
        up, down = cast_bytes(e)
        tokens = batch * query_len
        pairs = tokens * self.num_experts_per_tok
        rows, inner = pairs * self.hidden_size, pairs * self.moe_intermediate_size
        outputs = tokens * self.hidden_size
        return StageCost(
            matmul_flops=2 * rows * 2 * self.moe_intermediate_size + 2 * inner * self.hidden_size,
            weight_read_bytes=self._touched_bytes(tokens, 2) + self._touched_bytes(tokens, 1),
            weight_bytes=self.n_routed_experts * (2 + 1) * self._matrix_bytes,
        ) + pointwise(
            inner + rows + rows,
            read=e * (rows + rows + 2 * inner + inner + rows)
            + FLOAT32_BYTES * (pairs + pairs + rows + rows)
            + outputs * up,
            write=e * (rows + 2 * inner + inner + rows)
            + FLOAT32_BYTES * (pairs + rows + rows + outputs)
            + outputs * down,
        )

    @property
    def _matrix_bytes(self) -> int:
        """One h × I matrix of one expert."""
        return self.hidden_size * self.moe_intermediate_size * self.element_bytes

    def _touched_bytes(self, tokens: Size, matrices: int) -> Size:
        expert_bytes = matrices * self._matrix_bytes
        return expected_experts_bytes(tokens, self.n_routed_experts, self.num_experts_per_tok, expert_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepseekV2MoE(Layer):
    """experts(x, gate(x)) + shared_experts(x) (``DeepseekV2Moe``, ``DeepseekV3MoE``).

    Own work: the addition, T·h FLOPs, reading two tensors and writing one.
    """

    gate: MoEGate
    experts: DeepseekV2Experts
    shared_experts: DeepseekV2MLP

    def children(self) -> dict[str, Layer]:
        return {"experts": self.experts, "gate": self.gate, "shared_experts": self.shared_experts}

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        return binary(batch * query_len * self.gate.hidden_size, self.gate.element_bytes)
