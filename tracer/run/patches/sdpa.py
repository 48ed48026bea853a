"""torch's own ``scaled_dot_product_attention`` as one fused core, where meta would take it apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from fxmeter.models.names import Kwargs
from fxmeter.tracer.graph.values import Args, Function
from fxmeter.tracer.operators.ops import flash_attention
from fxmeter.tracer.private import in_function_transform


class FuseSdpa(TorchFunctionMode):
    """Turns ``scaled_dot_product_attention`` into the fused core.

    What the core does not do is left to torch, which runs it op by op: gradients, dropout, a mask beside the causal
    one, values for more sequences than there are scores, and inputs that do not fit, about which it has its own words.
    """

    def __torch_function__(self, func: Function, types: object, args: Args = (), kwargs: Kwargs | None = None) -> Any:
        kwargs = kwargs or {}
        if func is scaled_dot_product_attention:
            out = _fused(*args, **kwargs)
            if out is not None:
                return out
        return func(*args, **kwargs)


def needs_gradients(*tensors: Tensor) -> bool:
    """Whether a gradient, or another transform of ``torch.func``, goes through an op on ``tensors``."""
    return (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)) or in_function_transform()


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """[..., H, S_q, D] by one core, None where it takes torch's own code. Leading sizes are broadcast as torch does."""
    if dropout_p > 0 or (attn_mask is not None and is_causal) or needs_gradients(query, key, value):
        return None
    q, k, v = (x[(None,) * (4 - x.dim())] if x.dim() < 4 else x for x in (query, key, value))
    try:
        lead, of_scores = (torch.broadcast_shapes(*(x.shape[:-3] for x in some)) for some in ((q, k, v), (q, k)))
        q, k, v = _with_heads(*(_expanded(x, (*lead, *x.shape[-3:])) for x in (q, k, v)), grouped=enable_gqa)
        mask = None if attn_mask is None else _mask(attn_mask, (*lead, q.shape[-3], q.shape[-2], k.shape[-2]))
    except RuntimeError:
        return None
    if (
        lead != of_scores
        or q.shape[-1] != k.shape[-1]
        or k.shape[-2] != v.shape[-2]
        or not q.dtype == k.dtype == v.dtype
    ):
        return None
    from_start = is_causal and q.shape[-2] != k.shape[-2]  # where they are equal both alignments are one
    q, k, v = (x.flatten(0, -4) for x in (q, k, v))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out = flash_attention(q, k, v, mask, None, float(scale), is_causal, None, None, from_start).transpose(1, 2)
    rank = max(x.dim() for x in (query, key, value))
    return out if rank == 4 else out.reshape(*lead, *out.shape[1:]) if rank > 4 else out.reshape(out.shape[4 - rank :])


def _expanded(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x if x.shape == shape else x.expand(shape)


def _with_heads(q: Tensor, k: Tensor, v: Tensor, *, grouped: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value with heads that the core takes: as many keys as values, each for as many queries."""
    heads = [x.shape[-3] for x in (q, k, v)]
    if grouped:
        if heads[1] != heads[2] or heads[0] % heads[1]:
            raise RuntimeError("uneven groups of heads")
        return q, k, v
    (most,) = torch.broadcast_shapes(*((h,) for h in heads))
    wide_q, wide_k, wide_v = (_expanded(x, (*x.shape[:-3], most, *x.shape[-2:])) for x in (q, k, v))
    return (wide_q, k, v) if heads[1] == heads[2] else (wide_q, wide_k, wide_v)


def _mask(mask: Tensor, scores: tuple[int, ...]) -> Tensor:
    """A mask over ``scores`` [..., H, S_q, S_kv], its leading sizes as one where there are several."""
    mask.expand(scores)
    if len(scores) <= 4:
        return mask
    mask = mask.reshape((1,) * (len(scores) - mask.dim()) + mask.shape)
    return mask.expand(*scores[:-3], *mask.shape[-3:]).flatten(0, -4)
