"""Choosing which keys a query attends to, as one operator, where a model's code goes through the queries one by one.

Sparse attention first scores blocks of keys and keeps the best of them. Written as a Python loop over the queries, its
graph would grow with the prompt.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from fxmeter.tracer.graph.values import AnyCache
from fxmeter.tracer.operators.define import operator


@operator()
def block_index(
    query: Tensor,
    keys: Tensor,
    visible: Tensor,
    cos: Tensor,
    sin: Tensor,
    weight: Tensor,
    eps: float,
    block: int,
    most: int,
) -> Tensor:
    """For each query the keys of the ``most`` blocks with the highest score, and those of its unfinished block.

    A block's key is the mean of ``block`` visible keys, normalised and rotated; its score Σ_heads relu(query · key)/√D.
    query [B, S_q, H, D], keys [B, S_kv, D], visible [B, 1, S_q, S_kv], cos and sin [B, S_kv, R] → indices
    [B, S_q, block·most + block − 1] int32, −1 where there are fewer.
    """
    batch, length, _, width = query.shape
    shape = (batch, length, block * most + block - 1)
    picked = torch.full(shape, -1, dtype=torch.int32, device="cpu" if not query.is_meta else "meta")
    if query.is_meta:
        return picked
    for b, i in ((b, i) for b in range(batch) for i in range(length)):
        seen = visible[b, 0, i].nonzero().flatten()
        whole = len(seen) // block
        blocks, tail = seen[: whole * block].view(whole, block), seen[whole * block :]
        means = keys[b][blocks].float().mean(dim=1)
        means = means * torch.rsqrt(means.pow(2).mean(-1, keepdim=True) + eps) * weight
        rotary = cos.shape[-1]
        head, rest = means[:, :rotary], means[:, rotary:]
        turned = torch.cat([-head[:, rotary // 2 :], head[:, : rotary // 2]], dim=-1)
        means = torch.cat([head * cos[b][blocks[:, 0]] + turned * sin[b][blocks[:, 0]], rest], dim=-1)
        scores = torch.relu(query[b, i].float() @ means.T).sum(0) / width**0.5
        best = scores.topk(min(most, whole)).indices
        chosen = torch.cat([blocks[best].flatten(), tail])
        picked[b, i, : len(chosen)] = chosen.to(torch.int32)
    return picked.to(query.device)


def qsa_indexer_forward(
    self: Any, hidden_states: Tensor, position_embeddings: Any, attention_mask: Tensor, past_key_values: AnyCache
) -> Tensor:
    """The mask of the keys that :func:`block_index` chooses, [B, 1, S_q, S_kv]; the arguments are transformers'."""
    batch, length, _ = hidden_states.shape
    cos, sin = position_embeddings
    widths = [self.index_n_heads * self.index_head_dim, self.index_kv_heads * self.index_head_dim]
    query, keys = torch.split(self.index_qk_proj(hidden_states), widths, dim=-1)
    query = self.q_layernorm(query.reshape(batch, length, -1, self.index_head_dim))
    keys = keys.reshape(batch, length, -1, self.index_head_dim).squeeze(2)
    rotate = sys.modules[type(self).__module__].apply_rotary_pos_emb
    query = rotate(query, cos=cos[:, -length:], sin=sin[:, -length:], unsqueeze_dim=2)
    if past_key_values is not None:
        keys = past_key_values.update_indexer(keys, self.layer_idx)
    visible = attention_mask if attention_mask.dtype == torch.bool else attention_mask == 0
    norm = self.k_layernorm
    weight = 1.0 + norm.weight.float()
    picked = block_index(query, keys, visible, cos, sin, weight, norm.eps, self.compress_ratio, self.block_topk)
    kv_length = attention_mask.shape[-1]
    chosen = torch.zeros((batch, length, kv_length + 1), device=attention_mask.device, dtype=torch.bool)
    places = torch.where(picked >= 0, picked, kv_length)
    return chosen.scatter(-1, places, True)[..., :kv_length].unsqueeze(1)
