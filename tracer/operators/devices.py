"""Running an op of code that forgets devices: a mask in a plain attribute, ``torch.arange(8)`` beside tensors on meta.

On a real device such code works where everything is on the CPU, which is where people try it. torch itself refuses some
of these mixtures and computes others on memory that is not there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fxmeter.models.names import Kwargs
from fxmeter.tracer.graph.values import Args, Function
from fxmeter.tracer.private import pytree

LARGEST_BYTES = 2**26
"""Of a tensor that is really filled. A longer one, such as a mask over a long context, has a shape and no values."""
_META = torch.device("meta")


def run_together(run: Function, args: Args, kwargs: Kwargs) -> Any:
    """``run(*args, **kwargs)`` where tensors, or the device asked for, are not all on meta.

    With a tensor on meta among them everything is taken to be there. Otherwise the op runs where its tensors are, so
    that its values are known, unless it makes something large.
    """
    if any(leaf.is_meta for leaf in _tensors((args, kwargs))):
        return _on_meta(run, args, kwargs)
    try:
        out = _on_meta(run, args, kwargs)
    except (NotImplementedError, RuntimeError):  # an op that needs values, which are here
        return run(*args, **kwargs)
    large = any(leaf.untyped_storage().nbytes() > LARGEST_BYTES for leaf in _tensors(out))
    return out if large else run(*args, **kwargs)


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def _on_meta(run: Function, args: Args, kwargs: Kwargs) -> Any:
    """The op on stand-ins; where it returns one, as an op in place does, it returns the tensor itself."""
    stands_for: dict[int, tuple[Tensor, Tensor]] = {}

    def stand_in(value: Any) -> Any:
        if isinstance(value, torch.device):
            return _META
        if not isinstance(value, Tensor) or value.is_meta:
            return value
        shadow = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=_META)
        stands_for[id(shadow)] = shadow, value
        return shadow

    moved = pytree.tree_map(stand_in, (args, kwargs))
    out = run(*moved[0], **moved[1])
    return pytree.tree_map(lambda value: stands_for[id(value)][1] if id(value) in stands_for else value, out)
