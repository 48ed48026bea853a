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
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from fxmeter.models.hand.layer import (
    BOOL_BYTES,
    FLOAT32_BYTES,
    INT64_BYTES,
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
from fxmeter.models.stage_cost import ZERO, StageCost

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
    """The router: E scores a token, in float32, and the best k (``TopkRouter`` of V2 and V3).

    Matmul 2·T·h·E. Vector, per token: softmax 5·E, top-k E, weights times the scaling factor k.
    ``group_limited_greedy`` adds the best score of each group E, and the choice among groups G.
    ``noaux_tc`` has a sigmoid 4·E for the softmax and adds: correction bias E, the two best of each group E,
    their sum 2·G, the choice among groups G; with ``norm_topk_prob`` the sum of weights k, + 1e-20 1, the
    division k.

    Tensors: the float32 copies of tokens and weight; scores before and after softmax or sigmoid; top-k values
    and int64 indices; scaled weights. The weight (E·h) is read in the model's dtype. See `_groups` for the
    rest.
    """

    hidden_size: int
    n_routed_experts: int
    num_experts_per_tok: int
    topk_method: TopkMethod = "greedy"
    n_group: int = 1
    topk_group: int = 1
    norm_topk_prob: bool = False

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        up, down = cast_bytes(self.element_bytes)
        tokens = batch * query_len
        inputs = tokens * self.hidden_size
        weight = self.n_routed_experts * self.hidden_size
        scores = tokens * self.n_routed_experts
        chosen = tokens * self.num_experts_per_tok
        linear = (
            StageCost(matmul_flops=2 * tokens * weight)
            + weights(weight * self.element_bytes)
            + pointwise(
                0,
                read=inputs * (down + FLOAT32_BYTES) + weight * up,
                write=inputs * up + weight * up + scores * FLOAT32_BYTES,
            )
        )
        scores_bytes = scores * FLOAT32_BYTES
        probability_flops = 4 if self.topk_method == "noaux_tc" else SOFTMAX_FLOPS
        probability = pointwise(probability_flops * scores, read=scores_bytes, write=scores_bytes)
        top_k = pointwise(scores, read=scores_bytes, write=chosen * (FLOAT32_BYTES + INT64_BYTES))
        scaled = pointwise(chosen, read=chosen * FLOAT32_BYTES, write=chosen * FLOAT32_BYTES)
        return linear + probability + self._groups(tokens) + top_k + scaled

    def _groups(self, tokens: Size) -> StageCost:
        """What restricting the choice to the best groups adds; g of G groups are kept.

        Both methods: top-k of the G group scores (values, int64 indices); a float mask of G, zeroed, then
        filled in place at the g indices; spread to E, made boolean, negated, and used to blank a copy of the
        E scores.
        """
        if self.topk_method == "greedy":
            return ZERO
        experts, groups, kept = self.n_routed_experts, self.n_group, self.topk_group
        pair_bytes = FLOAT32_BYTES + INT64_BYTES
        choice = pointwise(tokens * groups, read=tokens * groups * FLOAT32_BYTES, write=tokens * kept * pair_bytes)
        group_mask = StageCost(
            activation_read_bytes=tokens * kept * INT64_BYTES,
            activation_write_bytes=2 * tokens * groups * FLOAT32_BYTES,
            activation_bytes=tokens * groups * FLOAT32_BYTES,
        )
        blanked = pointwise(
            0,
            read=tokens * (groups * FLOAT32_BYTES + experts * (2 * FLOAT32_BYTES + 2 * BOOL_BYTES)),
            write=tokens * experts * (2 * FLOAT32_BYTES + 2 * BOOL_BYTES),
        )
        if self.topk_method == "noaux_tc":
            return self._corrected(tokens) + choice + group_mask + blanked
        best = pointwise(tokens * experts, read=tokens * experts * FLOAT32_BYTES, write=tokens * groups * pair_bytes)
        return best + choice + group_mask + blanked

    def _corrected(self, tokens: Size) -> StageCost:
        """V3 alone: scores plus a bias for the choice, group scores, and the chosen weights normalised.

        The bias is a float32 buffer of E: read, but no parameter. The two best of each group are values and
        int64 indices, summed to one score. Weights are gathered from the scores without bias by k indices;
        normalising divides them in place.
        """
        scores_bytes = tokens * self.n_routed_experts * FLOAT32_BYTES
        scores = tokens * self.n_routed_experts
        groups = tokens * self.n_group
        chosen = tokens * self.num_experts_per_tok
        pair_bytes = FLOAT32_BYTES + INT64_BYTES
        cost = (
            StageCost(weight_read_bytes=self.n_routed_experts * FLOAT32_BYTES)
            + pointwise(scores, read=scores_bytes, write=scores_bytes)
            + pointwise(scores, read=scores_bytes, write=2 * groups * pair_bytes)
            + pointwise(2 * groups, read=2 * groups * FLOAT32_BYTES, write=groups * FLOAT32_BYTES)
            + pointwise(0, read=chosen * pair_bytes, write=chosen * FLOAT32_BYTES)
        )
        if not self.norm_topk_prob:
            return cost
        sums = pointwise(chosen + tokens, read=(chosen + tokens) * FLOAT32_BYTES, write=2 * tokens * FLOAT32_BYTES)
        division = StageCost(
            vector_flops=chosen,
            activation_read_bytes=(chosen + tokens) * FLOAT32_BYTES,
            activation_write_bytes=chosen * FLOAT32_BYTES,
        )
        return cost + sums + division


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
