"""In a checkout ``models``, ``tracer`` and ``annotators`` are other names of ``fxmeter.models`` and so on.

The folders lie at the top of the repository, so ``from models import prefill`` finds them there. It must give the very
objects of ``fxmeter.models``, or a class would exist twice. Nothing of this takes part in what is installed.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType


def stand_for(name: str) -> None:
    """Make ``name``, a folder imported at the top level, and everything below it mean ``fxmeter.name``."""
    sys.modules[name] = importlib.import_module(f"fxmeter.{name}")
    sys.meta_path.insert(0, _Below(name))


class _Below(Loader):
    """Finds ``name.x`` as ``fxmeter.name.x``; it is its own loader."""

    def __init__(self, name: str) -> None:
        self._prefix = f"{name}."
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.startswith(self._prefix) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(f"fxmeter.{spec.name}")
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It ran under its own name; take back the spec that importlib has put on it."""
        assert module.__spec__ is not None
        module.__spec__ = self._specs.pop(module.__spec__.name)
