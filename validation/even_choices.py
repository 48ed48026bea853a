"""The routing that fxmeter assumes, on real tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fxmeter.tracer.capture.choices import CHOICES, even_positions


class EvenChoices(TorchDispatchMode):
    """Inside the block a choice among floating-point scores picks every position as often as any other.

    What it picks instead of what the scores say is made once: a second run allocates nothing for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[object, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func in CHOICES and args[0].is_floating_point():
            picked = out if isinstance(out, Tensor) else out[-1]
            key = func, args[0].shape, picked.shape, str(args[1:]), str(kwargs)
            if key not in self._made:
                self._made[key] = even_positions(func, args, kwargs, args[0].shape, picked.shape)
            picked.copy_(self._made[key])
        return out
