"""Matching the ops of a pass with those that were recorded, module by module and in order.

Three times, each in the gaps that the one before left: ops of the same name and shapes, then of the same name, then
what is left over where the recording has an operator of fxmeter's own. That stands for code which runs as several ops
(an attention core with the copies around it, an append to a cache): it gets what ran between its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeAlias

from fxmeter.annotators.studies.measured.align import align
from fxmeter.annotators.studies.measured.expected import Expected, key_of
from fxmeter.annotators.studies.measured.traces.passes import Ran

Pairs: TypeAlias = list[tuple[int, int]]


def match(expected: Sequence[Expected], ran: Sequence[Ran]) -> list[int | None]:
    """For each op of a pass the place in ``expected`` of what was recorded of it, None where nothing was."""
    found: list[int | None] = [None] * len(ran)
    for ours, theirs in _by_module(expected, ran):
        for place, index in _matched([expected[place] for place in ours], [ran[index] for index in theirs]):
            found[theirs[index]] = ours[place]
    return found


def has_shapes_of(expected: Expected, ran: Sequence[Ran]) -> bool:
    """Whether what ran for a recorded op had the shapes that were recorded, as far as the trace says: it leaves
    out those of an optional list, such as indices.

    An operator of fxmeter's own stands for several ops, whose shapes are not its own; its lengths and widths are among
    them.
    """
    shapes = [frozenset(op.shapes) for op in ran if op.shapes is not None]
    if not expected.stands_for_several:
        return all(expected.shapes >= found for found in shapes)
    sizes = {size for found in shapes for shape in found for size in shape}
    return not shapes or {size for shape in expected.shapes for size in shape[-2:]} <= sizes


def _by_module(expected: Sequence[Expected], ran: Sequence[Ran]) -> Iterator[tuple[list[int], list[int]]]:
    """Places of each module's ops in both; all at once where no range of a module is in the trace."""
    if all(op.module is None for op in ran):
        yield list(range(len(expected))), list(range(len(ran)))
        return
    ours: dict[str, list[int]] = {}
    theirs: dict[str, list[int]] = {}
    for place, op in enumerate(expected):
        ours.setdefault(op.node.module, []).append(place)
    for index, item in enumerate(ran):
        theirs.setdefault(item.module or "", []).append(index)
    yield from ((places, theirs[module]) for module, places in ours.items() if module in theirs)


def _matched(expected: Sequence[Expected], ran: Sequence[Ran]) -> Pairs:
    with_shapes = all(op.shapes is not None for op in ran)
    first: list[Hashable] = [op.key if with_shapes else op.name for op in expected]
    second: list[Hashable] = [key_of(op.name, op.shapes) if with_shapes else op.name for op in ran]
    pairs = align(first, second)
    pairs = _in_gaps(expected, ran, pairs, lambda ours, theirs: align([o.name for o in ours], [t.name for t in theirs]))
    return _in_gaps(expected, ran, pairs, _as_one)


def _in_gaps(
    expected: Sequence[Expected],
    ran: Sequence[Ran],
    pairs: Pairs,
    matched: Callable[[Sequence[Expected], Sequence[Ran]], Pairs],
) -> Pairs:
    """``pairs``, and those that ``matched`` finds between one and the next."""
    found = list(pairs)
    before = (-1, -1)
    for pair in [*pairs, (len(expected), len(ran))]:
        ours, theirs = expected[before[0] + 1 : pair[0]], ran[before[1] + 1 : pair[1]]
        if ours and theirs:
            found += [(before[0] + 1 + place, before[1] + 1 + index) for place, index in matched(ours, theirs)]
        before = pair
    return sorted(found)


def _as_one(expected: Sequence[Expected], ran: Sequence[Ran]) -> Pairs:
    """Each operator of fxmeter's own with the ops up to the one that reads all its tensors, the last with the rest."""
    own = [place for place, op in enumerate(expected) if op.stands_for_several]
    pairs: Pairs = []
    start = 0
    for place in own:
        shapes = expected[place].shapes
        end = next((i for i in range(start, len(ran)) if shapes <= frozenset(ran[i].shapes or ())), None)
        if end is not None:
            pairs += [(place, index) for index in range(start, end + 1)]
            start = end + 1
    return pairs + [(own[-1], index) for index in range(start, len(ran))] if own else []
