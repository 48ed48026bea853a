"""Running identical layers once.

The members of every ``ModuleList`` are grouped by what they are: class, parameter and buffer shapes and dtypes, and
every plain attribute but the position in the list, for the member and all its submodules. The first of a group to be
called with a given kind of inputs runs and is recorded; a later one, called with inputs that cannot be told apart
from those, does not run: its hidden states pass through untouched, and the one that ran counts once more. A member
that returns something else than its hidden states is never skipped. Where members run several times in a pass, as a
tower does on two pictures, the first calls of all are grouped among themselves, the second ones, and so on.

What passes through stands for another tensor from then on. Nobody may use it, or even hold it, as what it was before:
then there are two tensors where the folded recording has one, and the pass is recorded in full.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import re
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fxmeter.models.errors import FxmeterError
from fxmeter.tracer.graph.instances import Instance, Skip
from fxmeter.tracer.graph.spec import Role, Storage
from fxmeter.tracer.state.tree import derived, walk

_INDEX_NAME = re.compile(r"(idx|index|_id|^id|number|_num|layer)$")
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, type)


class Observer(Protocol):
    """What folding asks of whoever records: the instances now running, and what is known of a tensor.

    ``hand_back`` makes the tensor that is a skipped call's result, in the place of one that the call was given.
    """

    instances: tuple[Instance, ...]

    def role_of(self, tensor: Tensor) -> Role: ...

    def storage_of(self, tensor: Tensor) -> Storage | None: ...

    def hand_back(self, tensor: Tensor) -> Tensor: ...

    def moment(self) -> int: ...


class NoObserver:
    """Stands in when nothing is recorded."""

    def __init__(self) -> None:
        self.instances: tuple[Instance, ...] = ()

    def role_of(self, tensor: Tensor) -> Role:
        return "activation"

    def storage_of(self, tensor: Tensor) -> Storage | None:
        return None

    def hand_back(self, tensor: Tensor) -> Tensor:
        return tensor

    def moment(self) -> int:
        return 0


class CannotFoldError(FxmeterError):
    """One recorded call cannot stand for the others: record in full.

    Members that run several times are alike the first time and not the second; or what a skipped member was given, and
    hands back in place of a new tensor, is used or held on to in its own right, where the full recording has two.
    """


class Folding:
    """Which modules of a model are identical. Plain bookkeeping: the model itself is not changed."""

    def __init__(self, model: nn.Module, *, trusted: bool = False) -> None:
        self._groups = derived(model, _trusted_groups if trusted else _groups)

    @contextmanager
    def active(self, observer: Observer) -> Iterator[None]:
        """Inside the block identical members run once; the model is as before afterwards."""
        calls = _Calls()
        patched: list[nn.Module] = []
        try:
            for path, member, kind in self._groups:
                if "forward" not in member.__dict__:
                    patched.append(member)
                    member.__dict__["forward"] = _run_once(path, member.forward, kind, calls, observer)
            yield
            _refuse_other_groups(calls.instances)
        finally:
            for member in patched:
                del member.__dict__["forward"]


@dataclass(slots=True)
class _Calls:
    """The calls of members in one pass: the instance that ran for each kind of call, and how often each path ran."""

    ran: dict[Any, Instance] = field(default_factory=dict)
    instances: list[Instance] = field(default_factory=list)
    times: dict[str, int] = field(default_factory=dict)


def _refuse_other_groups(instances: Iterable[Instance]) -> None:
    """A member stands for the same others whenever it runs: how many there are of it depends on its path alone."""
    groups: dict[str, list[str]] = {}
    for instance in instances:
        for path in instance.paths:
            if groups.setdefault(path, instance.paths) != instance.paths:
                raise CannotFoldError(f"{path} is not always like the same others")


def _trusted_groups(model: nn.Module) -> list[tuple[str, nn.Module, int]]:
    """(path, member, kind) of every member of a list that is not the only one of its kind."""
    return _alike_members(model, lambda member: member is not None)


def _groups(model: nn.Module) -> list[tuple[str, nn.Module, int]]:
    """The same of members whose code is known: transformers' layers, which every type of model was held to."""
    return _alike_members(model, _is_known)


_KNOWN = ("transformers", "torch", "fxmeter")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def _is_known(member: nn.Module | None) -> bool:
    """Whether a member's code is transformers' own, and nobody has put a hook or a function of theirs on it.

    Anybody else's code may read what tells layers apart: an index, a table, a counter that all share, what another
    layer left behind. It is recorded in full, unless the caller says that it does not.
    """
    if member is None or type(member).__module__.partition(".")[0] not in ("transformers", "fxmeter"):
        return False
    for module in member.modules():
        if type(module).__module__.partition(".")[0] not in _KNOWN or any(getattr(module, name) for name in _HOOKS):
            return False
        functions = (value for value in vars(module).values() if isinstance(value, types.FunctionType))
        if "forward" in vars(module) or any(f.__module__.partition(".")[0] not in _KNOWN for f in functions):
            return False
    return True


def _alike_members(model: nn.Module, may: Callable[[nn.Module | None], bool]) -> list[tuple[str, nn.Module, int]]:
    found: list[tuple[str, nn.Module, int]] = []
    kinds = 0
    for list_path, module in walk(model):
        if isinstance(module, nn.ModuleList) and len(module) > 1 and all(map(may, module)):
            alike: dict[Any, list[tuple[str, nn.Module]]] = {}
            sharing = _sharing(module)
            for index, (member, key) in enumerate(zip(module, _signatures(module), strict=True)):
                if index in sharing:
                    continue
                path = f"{list_path}.{index}" if list_path else str(index)
                alike.setdefault(key, []).append((path, member))
            for members in alike.values():
                if len(members) > 1:
                    found += [(path, member, kinds) for path, member in members]
                    kinds += 1
    return found


def _sharing(members: nn.ModuleList) -> set[int]:
    """Members that have a weight in common with another one: it is there once, not once for each."""
    owners: dict[int, set[int]] = {}
    for index, member in enumerate(members):
        for tensor in (*member.parameters(), *member.buffers()):
            owners.setdefault(id(tensor), set()).add(index)
    return {index for indices in owners.values() if len(indices) > 1 for index in indices}


def _run_once(
    path: str, forward: Callable[..., Any], kind: int, calls: _Calls, observer: Observer
) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        tensors: list[Tensor] = []
        calls.times[path] = calls.times.get(path, 0) + 1
        key = (kind, calls.times[path], observer.instances, _call_key((args, kwargs), tensors, observer))
        given = tuple(map(observer.storage_of, tensors))
        instance = calls.ran.get(key)
        if instance is not None and instance.passthrough is not None:
            instance.paths.append(path)
            instance.skips.append(Skip(observer.moment(), given))
            return instance.passthrough(tensors)
        instance = Instance([path], observer.instances, given=given, began=observer.moment())
        calls.instances.append(instance)
        outer, observer.instances = observer.instances, (*observer.instances, instance)
        try:
            out = forward(*args, **kwargs)
        finally:
            observer.instances = outer
        instance.ended = observer.moment()
        places: list[tuple[int, Tensor]] = []
        instance.passthrough = _passthrough(out, tensors, places, observer.hand_back)
        instance.returned = tuple((index, observer.storage_of(tensor)) for index, tensor in places)
        places.clear()
        calls.ran[key] = instance
        return out

    return call


def _call_key(value: Any, tensors: list[Tensor], observer: Observer) -> Any:
    """What the inputs of a call are, without their values; the tensors met are appended to ``tensors``."""
    if isinstance(value, Tensor):
        for index, seen in enumerate(tensors):
            if seen is value:
                return ("again", index)
        tensors.append(value)
        storage = value.untyped_storage().nbytes() if value.layout is torch.strided else 0
        return (
            tuple(value.shape),
            value.dtype,
            value.stride(),
            value.storage_offset(),
            storage,
            observer.role_of(value),
        )
    if isinstance(value, (tuple, list)):
        return (type(value), *(_call_key(item, tensors, observer) for item in value))
    if isinstance(value, dict):
        return (dict, *((name, _call_key(item, tensors, observer)) for name, item in value.items()))
    if isinstance(value, _PLAIN):
        return (type(value), value)
    return (type(value), id(value))


HandBack = Callable[[Tensor], Tensor]


def _passthrough(
    out: Any, inputs: list[Tensor], places: list[tuple[int, Tensor]], hand_back: HandBack
) -> Callable[[list[Tensor]], Any] | None:
    """How to answer for a member that does not run: each output tensor stands for the input it is like.

    An output that is an input maps to that input; a new one to what ``hand_back`` makes of the first input of the same
    shape, dtype and strides that no other new output took. ``places`` gets the input's index with each output tensor.
    None where an output is like no input.
    """
    try:
        return _place(out, inputs, set(), places, hand_back)
    except LookupError:
        return None


def _place(
    value: Any, inputs: list[Tensor], taken: set[int], places: list[tuple[int, Tensor]], hand_back: HandBack
) -> Callable[[list[Tensor]], Any]:
    if isinstance(value, Tensor):
        index = next((i for i, t in enumerate(inputs) if t is value), None)
        if index is None:
            free = (i for i, t in enumerate(inputs) if i not in taken and not isinstance(t, nn.Parameter))
            index = next((i for i in free if _alike(inputs[i], value)), None)
            if index is None:
                raise LookupError
            taken.add(index)
            places.append((index, value))
            return lambda given: hand_back(given[index])
        places.append((index, value))
        return operator.itemgetter(index)
    if value is None or isinstance(value, _PLAIN):
        return lambda given: value
    if type(value) in (tuple, list):
        kind, items = type(value), [_place(item, inputs, taken, places, hand_back) for item in value]
        return lambda given: kind(item(given) for item in items)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cls, names = type(value), [f.name for f in dataclasses.fields(value)]
        fields = {name: _place(getattr(value, name), inputs, taken, places, hand_back) for name in names}
        return lambda given: cls(**{name: item(given) for name, item in fields.items()})
    raise LookupError


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.stride() == b.stride()


def _signatures(members: nn.ModuleList) -> list[Any]:
    """One hashable key per member; equal keys mean that the members cannot be told apart but by position."""
    described = [_describe(member) for member in members]
    offsets: dict[Any, set[int]] = {}
    for position, (_, indices) in enumerate(described):
        for name, value in indices.items():
            offsets.setdefault(name, set()).add(value - position)
    return [
        (fixed, tuple((name, None if len(offsets[name]) == 1 else value) for name, value in indices.items()))
        for fixed, indices in described
    ]


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
            if name.startswith("_") and name in _MODULE_INTERNALS:
                continue
            if type(value) is int and _INDEX_NAME.search(name):
                indices[path, name] = value
            else:
                attributes.append((name, _plain(value)))
        fixed.append((path, type(module), tuple(tensors), tuple(attributes)))
    return tuple(fixed), indices


_MODULE_INTERNALS = frozenset(nn.Module().__dict__) - {"training"}


def _plain(value: Any) -> Any:
    kind = type(value)  # not isinstance, which asks objects that answer slowly (a config) for their class
    if issubclass(kind, _PLAIN):
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
