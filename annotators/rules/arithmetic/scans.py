"""Scans over time: state-space models, the delta rule and other linear recurrences, by the formula of their paper.

Products with the state and within a chunk are matmul FLOPs, 2 per multiply-accumulate; what scales, decays and gates
them is vector arithmetic by the table of :mod:`fxmeter.annotators.rules.arithmetic.elementwise`. A chunk that the
sequence does not fill is computed whole.
"""

from __future__ import annotations

import math

from fxmeter.annotators.rules.cost import Flops
from fxmeter.annotators.rules.registry import rule
from fxmeter.models.stage_cost import Size
from fxmeter.tracer.graph.spec import Spec
from fxmeter.tracer.operators.scans import (
    gated_delta_rule,
    lightning_attention,
    linear_recurrence,
    mlstm,
    selective_scan,
    selective_state_update,
    state_space_dual,
    wkv,
)


def _whole_chunks(length: Size, chunk: Size) -> Size:
    return (length + chunk - 1) // chunk


def _gates(each: Size, D: Spec | None, z: Spec | None, bias: Spec | None, softplus: bool) -> Size:
    """Per element of u: bias 1, softplus 3, skip connection 2, gate 6."""
    return each * ((bias is not None) + 3 * softplus + 2 * (D is not None) + 6 * (z is not None))


@rule(selective_scan)
def selective_scan_rule(
    u: Spec, A: Spec, D: Spec | None, z: Spec | None, delta_bias: Spec | None, delta_softplus: bool
) -> Flops:
    """h = exp(Δ·A)·h + Δ·B·u, y = C·h: per channel, token and state 2 (C·h) and 6; D 2, z 6, softplus 3 per element

    Mamba, arXiv 2312.00752, equation 2 and algorithm 2.
    """
    states = u.numel * A.shape[-1]
    gates = _gates(u.numel, D, z, delta_bias, delta_softplus)
    return Flops(matmul=2 * states, vector=6 * states + gates)


@rule(selective_state_update)
def selective_state_update_rule(
    state: Spec, x: Spec, D: Spec | None, z: Spec | None, dt_bias: Spec | None, dt_softplus: bool
) -> Flops:
    """one step of h = exp(Δ·A)·h + Δ·B·x, y = C·h: 2 (C·h) and 6 per element of state; D 2, z 6, softplus 3 of x

    Mamba, arXiv 2312.00752, equation 2; Mamba-2, arXiv 2405.21060, its form with heads.
    """
    gates = _gates(x.numel, D, z, dt_bias, dt_softplus)
    return Flops(matmul=2 * state.numel, vector=6 * state.numel + gates)


@rule(state_space_dual)
def state_space_dual_rule(
    x: Spec,
    dt: Spec,
    B: Spec,
    chunk_size: int,
    D: Spec | None,
    dt_bias: Spec | None,
    dt_softplus: bool,
    dt_limit: list[float] | None,
) -> Flops:
    """by chunks of Q: C·Bᵀ per group 2·Q·N, scores·x 2·Q·P, chunk states and their readout 2·2·N·P, per token and head

    Mamba-2, arXiv 2405.21060, section 6 and listing 1: the four blocks of the semiseparable matrix. Vector FLOPs per
    token and head: x·Δ P, A·Δ 1; decay of each pair 3·Q (sum, exp, product with the scores); cumulative sum 1; decay to
    the chunk's end 2 and of B N; decay from its start 1 and of the readout P; sum of both P. Per chunk and head: decay
    1, and the state's, with the sum, 2·N·P.
    """
    batch, length, heads, width = x.shape
    groups, state = B.shape[2:]
    chunks = _whole_chunks(length, chunk_size)
    tokens = batch * chunks * chunk_size
    matmul = 2 * tokens * (groups * chunk_size * state + heads * chunk_size * width + 2 * heads * state * width)
    vector = tokens * heads * (3 * chunk_size + 4 + 2 * width + state)
    vector += batch * chunks * heads * (2 * width * state + 1)
    clamped = dt_limit is not None and (dt_limit[0] > 0 or dt_limit[1] < math.inf)
    gates = dt.numel * ((dt_bias is not None) + 3 * dt_softplus + 2 * clamped + 1) + x.numel
    return Flops(matmul=matmul, vector=vector + gates + 2 * x.numel * (D is not None))


@rule(gated_delta_rule)
def gated_delta_rule_rule(
    key: Spec, value: Spec, g: Spec, chunk_size: int | None, use_qk_l2norm_in_kernel: bool
) -> Flops:
    """S = exp(g)·S + β·k⊗(v − Sᵀk), y = Sᵀq: token by token 3·2·K·V per head; by chunks of C, 2·C·(2·K+V) + 3·2·K·V

    Gated DeltaNet, arXiv 2412.06464, section 3.3; Kimi Delta Attention, arXiv 2510.26692, whose decays are one for each
    channel. Vector FLOPs per token and head: q's scale K, norms 2·(3·K + 2); token by token, decay of S K·V and its own
    exp, error V, β V. By chunks, for each pair and decay: difference, exp, product with both score matrices; the two
    unit-triangular solves (C − 1)·(K+V); β on k and v K + V; cumulative sum and exp, difference and exp to the chunk's
    end, 4 for each decay; these on k, q and k 3·K; two sums of V. Per chunk: exp, and decay and sum of S 2·K·V.
    """
    batch, length, heads, v_dim = value.shape
    k_dim = key.shape[-1]
    token_heads = batch * length * heads
    decays = g.numel // token_heads  # 1, or K where the decay is per channel
    scale = token_heads * (k_dim + 2 * (3 * k_dim + 2) * use_qk_l2norm_in_kernel)
    if chunk_size is None:
        vector = token_heads * (k_dim * v_dim + 2 * v_dim + decays)
        return Flops(matmul=token_heads * 3 * 2 * k_dim * v_dim, vector=vector + scale)
    chunks = _whole_chunks(length, chunk_size)
    tokens = batch * chunks * chunk_size * heads
    matmul = tokens * (2 * chunk_size * (2 * k_dim + v_dim) + 3 * 2 * k_dim * v_dim)
    solves = tokens * (chunk_size - 1) * (k_dim + v_dim)
    pairs = tokens * chunk_size * 4 * decays
    vector = solves + pairs + tokens * (4 * k_dim + 3 * v_dim + 4 * decays)
    vector += batch * chunks * heads * (2 * k_dim * v_dim + decays)
    return Flops(matmul=matmul, vector=vector + scale)


@rule(wkv)
def wkv_rule(time_decay: Spec, key: Spec) -> Flops:
    """23 per element of key: two maxima, four exponentials of differences, two weighted sums each, one quotient

    RWKV-4, arXiv 2305.13048, appendix D (the numerically safe recurrence); the decay −exp(w) once, 2 per channel.
    """
    return Flops(vector=23 * key.numel + 2 * time_decay.numel)


@rule(linear_recurrence)
def linear_recurrence_rule(x: Spec) -> Flops:
    """h = a·h + x: 2 per element of x

    Griffin's RG-LRU, arXiv 2402.19427, equation 4.
    """
    return Flops(vector=2 * x.numel)


@rule(mlstm)
def mlstm_rule(key: Spec, value: Spec, chunk_size: int) -> Flops:
    """C = f·C + i·k⊗v, y = Cᵀq / max(|nᵀq|, 1): by chunks of L, 2·L·(K+V) and 2·2·K·V per token and head; nᵀq 2·K

    xLSTM, arXiv 2405.04517, equations 19 to 27, chunkwise as in arXiv 2503.13427, section 3. Vector FLOPs token by
    token: C 3·K·V (f, i, sum), n 3·K, q's scale K, quotient V; 16 for gates (log-sigmoid 4), maximum and norm. By
    chunks: 8 for each pair (two sums, maximum, difference, exp, scale, product, sum), 4·K, 2·V and 20 per token, and
    per chunk 2·K·(V + 1) + 5.
    """
    batch, heads, length, k_dim = key.shape
    v_dim = value.shape[-1]
    chunks = _whole_chunks(length, chunk_size)
    tokens = batch * heads * chunks * chunk_size
    matmul = tokens * (2 * 2 * k_dim * v_dim + 2 * k_dim)
    if chunk_size == 1:
        return Flops(matmul=matmul, vector=tokens * (3 * k_dim * v_dim + 4 * k_dim + v_dim + 16))
    matmul += tokens * 2 * chunk_size * (k_dim + v_dim)
    vector = tokens * (8 * chunk_size + 4 * k_dim + 2 * v_dim + 20)
    vector += batch * chunks * heads * (2 * k_dim * (v_dim + 1) + 5)
    return Flops(matmul=matmul, vector=vector)


@rule(lightning_attention)
def lightning_attention_rule(query: Spec, value: Spec, state: Spec | None, block_size: int) -> Flops:
    """S = λ·S + k⊗v, y = Sᵀq: by blocks of C, 2·C·(K+V) + 2·2·K·V per token and head; from a state on, 2·2·K·V

    Lightning Attention-2, arXiv 2401.04658, algorithm 1; the last block as long as what is left. Vector FLOPs: decay of
    each pair 1, of q and k 2·K, sum of both parts V; per block decay and sum of S 2·K·V, and its λ 3 for each head. The
    decays within a block are constants of the layer, as there. From a state on: decay and sum of S, and λ 2.
    """
    batch, heads, length, k_dim = query.shape
    v_dim = value.shape[-1]
    products = 2 * 2 * length * k_dim * v_dim  # qᵀS, and k⊗v into S
    if state is not None:
        decayed = batch * heads * length * k_dim * v_dim
        return Flops(matmul=batch * heads * products, vector=2 * decayed + 2 * heads)
    blocks = _whole_chunks(length, block_size)
    rest = length - (blocks - 1) * block_size
    pairs = (blocks - 1) * block_size * block_size + rest * rest
    vector = pairs + length * (2 * k_dim + v_dim) + blocks * 2 * k_dim * v_dim
    return Flops(
        matmul=batch * heads * (2 * pairs * (k_dim + v_dim) + products),
        vector=batch * heads * vector + 3 * blocks * heads,
    )
