"""``torch.autocast`` around code on meta: torch knows none for that device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def autocast_without_effect() -> Iterator[dict[str, None]]:
    """Inside the block ``torch.autocast`` changes nothing, whichever device it names; that it would is collected."""
    kind, seen = torch.autocast, dict[str, None]()
    original = kind.__init__

    def init(
        self: torch.autocast, device_type: str, dtype: Any = None, enabled: bool = True, *rest: Any, **more: Any
    ) -> None:
        original(self, "cpu" if device_type == "meta" else device_type, dtype, enabled, *rest, **more)
        if enabled:
            named = f" to {str(dtype).removeprefix('torch.')}" if dtype is not None else ""
            seen[f"torch.autocast{named} changes nothing: each op computes in the dtype of its tensors"] = None

    kind.__init__ = init  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        kind.__init__ = original  # type: ignore[method-assign]
