"""Running identical layers once.

The members of every ``ModuleList`` are grouped by what they are (:mod:`fxmeter.tracer.capture.groups`). The first of a
group to be called with a given kind of inputs runs and is recorded; a later one, called with inputs that cannot be told
apart from those, does not run: its hidden states pass through untouched, and the one that ran counts once more. A
member that returns something else than its hidden states is never skipped. Where members run several times in a pass,
as a tower does on two pictures, the first calls of all are grouped among themselves, the second ones, and so on.

What passes through stands for another tensor from then on. Nobody may use it, or even hold it, as what it was before:
then there are two tensors where the folded recording has one. Nor may anybody but the cache use what else the recorded
call made: of the others it would be missing. A list of which this is not so is recorded in full, and it alone.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol
from weakref import ref

import torch
from torch import Tensor, fx, nn

from fxmeter.models.errors import FxmeterError, ScenarioError
from fxmeter.tracer.capture.groups import Member, alike_members, list_of, on_rank, stored_alike
from fxmeter.tracer.capture.known import PLAIN, Known
from fxmeter.tracer.capture.passthrough import passthrough
from fxmeter.tracer.graph.instances import Instance, Skip
from fxmeter.tracer.graph.nodes import meta_of, specs_of
from fxmeter.tracer.graph.spec import Role, Storage
from fxmeter.tracer.graph.values import Function
from fxmeter.tracer.private import has_global_hooks


class Observer(Protocol):
    """What folding asks of whoever records: the instances now running, and what is known of a tensor.

    ``hand_back`` makes the tensor that is the result of a skipped call, of the member at ``path``, in the place of one
    that the call was given.
    """

    instances: tuple[Instance, ...]

    def role_of(self, tensor: Tensor) -> Role: ...

    def storage_of(self, tensor: Tensor) -> Storage | None: ...

    def hand_back(self, path: str, tensor: Tensor) -> Tensor: ...

    def moment(self) -> int: ...


class NoObserver:
    """Stands in when nothing is recorded."""

    def __init__(self) -> None:
        self.instances: tuple[Instance, ...] = ()

    def role_of(self, tensor: Tensor) -> Role:
        return "activation"

    def storage_of(self, tensor: Tensor) -> Storage | None:
        return None

    def hand_back(self, path: str, tensor: Tensor) -> Tensor:
        return tensor

    def moment(self) -> int:
        return 0


class CannotFoldError(FxmeterError):
    """One recorded call of the member at ``path`` cannot stand for the others of its list: record that in full.

    Members that run several times are alike the first time and not the second; or what a skipped member was given, and
    hands back in place of a new tensor, is used or held on to in its own right, where the full recording has two.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.in_list = list_of(path)


_NUMBERS = re.compile(r"(?<=\.)\d+(?=\.|$)")


class Folding:
    """Which modules of a model are identical. Plain bookkeeping: the model itself is not changed.

    ``trusted``: the caller vouches for code of whoever it is. ``like``: the whole that ``model`` is a rank of, whose
    layers are alike where those of the whole are. ``stored``: what else tells parameters apart, by path: the formats
    that they are stored in. ``skipped`` says whether a call was not run.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        trusted: bool = False,
        like: nn.Module | None = None,
        stored: Mapping[str, Hashable] | None = None,
    ) -> None:
        self._trusted = trusted
        self._members = [] if has_global_hooks() and not trusted else alike_members(like or model, trusted=trusted)
        if like is not None:
            self._members = on_rank(self._members, model)
        if stored:
            self._members = stored_alike(model, self._members, stored)
        self._never_ran: frozenset[str] = frozenset()
        self.skipped = False

    def without(self, in_list: str) -> Folding | None:
        """The same but for one list, and those at its place in other layers; None where no other is left."""
        place = _NUMBERS.sub("", in_list)
        self._members = [member for member in self._members if _NUMBERS.sub("", member.in_list) != place]
        return self if self._members else None

    @classmethod
    def of(cls, model: nn.Module, fold: bool | None, **more: Any) -> Folding | None:
        """What ``fold`` asks for: what is known to change nothing, all that is alike, or nothing (None)."""
        if fold is not None and not isinstance(fold, bool):
            raise ScenarioError(f"fold is True, False or None, not {fold!r:.80}")
        return None if fold is False else cls(model, trusted=bool(fold), **more)

    @contextmanager
    def active(self, observer: Observer) -> Iterator[None]:
        """Inside the block identical members run once; the model is as before afterwards.

        Where nothing is recorded the pass fills a cache for the next one: a member left out has nothing in it.
        """
        fills = isinstance(observer, NoObserver)
        calls = _Calls(self._trusted, frozenset() if fills else self._never_ran)
        patched: list[nn.Module] = []
        try:
            for member in self._members:
                if "forward" not in member.module.__dict__:
                    patched.append(member.module)
                    member.module.__dict__["forward"] = _run_once(member, member.module.forward, calls, observer)
            yield
            _refuse_other_groups(calls.instances)
        finally:
            self.skipped |= any(instance.skips for instance in calls.instances)
            if fills:
                ran = {instance.paths[0] for instance in calls.instances}
                self._never_ran = frozenset(p for instance in calls.instances for p in instance.paths) - ran
            for module in patched:
                del module.__dict__["forward"]


@dataclass(slots=True)
class _Calls:
    """The calls of members in one pass: the instance that ran for each kind of call, and how often each path ran.

    With ``trusted`` the caller vouches for the code of arguments; of the others those that were looked at are ``seen``,
    and not kept alive. The members at ``not_cached`` have nothing in the cache.
    """

    trusted: bool
    not_cached: frozenset[str]
    seen: dict[int, tuple[ref[Any], object]] = field(default_factory=dict)
    ran: dict[Any, Instance] = field(default_factory=dict)
    instances: list[Instance] = field(default_factory=list)
    times: dict[str, int] = field(default_factory=dict)

    def identity(self, value: Any) -> object:
        """What tells an argument from all others: the same as long as it lives, and never again; where its code may
        tell who asks it, another one each time."""
        try:
            reference = ref(value)
        except TypeError:  # a set, say
            return id(value) if self.trusted or Known().holds(value) else object()
        seen, identity = self.seen.get(id(value), (None, None))
        if seen is None or seen() is not value:
            identity = object() if self.trusted or Known().holds(value) else None
            self.seen[id(value)] = reference, identity
        return object() if identity is None else identity


def _refuse_other_groups(instances: Iterable[Instance]) -> None:
    """A member stands for the same others whenever it runs: how many there are of it depends on its path alone."""
    groups: dict[str, list[str]] = {}
    for instance in instances:
        for path in instance.paths:
            if groups.setdefault(path, instance.paths) != instance.paths:
                raise CannotFoldError(path, "it is not always like the same others")


def refuse_side_effects(graph: fx.Graph, storages: Iterable[Storage]) -> None:
    """Raise CannotFoldError where a call that stands for others has to do with anything but what it is given.

    It may not let go of what was there before and not given to it: each of the others would let go of its own. And no
    node outside of it may read what it made and did not return: in full that would be what each of them made. What is
    in the cache each keeps for itself.
    """
    died = [(s, s.died) for s in storages if s.is_activation and s.died is not None]
    folded = {i for node in graph.nodes for i in meta_of(node).instances if len(i.paths) > 1}
    for instance in folded:
        if any(s.born < instance.began < at < instance.ended and s not in instance.given for s, at in died):
            raise CannotFoldError(instance.paths[0], "it lets go of what it was not given")
    for node in graph.nodes:
        inside = meta_of(node).instances
        for source in node.all_input_nodes:
            for instance in meta_of(source).instances:
                if len(instance.paths) > 1 and instance not in inside:
                    returned = [storage for _, storage in instance.returned]
                    made = (s.storage for s in specs_of(source) if s.storage.is_activation)
                    if any(storage.born > instance.began and storage not in returned for storage in made):
                        raise CannotFoldError(instance.paths[0], f"{node} reads what it made on the side")


def _run_once(member: Member, forward: Function, calls: _Calls, observer: Observer) -> Function:
    path = member.path

    def call(*args: Any, **kwargs: Any) -> Any:
        tensors: list[Tensor] = []
        calls.times[path] = calls.times.get(path, 0) + 1
        arguments = _call_key((args, kwargs), tensors, calls, observer)
        key = (member.kind, calls.times[path], observer.instances, arguments)
        given = tuple(map(observer.storage_of, tensors))
        instance = calls.ran.get(key)
        if instance is not None and instance.passthrough is not None:
            instance.paths.append(path)
            instance.skips.append(Skip(observer.moment(), given))
            return instance.passthrough(tensors)
        if path in calls.not_cached:
            raise CannotFoldError(path, "it is like others in the prompt alone")
        instance = Instance([path], observer.instances, given=given, began=observer.moment(), steps=member.steps)
        calls.instances.append(instance)
        outer, observer.instances = observer.instances, (*observer.instances, instance)
        try:
            out = forward(*args, **kwargs)
        finally:
            observer.instances = outer
        instance.ended = observer.moment()
        places: list[tuple[int, Tensor]] = []
        instance.passthrough = passthrough(out, tensors, places, partial(observer.hand_back, path))
        instance.returned = tuple((index, observer.storage_of(tensor)) for index, tensor in places)
        places.clear()
        calls.ran[key] = instance
        return out

    return call


def _call_key(value: Any, tensors: list[Tensor], calls: _Calls, observer: Observer) -> Any:
    """What the inputs of a call are, without their values; the tensors met are appended to ``tensors``.

    An object whose code is not known is like no other.
    """
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
        return (type(value), *(_call_key(item, tensors, calls, observer) for item in value))
    if isinstance(value, dict):
        return (dict, *((name, _call_key(item, tensors, calls, observer)) for name, item in value.items()))
    if isinstance(value, PLAIN):
        return (type(value), value)
    return (type(value), calls.identity(value))
