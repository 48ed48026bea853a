"""Mixtures of experts as public single-file implementations write them, routing in Python by what a router chose."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from validation.foreign.call import Call

EXPERTS, TOP_K, DIM, HIDDEN = 8, 2, 32, 64


class Expert(nn.Module):
    """SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w3 = nn.Linear(DIM, HIDDEN, bias=False), nn.Linear(DIM, HIDDEN, bias=False)
        self.w2 = nn.Linear(HIDDEN, DIM, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Mixture(nn.Module):
    """A router and its experts; how they meet is what the classes below differ in. x is [T, D]."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(DIM, EXPERTS, bias=False)
        self.experts = nn.ModuleList(Expert() for _ in range(EXPERTS))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.route(tokens.flatten(0, 1)).view_as(tokens)

    def route(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class CountedByBincount(Mixture):
    """DeepSeek's inference code: which experts have tokens is asked first, their tokens then looked up."""

    def route(self, x: Tensor) -> Tensor:
        scores = self.router(x).softmax(-1, dtype=torch.float32)
        indices = scores.topk(TOP_K, dim=-1)[1]
        weights = scores.gather(1, indices)
        y = torch.zeros_like(x)
        counts = torch.bincount(indices.flatten(), minlength=EXPERTS).tolist()
        for i, expert in enumerate(self.experts):
            if counts[i]:
                idx, top = torch.where(indices == i)
                y[idx] += expert(x[idx]) * weights[idx, top, None].type_as(x)
        return y


class SortedByExpert(Mixture):
    """minimind and DeepSeek's modelling code: tokens sorted by expert, counts through numpy."""

    def route(self, x: Tensor) -> Tensor:
        weights, indices = self.router(x).softmax(-1).topk(TOP_K, dim=-1, sorted=False)
        order = indices.flatten().argsort()
        ends = indices.flatten().bincount().cpu().numpy().cumsum(0)
        cache = torch.zeros_like(x)
        for i, end in enumerate(ends):
            start = 0 if i == 0 else ends[i - 1]
            if start == end:
                continue
            picked = order[start:end]
            rows = picked // TOP_K
            out = self.experts[i](x[rows]) * weights.flatten()[picked, None]
            cache.scatter_add_(0, rows.view(-1, 1).repeat(1, x.shape[-1]), out)
        return cache


class MaskedByOneHot(Mixture):
    """Mixtral in Hugging Face's first version: a one-hot mask, and where it holds."""

    def route(self, x: Tensor) -> Tensor:
        weights, indices = torch.topk(self.router(x).softmax(dim=1, dtype=torch.float), TOP_K, dim=-1)
        weights = (weights / weights.sum(dim=-1, keepdim=True)).to(x.dtype)
        out = torch.zeros_like(x)
        mask = F.one_hot(indices, num_classes=EXPERTS).permute(2, 1, 0)
        for i in torch.greater(mask.sum(dim=(-1, -2)), 0).nonzero():
            idx, top = torch.where(mask[i].squeeze(0))
            out.index_add_(0, top, self.experts[int(i)](x[None, top].reshape(-1, DIM)) * weights[top, idx, None])
        return out


class BooleanIndex(Mixture):
    """A mask for each expert, and an index by it."""

    def route(self, x: Tensor) -> Tensor:
        weights, indices = self.router(x).topk(TOP_K)
        weights = weights.softmax(-1)
        out = torch.zeros_like(x)
        for i in indices.unique().tolist():
            mask = (indices == i).any(-1)
            if mask.any():
                out[mask] += self.experts[i](x[mask]) * (weights * (indices == i)).sum(-1)[mask, None]
        return out


class Switch(Mixture):
    """Switch Transformer: one expert each, the largest."""

    def route(self, x: Tensor) -> Tensor:
        gate, chosen = self.router(x).softmax(-1).max(dim=-1)
        out = torch.empty_like(x)
        for i, expert in enumerate(self.experts):
            rows = (chosen == i).nonzero(as_tuple=True)[0]
            out[rows] = expert(x[rows])
        return out * gate[:, None]


class Split(Mixture):
    """Tokens in the order of their experts, cut by the counts."""

    def route(self, x: Tensor) -> Tensor:
        chosen = self.router(x).argmax(-1)
        order = chosen.sort().indices
        sizes = torch.bincount(chosen, minlength=EXPERTS)
        parts = x[order].split(sizes.tolist())
        joined = torch.cat([expert(part) for expert, part in zip(self.experts, parts, strict=True)])
        return torch.empty_like(x).index_copy(0, order, joined)


class ExpertChoice(Mixture):
    """Experts choose tokens: the shape is fixed."""

    def route(self, x: Tensor) -> Tensor:
        capacity = x.shape[0] * TOP_K // EXPERTS
        gate, chosen = self.router(x).softmax(-1).topk(capacity, dim=0)
        out = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            out.index_add_(0, chosen[:, i], expert(x[chosen[:, i]]) * gate[:, i, None])
        return out


def _call(kind: type[Mixture], tokens: int = 12) -> Callable[[], Call]:
    return lambda: Call(kind(), (torch.randn(2, tokens, DIM),))


MODELS: Mapping[str, Callable[[], Call]] = {
    "experts counted by bincount (DeepSeek)": _call(CountedByBincount),
    "experts counted by bincount, 13 tokens": _call(CountedByBincount, 13),
    "tokens sorted by expert, numpy (minimind)": _call(SortedByExpert),
    "experts by a one-hot mask (Mixtral)": _call(MaskedByOneHot),
    "experts by a boolean index, unique": _call(BooleanIndex),
    "one expert each (Switch)": _call(Switch),
    "tokens split by counts": _call(Split),
    "experts choose tokens": _call(ExpertChoice),
}
