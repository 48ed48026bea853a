"""Decoders in the style of well-known single-file repositories."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from validation.foreign.call import Call

VOCABULARY, DIM, HEADS, LENGTH = 100, 32, 4, 12


class Nano(nn.Module):
    """nanoGPT: learned positions, one projection for query, key and value, GELU, tied head."""

    def __init__(self, *, sdpa: bool) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCABULARY, DIM), nn.Embedding(64, DIM)
        self.blocks = nn.ModuleList(NanoBlock(sdpa=sdpa) for _ in range(2))
        self.ln_f = nn.LayerNorm(DIM)
        self.head = nn.Linear(DIM, VOCABULARY, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        position = torch.arange(tokens.size(1), dtype=torch.long, device=tokens.device)
        x = self.wte(tokens) + self.wpe(position)
        for block in self.blocks:
            x = block(x)
        x = self.ln_f(x)
        if targets is None:
            return self.head(x[:, [-1], :]), None
        logits = self.head(x)
        return logits, F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1)


class NanoBlock(nn.Module):
    def __init__(self, *, sdpa: bool) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.c_attn, self.c_proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.mlp = nn.Sequential(nn.Linear(DIM, 4 * DIM), nn.GELU(), nn.Linear(4 * DIM, DIM))
        self.sdpa = sdpa
        self.register_buffer("bias", torch.tril(torch.ones(64, 64)).view(1, 1, 64, 64))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))

    def attention(self, x: Tensor) -> Tensor:
        batch, length, dim = x.size()
        q, k, v = (
            part.view(batch, length, HEADS, dim // HEADS).transpose(1, 2) for part in self.c_attn(x).split(dim, dim=2)
        )
        if self.sdpa:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
            scores = scores.masked_fill(self.bias[:, :, :length, :length] == 0, float("-inf"))
            y = scores.softmax(dim=-1) @ v
        return self.c_proj(y.transpose(1, 2).contiguous().view(batch, length, dim))


class RMSNorm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-5)).type_as(x)


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary embedding with complex numbers, as Meta's llama."""
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * angles[None, :, None]).flatten(3).type_as(x)


class LlamaStyle(nn.Module):
    """Meta's llama with a key-value cache in buffers; ``start`` tokens are in it already."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(VOCABULARY, DIM), RMSNorm(DIM)
        self.layers = nn.ModuleList(LlamaStyleBlock() for _ in range(2))
        self.head = nn.Linear(DIM, VOCABULARY, bias=False)
        width = DIM // HEADS
        freqs = 1.0 / (10000 ** (torch.arange(0, width, 2) / width))
        angles = torch.outer(torch.arange(64).float(), freqs)
        self.angles = torch.polar(torch.ones_like(angles), angles)  # a plain attribute, as there

    def forward(self, tokens: Tensor, start: int) -> Tensor:
        length = tokens.shape[1]
        h, angles = self.embed(tokens), self.angles[start : start + length].to(tokens.device)
        mask = None
        if length > 1:
            mask = torch.triu(torch.full((length, length), float("-inf"), device=tokens.device), diagonal=1)
            mask = torch.hstack([torch.zeros((length, start), device=tokens.device), mask]).type_as(h)
        for layer in self.layers:
            h = layer(h, start, angles, mask)
        return self.head(self.norm(h)).float()


class LlamaStyleBlock(nn.Module):
    def __init__(self, kv_heads: int = 2) -> None:
        super().__init__()
        self.kv_heads, width = kv_heads, DIM // HEADS
        self.wq, self.wo = nn.Linear(DIM, DIM, bias=False), nn.Linear(DIM, DIM, bias=False)
        self.wk, self.wv = (nn.Linear(DIM, kv_heads * width, bias=False) for _ in range(2))
        self.w1, self.w3 = nn.Linear(DIM, 64, bias=False), nn.Linear(DIM, 64, bias=False)
        self.w2 = nn.Linear(64, DIM, bias=False)
        self.norm_1, self.norm_2 = RMSNorm(DIM), RMSNorm(DIM)
        self.register_buffer("keys", torch.zeros(2, 64, kv_heads, width), persistent=False)
        self.register_buffer("values", torch.zeros(2, 64, kv_heads, width), persistent=False)

    def forward(self, x: Tensor, start: int, angles: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attention(self.norm_1(x), start, angles, mask)
        h = self.norm_2(x)
        return x + self.w2(F.silu(self.w1(h)) * self.w3(h))

    def attention(self, x: Tensor, start: int, angles: Tensor, mask: Tensor | None) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (w(x).view(batch, length, -1, DIM // HEADS) for w in (self.wq, self.wk, self.wv))
        q, k = turned(q, angles), turned(k, angles)
        self.keys[:batch, start : start + length] = k
        self.values[:batch, start : start + length] = v
        keys, values = (
            cache[:batch, : start + length].repeat_interleave(HEADS // self.kv_heads, dim=2).transpose(1, 2)
            for cache in (self.keys, self.values)
        )
        scores = q.transpose(1, 2) @ keys.transpose(2, 3) / math.sqrt(DIM // HEADS)
        scores = scores if mask is None else scores + mask
        out = scores.float().softmax(dim=-1).type_as(q) @ values
        return self.wo(out.transpose(1, 2).contiguous().view(batch, length, -1))


class LatentAttention(nn.Module):
    """DeepSeek-V3's inference code, absorbed: latents are cached, and projections folded into the query by einsum."""

    rank, nope, rope, value = 16, 8, 4, 8

    def __init__(self) -> None:
        super().__init__()
        self.wq = nn.Linear(DIM, HEADS * (self.nope + self.rope), bias=False)
        self.wkv_a, self.kv_norm = nn.Linear(DIM, self.rank + self.rope, bias=False), RMSNorm(self.rank)
        self.wkv_b = nn.Linear(self.rank, HEADS * (self.nope + self.value), bias=False)
        self.wo = nn.Linear(HEADS * self.value, DIM, bias=False)
        self.register_buffer("latents", torch.zeros(2, 64, self.rank), persistent=False)
        self.register_buffer("rotated", torch.zeros(2, 64, self.rope), persistent=False)

    def forward(self, x: Tensor, start: int) -> Tensor:
        batch, length, _ = x.shape
        end = start + length
        q = self.wq(x).view(batch, length, HEADS, self.nope + self.rope)
        q_nope, q_rope = q.split([self.nope, self.rope], dim=-1)
        latent, rotated = self.wkv_a(x).split([self.rank, self.rope], dim=-1)
        wkv_b = self.wkv_b.weight.view(HEADS, -1, self.rank)
        q_nope = torch.einsum("bshd,hdc->bshc", q_nope, wkv_b[:, : self.nope])
        self.latents[:batch, start:end] = self.kv_norm(latent)
        self.rotated[:batch, start:end] = rotated
        scores = torch.einsum("bshc,btc->bsht", q_nope, self.latents[:batch, :end])
        scores += torch.einsum("bshr,btr->bsht", q_rope, self.rotated[:batch, :end])
        weights = (scores * (self.nope + self.rope) ** -0.5).softmax(dim=-1, dtype=torch.float32).type_as(x)
        out = torch.einsum("bsht,btc->bshc", weights, self.latents[:batch, :end])
        out = torch.einsum("bshc,hdc->bshd", out, wkv_b[:, -self.value :])
        return self.wo(out.flatten(2))


class MinimalMamba(nn.Module):
    """mamba-minimal: the selective scan as a loop over time."""

    inner, state, rank = 32, 4, 2

    def __init__(self) -> None:
        super().__init__()
        self.in_proj = nn.Linear(DIM, 2 * self.inner, bias=False)
        self.conv1d = nn.Conv1d(self.inner, self.inner, 4, groups=self.inner, padding=3)
        self.x_proj = nn.Linear(self.inner, self.rank + 2 * self.state, bias=False)
        self.dt_proj, self.out_proj = nn.Linear(self.rank, self.inner), nn.Linear(self.inner, DIM, bias=False)
        self.a_log = nn.Parameter(torch.log(torch.arange(1, self.state + 1).float().repeat(self.inner, 1)))
        self.d = nn.Parameter(torch.ones(self.inner))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        u, gate = self.in_proj(x).split([self.inner, self.inner], dim=-1)
        u = F.silu(self.conv1d(u.transpose(1, 2))[..., :length].transpose(1, 2))
        delta, b, c = self.x_proj(u).split([self.rank, self.state, self.state], dim=-1)
        delta = F.softplus(self.dt_proj(delta))
        decay = torch.exp(torch.einsum("bld,dn->bldn", delta, -torch.exp(self.a_log.float())))
        entry = torch.einsum("bld,bln,bld->bldn", delta, b, u)
        h, ys = torch.zeros(batch, self.inner, self.state, device=x.device), []
        for t in range(length):
            h = decay[:, t] * h + entry[:, t]
            ys.append(torch.einsum("bdn,bn->bd", h, c[:, t]))
        return self.out_proj((torch.stack(ys, dim=1) + u * self.d) * F.silu(gate))


class TimeMix(nn.Module):
    """RWKV's token shift and channel mixing."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.ZeroPad2d((0, 0, 1, -1))
        self.mix = nn.Parameter(torch.rand(1, 1, DIM))
        self.key, self.value = nn.Linear(DIM, 4 * DIM, bias=False), nn.Linear(4 * DIM, DIM, bias=False)
        self.receptance = nn.Linear(DIM, DIM, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mixed = x * self.mix + self.shift(x) * (1 - self.mix)
        return torch.sigmoid(self.receptance(mixed)) * self.value(torch.relu(self.key(mixed)).square())


def _tokens(length: int = LENGTH) -> Tensor:
    return torch.randint(VOCABULARY, (2, length))


def _hidden() -> Tensor:
    return torch.randn(2, LENGTH, DIM)


def _training() -> Call:
    return Call(Nano(sdpa=False), (_tokens(), _tokens()))


MODELS: Mapping[str, Callable[[], Call]] = {
    "nanoGPT": lambda: Call(Nano(sdpa=False), (_tokens(),)),
    "nanoGPT with SDPA": lambda: Call(Nano(sdpa=True), (_tokens(),)),
    "nanoGPT with its loss": _training,
    "Meta's llama, prompt": lambda: Call(LlamaStyle(), (_tokens(), 0)),
    "Meta's llama, next token": lambda: Call(LlamaStyle(), (_tokens(1), LENGTH)),
    "latent attention (DeepSeek-V3), prompt": lambda: Call(LatentAttention(), (_hidden(), 0)),
    "latent attention (DeepSeek-V3), next token": lambda: Call(LatentAttention(), (_hidden()[:, :1], LENGTH)),
    "mamba-minimal": lambda: Call(MinimalMamba(), (_hidden(),)),
    "RWKV channel mixing": lambda: Call(TimeMix(), (_hidden(),)),
}
