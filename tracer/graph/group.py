"""The ranks that exchange something, as plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Group:
    """Who takes part in a collective. It stands in the recorded graph where torch has a process group."""

    ranks: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many take part."""
        return len(self.ranks)

    def __repr__(self) -> str:
        return f"Group{self.ranks}"
