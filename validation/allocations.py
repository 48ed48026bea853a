"""What a call really allocates on the CPU, twice over: the profiler's allocation events, and a tracker of storages.

The profiler sees every byte that the allocator hands out. Those are of four kinds:

    results     what an op returns: activations, the subject
    cache       what the cache holds after the call
    workspace   handed out and taken back while one op ran: what its kernel needs for itself
    operands    a number in the program's text (``x * 0.5``) that PyTorch wraps for a kernel, outside of any op
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(slots=True)
class Allocation:
    """``nbytes`` at ``address`` from ``began`` to ``ended`` (ns; None: to the end), and the ops that ran around it.

    ``ops`` are (name, end) of each, the outermost first.
    """

    address: int
    nbytes: int
    began: int
    ops: tuple[tuple[str, int], ...]
    ended: int | None = None

    @property
    def op(self) -> tuple[str, int] | None:
        """The op that is executed as one: the outermost around it that is not taken apart into others."""
        return next((op for op in self.ops if not taken_apart(op[0])), None)

    @property
    def kind(self) -> str:
        """ "result", "workspace" or "operand"."""
        if not self.ops:
            return "operand"
        return "workspace" if self.op and self.ended is not None and self.ended <= self.op[1] else "result"

    @property
    def name(self) -> str:
        """What a workspace or an operand is, for people."""
        if not self.ops:
            return "wrapped number"
        return (
            self.ops[-1][0].removeprefix("aten::")
            if self.op is None
            else f"inside `{self.op[0].removeprefix('aten::')}`"
        )


@cache
def taken_apart(name: str) -> bool:
    """Whether PyTorch executes an op as other ops (``linear``, ``matmul``, ``reshape``, ...)."""
    namespace, _, rest = name.partition("::")
    packet = getattr(getattr(torch.ops, namespace), rest, None)
    overloads = [] if packet is None else [f"{name}.{o}".removesuffix(".default") for o in packet.overloads()]
    known = [full for full in overloads if "out" not in full and torch._C._dispatch_has_kernel(full)]
    key = "CompositeImplicitAutograd"
    return bool(known) and all(torch._C._dispatch_has_kernel_for_dispatch_key(full, key) for full in known)


def profiled(call: Callable[[], Any]) -> tuple[Any, list[Allocation]]:
    """What ``call`` returns, and every allocation of it in order."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        out = call()
    events = sorted(_memory_events(profiler.profiler.kineto_results.experimental_event_tree()), key=lambda e: e[0])
    found: list[Allocation] = []
    live: dict[int, Allocation] = {}
    for moment, address, size, ops in events:
        if size > 0:
            live[address] = Allocation(address, size, moment, ops)
            found.append(live[address])
        elif address in live:
            live.pop(address).ended = moment
    return out, found


def _memory_events(
    tree: Collection[Any], ops: tuple[tuple[str, int], ...] = ()
) -> Iterator[tuple[int, int, int, tuple[tuple[str, int], ...]]]:
    for event in tree:
        if event.tag.name == "Allocation":
            fields = event.extra_fields
            yield event.start_time_ns, fields.ptr, fields.alloc_size, ops
        around = (*ops, (event.name, event.end_time_ns)) if event.tag.name == "TorchOp" else ops
        yield from _memory_events(event.children, around)


@dataclass(frozen=True, slots=True)
class Most:
    """The most bytes alive at one moment, and the allocations that they are."""

    nbytes: int
    alive: tuple[Allocation, ...]


def most_alive(allocations: Collection[Allocation]) -> Most:
    """The first moment at which most is alive."""
    events = [(a.began, 1, a) for a in allocations]
    events += [(a.ended, 0, a) for a in allocations if a.ended is not None]
    live: dict[int, Allocation] = {}
    now, best = 0, Most(0, ())
    for _, born, allocation in sorted(events, key=lambda event: event[:2]):
        now += allocation.nbytes if born else -allocation.nbytes
        live[id(allocation)] = allocation
        if not born:
            del live[id(allocation)]
        if now > best.nbytes:
            best = Most(now, tuple(live.values()))
    return best


def without(allocations: Collection[Allocation], tensors: Collection[Tensor]) -> list[Allocation]:
    """The allocations but for those that ``tensors``, alive after the call, stand in."""
    held = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    return [a for a in allocations if a.ended is not None or a.address not in held]


class Tracker(TorchDispatchMode):
    """Every storage that an op returns, from then until it is freed; knows nothing of kernels' own memory."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[int, int]] = []
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors((args, kwargs or {})):
            self._know(tensor, made=False)
        out = func(*args, **(kwargs or {}))
        for tensor in _tensors(out):
            self._know(tensor, made=True)
        return out

    def _know(self, tensor: Tensor, *, made: bool) -> None:
        storage = tensor.untyped_storage()
        address, size = storage._cdata, storage.nbytes() if made else 0
        if address not in self._known:
            self._known.add(address)
            self.events.append((address, size))
            weakref.finalize(storage, self._freed, address, size).atexit = False

    def _freed(self, address: int, nbytes: int) -> None:
        self._known.discard(address)
        self.events.append((address, -nbytes))

    def most(self, apart: Collection[Tensor]) -> int:
        """The most bytes alive at one moment, but for the storages of ``apart``, which are alive after the call."""
        held = {tensor.untyped_storage()._cdata for tensor in apart}
        last = {address: place for place, (address, size) in enumerate(self.events) if size > 0}
        skipped = {last[address] for address in held if address in last}
        now = best = 0
        for place, (_, size) in enumerate(self.events):
            if place not in skipped:
                now += size
                best = max(best, now)
        return best


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def tracked(call: Callable[[], Any]) -> tuple[Any, Tracker]:
    """What ``call`` returns, and the tracker that watched it."""
    with Tracker() as tracker:
        out = call()
    return out, tracker
