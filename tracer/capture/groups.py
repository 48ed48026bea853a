"""Which members of a list are alike, and whose code is known not to tell them apart otherwise.

Members are alike where they have the same class, parameter and buffer shapes and dtypes, and every plain attribute but
the position in the list, themselves and all their submodules. What code does with a position, with a counter that all
share or with what another layer left behind is not read off its source: it is known of transformers' own layers, which
are held to their full recordings, and of nobody else's.
"""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from fxmeter.tracer.capture.known import MODULE_INTERNALS, PLAIN, changed_classes, has_hooks, modules_of_known_code
from fxmeter.tracer.private import local_part, storage_key
from fxmeter.tracer.state.tree import derived, named_tensors, walk

_INDEX_NAME = re.compile(r"(idx|index|_id|^id|number|_num|layer)$")


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a list that is not the only one of its kind; ``kind`` is equal for those that are alike.

    ``steps``: by how much an index grows from one to the next, by the path in the member of the module that has it.
    """

    path: str
    module: nn.Module
    kind: Hashable
    steps: Mapping[str, int] = field(default_factory=dict)

    @property
    def in_list(self) -> str:
        """The path of the list."""
        return list_of(self.path)


def list_of(path: str) -> str:
    """The path of the list that a member is in."""
    return path.rpartition(".")[0]


def alike_members(model: nn.Module, *, trusted: bool) -> list[Member]:
    """The members of all lists that may stand for one another: with ``trusted`` whosever code they run."""
    if trusted:
        return derived(model, _trusted)
    members, lists = derived(model, _known), derived(model, _lists_of_classes)
    changed = {in_list for cls in changed_classes(frozenset(lists)) for in_list in lists[cls]}
    return [member for member in members if member.in_list not in changed] if changed else members


def _lists_of_classes(model: nn.Module) -> dict[type, set[str]]:
    """Class of a part of a member → paths of the lists that have one."""
    lists: dict[type, set[str]] = {}
    for member in derived(model, _known):
        for part in member.module.modules():
            lists.setdefault(type(part), set()).add(member.in_list)
    return lists


def on_rank(members: list[Member], rank: nn.Module) -> list[Member]:
    """``members`` of a whole model as they are on one rank of it, alike where they also hold equal parts.

    What a rank holds and exchanges goes by patterns that know no layer's number.
    """
    there = [Member(m.path, rank.get_submodule(m.path), m.kind, m.steps) for m in members]
    return told_apart(there, ((name, tuple(tensor.shape)) for name, tensor in named_tensors(rank, "_parameters")))


def stored_alike(model: nn.Module, members: list[Member], stored: Mapping[str, Hashable]) -> list[Member]:
    """``members``, alike where their parameters are also ``stored`` alike; the last answer is kept with the model."""
    last = derived(model, _last)
    if not last or last[0] is not members or last[1] is not stored:
        last[:] = members, stored, told_apart(members, stored.items())
    told: list[Member] = last[2]
    return told


def _last(model: nn.Module) -> list[Any]:
    return []


def told_apart(members: list[Member], facts: Iterable[tuple[str, Hashable]]) -> list[Member]:
    """``members``, alike where ``facts``, each of the parameter at a path, are the same at the same places in them."""
    held: dict[str, list[Hashable]] = {member.path: [] for member in members}
    for name, fact in facts:
        steps = name.split(".")
        for length in range(1, len(steps)):
            if (path := ".".join(steps[:length])) in held:
                held[path].append((tuple(steps[length:]), fact))
    kinds: dict[Hashable, int] = {}  # numbers, as kinds are looked up at every call of a member
    numbers = [kinds.setdefault((m.kind, tuple(held[m.path])), len(kinds)) for m in members]
    return [Member(m.path, m.module, kind, m.steps) for m, kind in zip(members, numbers, strict=True)]


def _trusted(model: nn.Module) -> list[Member]:
    return _alike(model, lambda path, members: all(member is not None for member in members))


def _known(model: nn.Module) -> list[Member]:
    modules = dict(walk(model))
    code = derived(model, modules_of_known_code)

    def known(path: str, members: nn.ModuleList) -> bool:
        owner = next((m for m in _around(path, modules) if not isinstance(m, _CONTAINERS)), None)
        return (owner is None or id(owner) in code) and all(
            member is not None and all(id(part) in code and not has_hooks(part) for part in member.modules())
            for member in members
        )

    return _alike(model, known)


_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)


def _around(path: str, modules: dict[str, nn.Module]) -> Iterator[nn.Module]:
    """The modules around a list, the innermost first."""
    while path:
        path = path.rpartition(".")[0]
        yield modules[path]


def _alike(model: nn.Module, may: Callable[[str, nn.ModuleList], bool]) -> list[Member]:
    found: list[Member] = []
    kinds = 0
    for list_path, module in walk(model):
        if not isinstance(module, nn.ModuleList) or len(module) < 2 or _is_small(list_path, module):
            continue
        if may(list_path, module):
            alike: dict[Any, list[tuple[str, nn.Module]]] = {}
            sharing = _sharing(module)
            keys, steps = _signatures(module)
            for index, (member, key) in enumerate(zip(module, keys, strict=True)):
                if index in sharing:
                    continue
                path = f"{list_path}.{index}" if list_path else str(index)
                alike.setdefault(key, []).append((path, member))
            for members in alike.values():
                if len(members) > 1:
                    found += [Member(path, member, kinds, steps) for path, member in members]
                    kinds += 1
    return found


_FEW = 8
"""Fewer leaves than these are run sooner than told apart."""


def _is_small(path: str, members: nn.ModuleList) -> bool:
    """Whether a list in a member of another one has a few leaves, such as the two norms of a layer: there is next to
    nothing to save, and a whole pass to lose where they turn out to be no layers after one another."""
    inside = any(name.isdigit() for name in path.split("."))
    return inside and len(members) < _FEW and all(member is None or not member._modules for member in members)


def _sharing(members: nn.ModuleList) -> set[int]:
    """Members that have a weight in common with another one, or its storage: it is there once, not once for each."""
    owners: dict[int, set[int]] = {}
    for index, member in enumerate(members):
        for tensor in (*member.parameters(), *member.buffers()):
            owners.setdefault(storage_key(local_part(tensor)), set()).add(index)
    return {index for indices in owners.values() if len(indices) > 1 for index in indices}


def _signatures(members: nn.ModuleList) -> tuple[list[Any], Mapping[str, int]]:
    """One hashable key per member; equal keys mean that the members cannot be told apart but by position. And by how
    much an index grows from one member to the next, by the path of the module in the member that has it."""
    described = [_describe(member) for member in members]
    values: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for position, (_, indices) in enumerate(described):
        for name, value in indices.items():
            values.setdefault(name, []).append((position, value))
    steps = {name: step for name, places in values.items() if (step := _step(places)) is not None}
    of_module: dict[str, set[int]] = {}
    for (path, _), step in steps.items():
        of_module.setdefault(path, set()).add(step)
    steps = {name: step for name, step in steps.items() if len(of_module[name[0]]) == 1}
    keys = [
        (fixed, tuple((name, None if name in steps else value) for name, value in indices.items()))
        for fixed, indices in described
    ]
    return keys, {path: step for (path, _), step in steps.items()}


def _step(places: list[tuple[int, int]]) -> int | None:
    """By how much values grow with the position, if they do so evenly: two that are apart by more show no rule."""
    (first, low), (last, high) = places[0], places[-1]
    step, rest = divmod(high - low, last - first) if last > first else (1, 0)
    even = not rest and all(value == low + step * (position - first) for position, value in places)
    return step if even and (step == 1 or (step > 1 and len(places) > 2)) else None


def _describe(member: nn.Module) -> tuple[Any, dict[Any, int]]:
    """A member's class, tensors and plain attributes, and apart from them the integers that may be its index."""
    fixed: list[Any] = []
    indices: dict[Any, int] = {}
    for path, module in member.named_modules():
        tensors = [
            (name, None if t is None else (tuple(t.shape), t.dtype, t.requires_grad))
            for store in (module._parameters, module._buffers)
            for name, t in store.items()
        ]
        attributes = []
        for name, value in module.__dict__.items():
            if name.startswith("_") and name in MODULE_INTERNALS:
                continue
            if type(value) is int and _INDEX_NAME.search(name):
                indices[path, name] = value
            else:
                attributes.append((name, _plain(value)))
        fixed.append((path, type(module), tuple(tensors), tuple(attributes)))
    return tuple(fixed), indices


def _plain(value: Any) -> Any:
    kind = type(value)  # not isinstance, which asks objects that answer slowly (a config) for their class
    if issubclass(kind, PLAIN):
        return value
    if issubclass(kind, (tuple, list)):
        return (kind, *map(_plain, value))
    if issubclass(kind, dict):
        return (dict, *((_plain(k), _plain(v)) for k, v in value.items()))
    if issubclass(kind, Tensor):
        return (tuple(value.shape), value.dtype)
    if kind is functools.partial:
        return (functools.partial, _plain(value.func), _plain(value.args), _plain(value.keywords))
    if kind is types.MethodType:
        return (types.MethodType, value.__func__)
    return id(value)
