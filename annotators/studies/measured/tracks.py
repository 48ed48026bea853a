"""A measured pass and its prediction as slices of time, side by side: modules around the ops that ran in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fxmeter.annotators.studies.measured.comparison import Comparison


@dataclass(frozen=True, slots=True)
class Slice:
    """An op, or a module's call around some, from ``began`` to ``ended`` in ns since the pass began; ``depth`` is how
    many slices are around it, ``module`` the path of the module that it is of."""

    name: str
    module: str
    began: int
    ended: int
    depth: int
    is_module: bool


def measured_track(found: Comparison) -> list[Slice]:
    """The first pass of the trace, as it ran."""
    return _nested([(op.module, op.name, op.began, op.ended) for op in found.first_pass])


def predicted_track(found: Comparison) -> list[Slice]:
    """What was recorded, one op after another, each as long as its estimate; nothing without a device."""
    ops = sorted([*found.ops, *found.missing], key=lambda op: op.order)
    placed, now = [], 0.0
    for op in ops:
        if op.part.estimate_s:
            ended = now + op.part.estimate_s * 1e9
            placed.append((op.module, op.op, round(now), round(ended)))
            now = ended
    return _nested(placed)


def _nested(ops: Sequence[tuple[str, str, int, int]]) -> list[Slice]:
    """Ops in order, and around each run of those in a module a slice of that module."""
    slices: list[Slice] = []
    open_modules: list[tuple[str, int]] = []
    last = 0

    def close(kept: int) -> None:
        while len(open_modules) > kept:
            path, began = open_modules.pop()
            slices.append(Slice(path, path, began, last, len(open_modules), True))

    for module, name, began, ended in ops:
        around = list(_around(module))
        kept = 0
        while kept < min(len(around), len(open_modules)) and open_modules[kept][0] == around[kept]:
            kept += 1
        close(kept)
        open_modules += [(path, began) for path in around[kept:]]
        slices.append(Slice(name, module, began, ended, len(around), False))
        last = ended
    close(0)
    return sorted(slices, key=lambda one: (one.began, one.depth))


def _around(module: str) -> Iterable[str]:
    """The paths of a module and of all those around it but the root, the outermost first; lists call nothing."""
    parts = module.split(".") if module else []
    ends = (end for end in range(1, len(parts) + 1) if end == len(parts) or not parts[end].isdigit())
    return [".".join(parts[:end]) for end in ends]
