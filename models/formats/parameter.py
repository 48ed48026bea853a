"""A parameter of a model, as a storage format is chosen for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["linear", "experts", "head", "embedding", "other"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """``path`` is its name in the model. ``columns`` are its inputs: the elements that one output is made of.

    ``role``: a "linear" layer's matrix; those of "experts", stacked or single; the output "head"; an "embedding",
    ``tied`` where it is the head as well; "other" is what no quantiser converts: norms, biases, convolutions.
    """

    path: str
    shape: tuple[int, ...]
    columns: int
    role: Role
    tied: bool = False

    @property
    def module(self) -> str:
        """The path of its module; its own where a module has several matrices."""
        return self.path.removesuffix(".weight")
