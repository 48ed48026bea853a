"""A module and what it is called with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True, slots=True)
class Call:
    """``module(*args, **kwargs)``, in training mode or not."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    training: bool = False

    def __call__(self) -> Any:
        """Run it."""
        return self.module(*self.args, **self.kwargs)
