"""Types of what the code of models passes around, which may be anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Args: TypeAlias = tuple[Any, ...]
"""The arguments of a call: tensors, numbers, lists of them."""

Function: TypeAlias = Callable[..., Any]
"""A function or method of a model, of transformers or of torch."""

AnyCache: TypeAlias = Any
"""A cache, of whatever class a model keeps its own in."""
