"""What a pass has seen: tensors, each with its node, and storages, with the moments at which they came and went."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from fxmeter.models.errors import TraceError
from fxmeter.tracer.graph.spec import Role, Storage
from fxmeter.tracer.private import storage_key


class TensorNodes:
    """The node whose output each living tensor is, by identity."""

    def __init__(self) -> None:
        self._nodes: dict[int, tuple[weakref.ref[Tensor], fx.Node]] = {}

    def of(self, tensor: Tensor) -> fx.Node | None:
        """The node of this very tensor, or None."""
        entry = self._nodes.get(id(tensor))
        return None if entry is None or entry[0]() is not tensor else entry[1]

    def put(self, tensor: Tensor, node: fx.Node) -> None:
        """From now on, as long as it lives."""
        self._nodes[id(tensor)] = (weakref.ref(tensor, self._forget(id(tensor))), node)

    def _forget(self, key: int) -> Callable[[Any], None]:
        nodes = self._nodes

        def gone(reference: Any) -> None:
            entry = nodes.get(key)
            if entry is not None and entry[0] is reference:
                del nodes[key]

        return gone


class Storages:
    """``seen`` has a record of every storage, in the order of their first sight. The clock of the pass is here too."""

    def __init__(self) -> None:
        self.seen: list[Storage] = []
        self._live: dict[int, Storage] = {}
        self._watched: dict[int, weakref.ref[Any]] = {}
        self._moment = 0
        self._is_open = True

    def moment(self) -> int:
        """The clock's next tick."""
        self._moment += 1
        return self._moment

    def close(self) -> None:
        """The pass has ended: what goes from now on was alive to its end."""
        self._is_open = False

    def of(self, tensor: Tensor) -> Storage | None:
        """The record of a tensor's storage, or None for one that was not seen."""
        return self._live.get(storage_key(tensor))

    def behind(self, tensor: Tensor, role: Role, born: int) -> Storage:
        """The record of a tensor's storage; where it is new, one with this role, born at this moment."""
        allocation = tensor.untyped_storage()
        address = storage_key(tensor)
        storage = self._live.get(address)
        if storage is None:
            storage = Storage(len(self.seen), allocation.nbytes(), role, born)
            self.seen.append(storage)
            self._live[address] = storage
            self._watched[address] = weakref.ref(allocation, partial(self._freed, address, storage))
        return storage

    def _freed(self, address: int, storage: Storage, _: Any) -> None:
        if self._is_open:
            storage.died = self.moment()
        if self._live.get(address) is storage:
            del self._live[address]


def dense(out: Any) -> Any:
    """What an op returned. Raises RuntimeError where that has no plain shape."""
    if isinstance(out, Tensor) and out.layout is not torch.strided:
        raise RuntimeError(
            f"it makes a {'nested' if out.is_nested else str(out.layout)[6:]} tensor, whose ops have no rules"
        )
    return out


def note(error: BaseException, where: str) -> None:
    """Say where an exception was raised, unless somebody further in said so already."""
    if not hasattr(error, "__notes__"):
        error.add_note(where)


def refuse_other_threads(path: str | None) -> None:
    """Raises TraceError where the module at ``path``, a part of what is recorded, ran in another thread."""
    if path is not None:
        raise TraceError(
            f"{path or 'the module'} ran in another thread, whose ops are not seen: call it in the forward's own"
        )
