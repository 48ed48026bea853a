"""What a model's module tree says, read once and kept while the tree stays as it is.

Most of a recording's own time would go into walking a thousand modules again and again. So the walk, and whatever is
derived from it, is kept for each model, with a copy of every module's attributes; before it is used again each
attribute is compared with the copy by identity, which is fast, and anything that differs discards it. What changes in
place is compared too: the items of lists, dicts and sets, and of each tensor its shape, strides, dtype and storage.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice, repeat
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from fxmeter.models.names import Kwargs
from fxmeter.tracer.private import local_part

T = TypeVar("T")
Walk = list[tuple[str, nn.Module]]


class Stores:
    """Dictionaries as they were: ``same`` while every name and value in them is, by identity.

    Both are kept, so that no other object can come to have their identity, but for tensors: what a model lets go of is
    to go. A tensor that is gone is a change.
    """

    def __init__(self, stores: Iterable[Mapping[str, Any]]) -> None:
        self._empty: list[Mapping[str, Any]] = []
        self._plain: list[Mapping[str, Any]] = []
        self._with_tensors: list[Mapping[str, Any]] = []
        for store in stores:
            holds = any(issubclass(type(value), Tensor) for value in store.values())
            (self._with_tensors if holds else self._plain if store else self._empty).append(store)
        self._full = [*self._plain, *self._with_tensors]
        self._sizes = list(map(len, self._full))
        self._names = list(chain.from_iterable(self._full))
        self._kept = list(_values(self._plain))
        values = list(_values(self._with_tensors))
        self._ids = list(map(id, values))
        self._others = [value for value in values if not isinstance(value, Tensor)]
        self._tensors = [ref(value) for value in values if isinstance(value, Tensor)]

    def tensors(self) -> list[Any]:
        """The values of the dictionaries with tensors, which are not kept here, while they are the same."""
        return list(_values(self._with_tensors))

    def were(self, tensors: list[Any]) -> dict[int, Kwargs]:
        """What every dictionary had in it, by its id, if its values are these ``tensors()``."""
        names, values = iter(self._names), chain(self._kept, tensors)
        sizes = zip(self._full, self._sizes, strict=True)
        return {id(store): dict(zip(islice(names, size), values, strict=False)) for store, size in sizes}

    def same(self) -> bool:
        """Whether nothing was added, removed or replaced."""
        return (
            not any(self._empty)
            and list(map(len, self._full)) == self._sizes
            and list(chain.from_iterable(self._full)) == self._names
            and all(map(operator.is_, _values(self._plain), self._kept))
            and list(map(id, _values(self._with_tensors))) == self._ids
            and not _any_gone(self._tensors)
        )


def _values(stores: list[Mapping[str, Any]]) -> Iterator[Any]:
    return chain.from_iterable(map(_VALUES, stores))


_VALUES = operator.methodcaller("values")


class _Tensors:
    """Tensors as they were: ``x.data = y``, which ``module.float()`` does, leaves the object and changes the rest."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        dense = [tensor for tensor in tensors if tensor.layout is torch.strided and not tensor.is_nested]
        self._tensors = list(map(ref, dense))
        self._looks = _looks(dense)
        self._storages = list(map(ref, map(Tensor.untyped_storage, dense)))

    def same(self) -> bool:
        """Whether every tensor is there, none with another shape, dtype or storage."""
        if _any_gone(self._tensors):
            return False
        now = list(map(_referent, self._tensors))
        storages = map(Tensor.untyped_storage, now)
        return _looks(now) == self._looks and all(map(operator.is_, map(_referent, self._storages), storages))


def _looks(tensors: list[Tensor]) -> Any:
    return list(map(_DTYPE_AND_SHAPE, tensors)), list(map(Tensor.stride, tensors))


def _any_gone(references: list[ref[Tensor]]) -> bool:
    return any(map(operator.is_, map(_referent, references), repeat(None)))


_DTYPE_AND_SHAPE = operator.attrgetter("dtype", "shape")
_referent: Callable[[Any], Any] = operator.call


class _Known:
    """The modules below a root, the attributes that they and the root had, and what was derived from them."""

    def __init__(self, root: nn.Module) -> None:
        modules_below, self.aliases = _walk(root)
        self.below = modules_below[1:]  # not the root: the entry would keep its own key alive
        self.derived: dict[Any, Any] = {}
        modules = [root.__dict__, *(module.__dict__ for _, module in self.below)]
        self.stores = Stores([store for own in modules for store in (own, *(own[name] for name in _COMPARED))])
        values = [value for own in modules for name, value in own.items() if name not in _INTERNALS]
        self._containers = [(value, _frozen(value)) for value in values if _is_container(value)]
        registered = (t for own in modules for name in ("_parameters", "_buffers") for t in own[name].values())
        self._tensors = _Tensors(value for value in chain(registered, values) if isinstance(value, Tensor))

    def holds(self) -> bool:
        """Whether nothing has changed: no attribute of any module, no item of a container, no tensor."""
        return (
            self.stores.same()
            and self._tensors.same()
            and all(_frozen(value) == items for value, items in self._containers)
        )


_STORES = ("_parameters", "_buffers", "_modules")
HOOKS = ("_forward_pre_hooks", "_forward_hooks")
"""Where a module keeps what runs around its forward."""
_COMPARED = (*_STORES, *HOOKS)
_INTERNALS = frozenset(nn.Module().__dict__)
_known: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()
_trusted: set[int] = set()


def walk(root: nn.Module) -> Walk:
    """(path, module) of ``root`` and everything below it, each module once, in the order of ``named_modules``."""
    return [("", root), *_entry(root).below]


def aliases(root: nn.Module) -> dict[str, str]:
    """Every further name of a module that is registered more than once → the first."""
    return _entry(root).aliases


def derived(root: nn.Module, derive: Callable[[nn.Module], T]) -> T:
    """``derive(root)``, kept until the tree changes. It must depend on nothing but the modules' attributes."""
    kept = _entry(root).derived
    if derive not in kept:
        kept[derive] = derive(root)
    return kept[derive]


def stores_of(root: nn.Module) -> Stores:
    """The attributes and registered parts of ``root`` and of every module below it."""
    return _entry(root).stores


class unchanging:  # noqa: N801  reads as a word in a with statement
    """Inside the block the tree below ``root`` does not change but for what is put back: compare it only once."""

    def __init__(self, root: nn.Module) -> None:
        self._root = root

    def __enter__(self) -> None:
        _entry(self._root)
        self._outermost = id(self._root) not in _trusted
        _trusted.add(id(self._root))

    def __exit__(self, *exc: Any) -> None:
        if self._outermost:
            _trusted.discard(id(self._root))


def named_tensors(root: nn.Module, store: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors in ``store`` ("_parameters" or "_buffers") of all modules, tied ones once, under their first name;
    of one that is distributed over ranks what this rank has of it."""
    seen: set[int] = set()
    for path, module in walk(root):
        for name, tensor in getattr(module, store).items():
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                yield (f"{path}.{name}" if path else name), local_part(tensor)


def all_on_meta(root: nn.Module) -> bool:
    """Whether no parameter has data. Looks once, and so faster than whether the tree is as it was."""
    todo, seen = [root], {id(root)}
    while todo:
        module = todo.pop()
        for tensor in module._parameters.values():
            if tensor is not None and not tensor.is_meta:
                return False
        for child in module._modules.values():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                todo.append(child)
    return True


def _entry(root: nn.Module) -> _Known:
    known = _known.get(root)
    if known is None or (id(root) not in _trusted and not known.holds()):
        known = _known[root] = _Known(root)
    return known


def _walk(root: nn.Module) -> tuple[Walk, dict[str, str]]:
    """The modules by first name, and their further names. Read at once: a pass may swap modules while it runs."""
    found: Walk = []
    first: dict[int, str] = {}
    further: dict[str, str] = {}

    def visit(path: str, module: nn.Module) -> None:
        if id(module) in first:
            further[path] = first[id(module)]
            return
        first[id(module)] = path
        found.append((path, module))
        for name, child in module._modules.items():
            if child is not None:
                visit(f"{path}.{name}" if path else name, child)

    visit("", root)
    return found, further


def _is_container(value: Any) -> bool:
    return issubclass(type(value), (list, tuple, dict, set, deque))  # not isinstance: a config answers that slowly


def _frozen(value: Any, inside: tuple[int, ...] = ()) -> Any:
    """A value, so that a change in place shows: plain ones and containers by value, others by identity (and kept)."""
    kind = type(value)
    if issubclass(kind, _PLAIN):
        return kind, value
    if not _is_container(value) or id(value) in inside:
        return _Is(value)
    items = chain.from_iterable(value.items()) if issubclass(kind, dict) else value
    return kind, [_frozen(item, (*inside, id(value))) for item in items]


_PLAIN = (bool, int, float, str, type(None))


class _Is:
    """Equal to itself alone, and while it is there: a tensor is not kept alive."""

    __slots__ = ("_referent",)

    def __init__(self, value: Any) -> None:
        self._referent = ref(value) if isinstance(value, Tensor) else lambda: value

    def __eq__(self, other: object) -> bool:
        own = self._referent()
        return isinstance(other, _Is) and own is not None and other._referent() is own

    __hash__ = None  # type: ignore[assignment]
