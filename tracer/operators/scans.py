"""Scans over time as one operator each: state-space models, the delta rule, and other linear recurrences.

The meta kernels give shapes; the others run the recurrence step by step, as its paper writes it, on any device, so
that a recorded graph can be executed. B batch, L length, H heads, G groups of heads that share B and C, N state.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fxmeter.tracer.operators.define import operator


def _softplus(x: Tensor, apply: bool) -> Tensor:
    return F.softplus(x) if apply else x


@operator()
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """h_t = exp(Δ_t A) h_{t−1} + Δ_t B_t u_t, y_t = C_t h_t + D u_t (Mamba, arXiv 2312.00752, equation 2).

    u, delta, z [B, channels, L]; A [channels, N]; B, C [B, N, L] → y [B, channels, L], state [B, channels, N] float32.
    """
    if u.is_meta:
        return torch.empty_like(u), u.new_empty((*u.shape[:2], A.shape[-1]), dtype=torch.float32)
    dt = delta if delta_bias is None else delta + delta_bias.to(delta.dtype)[..., None]
    dt = _softplus(dt, delta_softplus).float()
    state = u.new_zeros((*u.shape[:2], A.shape[-1]), dtype=torch.float32)
    outputs = []
    for t in range(u.shape[-1]):
        step = dt[..., t, None]
        state = torch.exp(step * A.float()) * state + step * B[:, None, :, t].float() * u[..., t, None].float()
        outputs.append((state * C[:, None, :, t].float()).sum(-1))
    y = torch.stack(outputs, dim=-1)
    y = y if D is None else y + u.float() * D.float()[:, None]
    y = y if z is None else y * F.silu(z.float())
    return y.to(u.dtype), state


@operator(changes=["state"])
def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
) -> Tensor:
    """One step of a selective state space, its state changed in place; shapes as in the package mamba_ssm.

    state [B, (H,) P, N]; x, dt [B, (H,) P]; A [(H,) P, N]; B, C [B, (G,) N]; D [(H,) P] → [B, (H,) P].
    """
    if state.is_meta:
        return torch.empty_like(x)
    step = dt if dt_bias is None else dt + dt_bias.to(dt.dtype)
    step = _softplus(step, dt_softplus).float()[..., None]
    if B.dim() == 3:
        B, C = (v.repeat_interleave(state.shape[1] // v.shape[1], dim=1) for v in (B, C))
    new = torch.exp(step * A.float()) * state.float() + step * B[..., None, :].float() * x[..., None].float()
    state.copy_(new)
    y = (new * C[..., None, :].float()).sum(-1)
    y = y if D is None else y + x.float() * D.float()
    y = y if z is None else y * F.silu(z.float())
    return y.to(x.dtype)


@operator()
def state_space_dual(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: list[float] | None = None,
) -> tuple[Tensor, Tensor]:
    """h_t = exp(Δ_t a) h_{t−1} + Δ_t x_t ⊗ B_t, y_t = h_t C_t + D x_t (Mamba-2, arXiv 2405.21060, by chunks).

    x [B, L, H, P]; dt [B, L, H]; A [H]; B, C [B, L, G, N] → y [B, L, H, P] and state [B, H, P, N], float32.
    """
    batch, length, heads, width = x.shape
    shape = (batch, heads, width, B.shape[-1])
    if x.is_meta:
        return x.new_empty(x.shape, dtype=torch.float32), x.new_empty(shape, dtype=torch.float32)
    step = dt if dt_bias is None else dt + dt_bias.to(dt.dtype)
    step = _softplus(step, dt_softplus).clamp(*(dt_limit or (0.0, float("inf")))).float()
    B, C = (v.float().repeat_interleave(heads // v.shape[2], dim=2) for v in (B, C))
    state = x.new_zeros(shape, dtype=torch.float32) if initial_states is None else initial_states.float()
    outputs = []
    for t in range(length):
        decay = torch.exp(step[:, t] * A.float())[..., None, None]
        update = (step[:, t, :, None] * x[:, t].float())[..., None] * B[:, t, :, None]
        state = decay * state + update
        outputs.append((state * C[:, t, :, None]).sum(-1))
    y = torch.stack(outputs, dim=1)
    return y if D is None else y + x.float() * D.float()[..., None], state


@operator()
def gated_delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None = None,
    chunk_size: int | None = None,
    use_qk_l2norm_in_kernel: bool = False,
) -> tuple[Tensor, Tensor]:
    """S_t = exp(g_t) S_{t−1}, corrected by β_t k_t ⊗ (v_t − S_tᵀ k_t); y_t = S_tᵀ q_t (arXiv 2412.06464).

    query, key [B, L, H_k, K]; value [B, L, H, V]; beta [B, L, H]; g [B, L, H], or [B, L, H, K] where the decay is per
    channel (Kimi Delta Attention, arXiv 2510.26692) → y like value, state [B, H, K, V] float32. ``chunk_size`` is
    that of the chunkwise form; None goes token by token.
    """
    batch, length, heads, v_dim = value.shape
    shape = (batch, heads, key.shape[-1], v_dim)
    if value.is_meta:
        return torch.empty(value.shape, dtype=value.dtype, device="meta"), value.new_empty(shape, dtype=torch.float32)
    q, k = (x.float().repeat_interleave(heads // x.shape[2], dim=2) for x in (query, key))
    if use_qk_l2norm_in_kernel:
        q, k = (x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6) for x in (q, k))
    q = q * q.shape[-1] ** -0.5
    state = value.new_zeros(shape, dtype=torch.float32) if initial_state is None else initial_state.float()
    outputs = []
    for t in range(length):
        decay = g[:, t].float().exp()
        state = state * (decay[..., None, None] if g.dim() == 3 else decay[..., None])
        error = value[:, t].float() - (state * k[:, t, :, :, None]).sum(-2)
        state = state + k[:, t, :, :, None] * (error * beta[:, t, :, None].float())[..., None, :]
        outputs.append((state * q[:, t, :, :, None]).sum(-2))
    return torch.stack(outputs, dim=1).to(value.dtype), state


@operator()
def wkv(
    time_decay: Tensor,
    time_first: Tensor,
    key: Tensor,
    value: Tensor,
    numerator: Tensor | None,
    denominator: Tensor | None,
    maximum: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A decayed average of values with weights exp(key), kept below overflow (RWKV-4, arXiv 2305.13048, equation 16).

    key, value [B, L, channels]; time_decay, time_first [channels] → output like key, three states [B, channels].
    """
    if key.is_meta:
        state = key.new_empty((key.shape[0], key.shape[2]), dtype=torch.float32)
        return torch.empty_like(key), state, torch.empty_like(state), torch.empty_like(state)
    zero = key.new_zeros((key.shape[0], key.shape[2]), dtype=torch.float32)
    num = zero if numerator is None else numerator
    den = zero if denominator is None else denominator
    top = zero - 1e38 if maximum is None else maximum
    decay = -torch.exp(time_decay)
    outputs = []
    for t in range(key.shape[1]):
        k, v = key[:, t].float(), value[:, t]
        now = torch.maximum(top, k + time_first)
        old, new = torch.exp(top - now), torch.exp(k + time_first - now)
        outputs.append((old * num + new * v) / (old * den + new))
        after = torch.maximum(top + decay, k)
        old, new = torch.exp(top + decay - after), torch.exp(k - after)
        num, den, top = old * num + new * v, old * den + new, after
    return torch.stack(outputs, dim=1).to(key.dtype), num, den, top


@operator()
def linear_recurrence(x: Tensor, a: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """h_t = a_t h_{t−1} + x_t, channel by channel (the RG-LRU's recurrence, arXiv 2402.19427, equation 4).

    x, a [B, L, channels] → h like x, and the last h, float32 [B, channels].
    """
    if x.is_meta:
        return torch.empty_like(x), x.new_empty((x.shape[0], x.shape[2]), dtype=torch.float32)
    h = x.new_zeros((x.shape[0], x.shape[2]), dtype=torch.float32) if state is None else state.float()
    outputs = []
    for t in range(x.shape[1]):
        h = a[:, t].float() * h + x[:, t].float()
        outputs.append(h.to(x.dtype))
    return torch.stack(outputs, dim=1), h


@operator()
def mlstm(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    igate: Tensor,
    fgate: Tensor,
    c: Tensor | None,
    n: Tensor | None,
    m: Tensor | None,
    chunk_size: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """C_t = f_t C_{t−1} + i_t k_t ⊗ v_t, y_t = C_tᵀ q_t / max(|n_tᵀ q_t|, 1) (xLSTM, arXiv 2405.04517, equation 19).

    query, key [B, H, L, K]; value [B, H, L, V]; gates [B, H, L] → y like value; C [B, H, K, V], n [B, H, K]
    and m [B, H, 1].
    """
    batch, heads, length, k_dim = key.shape
    shapes = (batch, heads, k_dim, value.shape[-1]), (batch, heads, k_dim), (batch, heads, 1)
    if key.is_meta:
        c, n, m = (key.new_empty(shape, dtype=torch.float32) for shape in shapes)
        return torch.empty_like(value), c, n, m
    c, n, m = (
        key.new_zeros(shape, dtype=torch.float32) if state is None else state.float()
        for state, shape in zip((c, n, m), shapes, strict=True)
    )
    q = query.float() * k_dim**-0.5
    outputs = []
    for t in range(length):
        forget = F.logsigmoid(fgate[..., t, None].float())
        top = torch.maximum(forget + m, igate[..., t, None].float())
        keep, take = torch.exp(forget + m - top), torch.exp(igate[..., t, None].float() - top)
        k, v = key[:, :, t].float(), value[:, :, t].float()
        c = keep[..., None] * c + take[..., None] * (k[..., :, None] * v[..., None, :])
        n = keep * n + take * k
        read = (q[:, :, t, :, None] * c).sum(-2)
        norm = (q[:, :, t] * n).sum(-1, keepdim=True).abs()
        outputs.append(read / (torch.maximum(norm, torch.exp(-top)) + eps))
        m = top
    return torch.stack(outputs, dim=2).to(value.dtype), c, n, m


@operator()
def lightning_attention(
    query: Tensor, key: Tensor, value: Tensor, slope: Tensor, state: Tensor | None, block_size: int
) -> tuple[Tensor, Tensor]:
    """S_t = exp(−s) S_{t−1} + k_t ⊗ v_t, y_t = S_tᵀ q_t (Lightning Attention-2, arXiv 2401.04658, by blocks).

    query, key, value [B, H, L, D]; slope s [H, 1, 1] → y like value, and S [B, H, D, D]. A pass that starts from a
    ``state`` goes token by token.
    """
    batch, heads, length, width = value.shape
    shape = (batch, heads, key.shape[-1], width)
    if value.is_meta:
        return torch.empty_like(value, memory_format=torch.contiguous_format), value.new_empty(shape)
    decay = torch.exp(-slope.float())
    after = value.new_zeros(shape, dtype=torch.float32) if state is None else state.float()
    outputs = []
    for t in range(length):
        after = decay * after + key[:, :, t, :, None].float() * value[:, :, t, None, :].float()
        outputs.append((query[:, :, t, :, None].float() * after).sum(-2))
    return torch.stack(outputs, dim=2).to(value.dtype), after.to(value.dtype)
