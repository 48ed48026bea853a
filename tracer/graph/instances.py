"""Calls that a folded recording holds once: which others each stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fxmeter.tracer.graph.spec import Storage


@dataclass(frozen=True, slots=True)
class Skip:
    """A call that was not run: when it would have begun, and the storages of the tensors it was given."""

    moment: int
    given: tuple[Storage | None, ...]


@dataclass(slots=True, eq=False)
class Instance:
    """One recorded call of a member, and the paths of the members whose calls it stands for (itself first).

    ``began`` and ``ended`` are its moments, ``given`` the storages of its tensors; ``returned`` says which of them a
    skipped call hands back, and the storage that the recorded one returned there. ``skips`` are the other paths' calls.
    ``steps``: by how much the cache slots of a module in the member (by its path there) grow from member to member.
    """

    paths: list[str]
    outer: tuple[Instance, ...]
    passthrough: Callable[[list[Tensor]], Any] | None = field(default=None, repr=False)
    began: int = 0
    ended: int = 0
    given: tuple[Storage | None, ...] = field(default=(), repr=False)
    returned: tuple[tuple[int, Storage | None], ...] = field(default=(), repr=False)
    skips: list[Skip] = field(default_factory=list, repr=False)
    steps: Mapping[str, int] = field(default_factory=dict, repr=False)

    @property
    def times(self) -> int:
        """Identical calls in the whole pass, those of the enclosing instances included."""
        times = len(self.paths)
        for instance in self.outer:
            times *= len(instance.paths)
        return times

    def step_of(self, module: str) -> int:
        """By how much the cache slots that the module at a path uses grow from one of the members to the next."""
        path = self.paths[0]
        inside = module.removeprefix(path).lstrip(".") if module.startswith(path) else ""
        while inside and inside not in self.steps:
            inside = inside.rpartition(".")[0]
        return self.steps.get(inside, 1)
