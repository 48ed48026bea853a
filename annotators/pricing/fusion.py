"""Fused traffic: what is left to move when pointwise and reduction chains run as one kernel each.

Policy, that of an optimising compiler (torch.compile's Inductor) as far as it does not depend on the machine:

- **What fuses.** Pointwise ops, copies and creations among them, and reductions. A gather fuses with what uses its
  rows, a scatter or a cache append with what makes its values; the tensor that is gathered from, or scattered into, is
  in memory. Two reductions share a kernel only if they go over equally many elements.
- **What does not.** Matrix products, convolutions, attention cores, sorts, scans, histograms, operators outside aten,
  and ops that no rule knows are kernels of their own and cost what they cost unfused.
- **Groups.** Ops in program order join the groups whose results they read, all that they can without a path that
  leaves a group and returns to it (two kernels cannot wait for each other). A group lies inside one call of a
  ``ModuleList`` member, as a decoder layer is: what one layer adds and the next one normalises is written and read.
  That costs one hidden state per layer, and makes a model's layers alike.
- **Traffic of a group.** A tensor from outside is read once however many members read it: each distinct region once,
  and never more than the whole. A result is written once if another group, the caller or the cache needs it, and not
  at all otherwise. Views stay free, and a scalar costs its bytes.

Every byte is charged to the op that first moves it, so sums by module and by op hold. Fused traffic never exceeds
unfused. The floor below it is what any implementation moves: weights as often as they are read but once each, the cache
once, inputs and outputs once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import networkx as nx

from fxmeter.annotators.pricing.accesses import Access, Elements, FusionOp, TensorKey
from fxmeter.annotators.pricing.graph import PricedNode, priced_nodes
from fxmeter.annotators.symbolic import smallest
from fxmeter.models.stage_cost import Size, is_nothing


@dataclass(frozen=True, slots=True)
class FusionGroup:
    """Ops that run as one kernel: their names in program order, the module of the first, and bytes of one execution."""

    nodes: tuple[str, ...]
    ops: tuple[str, ...]
    module: str
    times: int
    unfused_bytes: Size
    fused_bytes: Size


@dataclass(slots=True)
class _Group:
    calls: tuple[str, ...]
    members: list[int] = field(default_factory=list)
    elements: Size | None = None


class _Groups:
    """Ops into groups, greedily in program order."""

    def __init__(self, ops: Sequence[FusionOp]) -> None:
        self.ops = ops
        self.of: list[_Group] = []
        self._after: list[set[int]] = []
        self._apart: list[set[int]] = []
        last_write: dict[TensorKey, int] = {}
        readers: dict[TensorKey, list[int]] = {}
        for place, op in enumerate(ops):
            after: set[int] = set()
            apart: set[int] = set()
            for access in op.accesses:
                writer = last_write.get(access.key)
                if writer is not None:
                    after.add(writer)
                    if not self._fuses(writer, op, access):
                        apart.add(writer)
                if not is_nothing(access.written):
                    after.update(readers.get(access.key, ()))
            self._after.append(after)
            self._apart.append(apart)
            self._join(place, op, sorted(after - apart))  # in program order, so that groups hang on no set's order
            for access in op.accesses:
                if not is_nothing(access.written):
                    last_write[access.key] = place
                    readers[access.key] = []
                else:
                    readers.setdefault(access.key, []).append(place)

    def _fuses(self, writer: int, op: FusionOp, access: Access) -> bool:
        maker = self.ops[writer]
        return maker.calls == op.calls and maker.fuses not in ("alone", "scatter") and not access.gathered

    def _join(self, place: int, op: FusionOp, earlier: list[int]) -> None:
        group = _Group(op.calls, [place], op.elements if op.fuses == "reduction" else None)
        self.of.append(group)
        for member in earlier if op.fuses != "alone" else ():
            other = self.of[member]
            if other is not group and self._may_merge(group, other):
                group.elements = other.elements if group.elements is None else group.elements
                group.members = sorted(group.members + other.members)
                for joined in other.members:
                    self.of[joined] = group

    def _may_merge(self, a: _Group, b: _Group) -> bool:
        if self.ops[b.members[0]].fuses == "alone" or a.calls != b.calls:
            return False
        if a.elements is not None and b.elements is not None and a.elements != b.elements:
            return False
        cut = any(self.of[w] is two for one, two in ((a, b), (b, a)) for m in one.members for w in self._apart[m])
        return not (cut or self._reaches(a, b) or self._reaches(b, a))

    def _reaches(self, start: _Group, goal: _Group) -> bool:
        """Whether ``start`` waits for a third group that waits, in the end, for ``goal``."""
        seen = {id(start), id(goal)}
        todo = [w for m in start.members for w in self._after[m]]
        while todo:
            current = self.of[todo.pop()]
            # Ops wait only for earlier ones: a group that ends before the goal begins cannot wait for it. Without this
            # the walk goes back to the start of the pass each time, and pricing takes the square of its length.
            if id(current) in seen or current.members[-1] < goal.members[0]:
                continue
            seen.add(id(current))
            for waited in (w for m in current.members for w in self._after[m]):
                if self.of[waited] is goal:
                    return True
                todo.append(waited)
        return False


@dataclass(frozen=True, slots=True)
class FusedTraffic:
    """By op's name its fused traffic and the first op of its kernel; the floor of the whole pass."""

    bytes: Mapping[str, Size]
    groups: Mapping[str, str]
    floor_bytes: Size


def fused_traffic(
    ops: Sequence[FusionOp],
    times: Mapping[str, int],
    returned: set[TensorKey],
    kept: set[TensorKey],
    copies: Mapping[int, int],
    resident: Size,
) -> FusedTraffic:
    """What each op still moves once it shares a kernel with others.

    ``times`` has how often the pass executes each recorded op; an op without is a call that was not recorded.
    ``returned`` tensors are the pass's outputs, ``kept`` ones still exist after it. ``copies``: how many identical
    weights stand behind a recorded one, by its storage. ``resident``: bytes in the cache after the pass.
    """
    groups = _Groups(ops)
    home: dict[TensorKey, set[int]] = {}
    born: dict[TensorKey, int | None] = {}
    for place, op in enumerate(ops):
        for access in op.accesses:
            home.setdefault(access.key, set()).add(id(groups.of[place]))
            born.setdefault(access.key, None if is_nothing(access.written) else id(groups.of[place]))
    traffic: dict[int, _GroupTraffic] = {}
    floor = _Floor(returned, copies)
    moved: dict[str, Size] = {}
    first: dict[str, str] = {}
    for place, op in enumerate(ops):
        if op.name not in times:
            continue
        group = groups.of[place]
        so_far = traffic.setdefault(id(group), _GroupTraffic())
        total: Size = 0
        for access in op.accesses:
            inside = born[access.key] == id(group)
            needed = not inside or access.key in kept or access.role == "cache" or len(home[access.key]) > 1
            read = 0 if inside else so_far.once("read", access, access.read)
            written = so_far.once("written", access, access.written) if needed or op.fuses == "alone" else 0
            total = total + read + written
            floor.add(access, read, written, times[op.name])
        first[op.name] = ops[group.members[0]].name
        if not is_nothing(total):
            moved[op.name] = total
    return FusedTraffic(moved, first, floor.bytes(resident))


class _GroupTraffic:
    """What a group has moved so far."""

    def __init__(self) -> None:
        self._moved: dict[tuple[str, TensorKey], dict[Elements, Size]] = {}

    def once(self, way: str, access: Access, amount: Size) -> Size:
        """The part of ``amount`` that was not moved yet."""
        if is_nothing(amount):
            return 0
        by_elements = self._moved.setdefault((way, access.key), {})
        before = by_elements.get(access.elements, 0)
        if not by_elements:
            more = amount
        elif amount > before:
            # Other elements of it may have been moved, and which of them overlap is not known: as many as if they
            # did not, but no more than there are.
            more = max(0, min(amount - before, access.nbytes - sum(by_elements.values())))
        else:
            return 0
        by_elements[access.elements] = before + more
        return more


class _Floor:
    """Bytes that any implementation moves: weights, cache, inputs and outputs once."""

    def __init__(self, returned: set[TensorKey], copies: Mapping[int, int]) -> None:
        self._returned, self._copies = returned, copies
        self._once: dict[tuple[str, TensorKey], Size] = {}
        self._sizes: dict[TensorKey, Size] = {}
        self._cached: Size = 0

    def add(self, access: Access, read: Size, written: Size, times: int) -> None:
        """Count fused traffic in."""
        self._sizes[access.key] = access.nbytes
        if access.role == "cache":
            self._cached = self._cached + (read + written) * times
        elif access.role in ("weight", "input"):
            self._once[access.role, access.key] = self._once.get((access.role, access.key), 0) + read
        elif access.key in self._returned:
            self._once["output", access.key] = self._once.get(("output", access.key), 0) + written

    def bytes(self, resident: Size) -> Size:
        """The sum, the cache's ``resident`` bytes at most among it."""
        total = smallest([self._cached, resident])
        for (role, key), amount in self._once.items():
            copies = self._copies.get(key[0], 1) if role == "weight" else 1
            total = total + smallest([amount, self._sizes[key]]) * copies
        return total


def fusion_groups(graph: nx.DiGraph) -> tuple[FusionGroup, ...]:
    """The groups of a priced graph with more than one op, in program order."""
    members: dict[str, list[PricedNode]] = {}
    for node in priced_nodes(graph):
        if node.group is not None:
            members.setdefault(node.group, []).append(node)
    return tuple(_describe(nodes) for nodes in members.values() if len(nodes) > 1)


def _describe(nodes: Sequence[PricedNode]) -> FusionGroup:
    return FusionGroup(
        nodes=tuple(node.name for node in nodes),
        ops=tuple(node.op.removeprefix("aten.").removesuffix(".default") for node in nodes),
        module=nodes[0].module,
        times=nodes[0].times,
        unfused_bytes=sum(node.cost.io_bytes for node in nodes),
        fused_bytes=sum(node.cost.fused_io_bytes for node in nodes),
    )
