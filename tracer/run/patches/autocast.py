"""``torch.autocast`` around code on meta: torch knows none for that device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

_DEVICES = ("cpu", "cuda", "xpu", "mps")


@contextmanager
def autocast_without_effect() -> Iterator[dict[str, None]]:
    """Inside the block ``torch.autocast`` changes nothing, whichever device it names, nor does one around the block;
    that it would is collected."""
    kind, seen = torch.autocast, dict[str, None]()
    original = kind.__init__

    def collect(dtype: torch.dtype | None) -> None:
        named = f" to {str(dtype).removeprefix('torch.')}" if dtype is not None else ""
        seen[f"torch.autocast{named} changes nothing: each op computes in the dtype of its tensors"] = None

    def init(
        self: torch.autocast, device_type: str, dtype: Any = None, enabled: bool = True, *rest: Any, **more: Any
    ) -> None:
        original(self, "cpu" if device_type == "meta" else device_type, dtype, enabled, *rest, **more)
        if enabled:
            collect(dtype)

    around = [device for device in _DEVICES if torch.is_autocast_enabled(device)]
    kind.__init__ = init  # type: ignore[method-assign]
    try:
        with ExitStack() as stack:
            for device in around:
                collect(torch.get_autocast_dtype(device))
                stack.enter_context(torch.autocast(device, enabled=False))
            yield seen
    finally:
        kind.__init__ = original  # type: ignore[method-assign]
