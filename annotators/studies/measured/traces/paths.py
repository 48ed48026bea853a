"""Which module a range of a trace is of.

:func:`fxmeter.measured` names ranges by the modules' paths; so may anybody with ``record_function``. What the profiler
itself writes with stacks ("nn.Module: LlamaAttention_3") says a class and which instance of it: its path is found by
laying the classes that a module calls, in order, over those that the recorded module calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fxmeter.annotators.sheets.tables import CONTAINERS, ModuleCost
from fxmeter.annotators.studies.measured.align import align
from fxmeter.annotators.studies.measured.traces.calls import Call
from fxmeter.annotators.studies.measured.traces.reading import MODULE, OWN


class Paths:
    """Paths of the ranges of a trace, found as the trees are walked from the root down."""

    def __init__(self, modules: Mapping[str, ModuleCost], order: Sequence[str]) -> None:
        """``modules`` are the recorded ones, ``order`` the paths of ops' modules in the order in which they run."""
        self._classes = {path: module.class_name for path, module in modules.items()}
        self._called: dict[str, list[str]] = {}
        for path in dict.fromkeys(order):
            self._add(path)
        self._found: dict[str, str] = {}

    def _add(self, path: str) -> None:
        """Note ``path`` as called by the innermost module around it that calls, and those around it likewise."""
        while path:
            around = path.rpartition(".")[0]
            while around and self._classes.get(around, "") in CONTAINERS:
                around = around.rpartition(".")[0]
            called = self._called.setdefault(around, [])
            if path not in called:
                called.append(path)
            path = around

    def is_root(self, name: str) -> bool:
        """Whether a name is that of a call of the whole model."""
        if name.startswith(MODULE):
            return _class_of(name) == self._classes[""]
        return name.startswith(OWN) and not _path_in(name)

    def path_of(self, call: Call, around: str | None) -> str | None:
        """The path of a range inside of the module ``around``; ``around`` itself where it is none of a module."""
        if self.is_root(call.name):
            return ""
        if call.name.startswith(MODULE):
            return self._found.get(call.name, around)
        path = _path_in(call.name)
        return path if path in self._classes else around

    def enter(self, call: Call, path: str) -> None:
        """Find the paths of the modules that ``call``, of the module at ``path``, calls."""
        calls = [inner for inner in _ranges(call) if inner.name.startswith(MODULE)]
        if calls:
            recorded = self._called.get(path, [])
            classes = [_class_of(inner.name) for inner in calls]
            for place, index in align([self._classes[path] for path in recorded], classes):
                self._found.setdefault(calls[index].name, recorded[place])


def _ranges(call: Call) -> list[Call]:
    """The ranges directly inside of a call, those in ops too."""
    found = []
    for inner in call.calls:
        found.extend([inner] if inner.is_range and inner.name.startswith(MODULE) else _ranges(inner))
    return found


def _path_in(name: str) -> str:
    return name.removeprefix(OWN).partition(" ")[0]


def _class_of(name: str) -> str:
    return name.removeprefix(MODULE).rpartition("_")[0]
