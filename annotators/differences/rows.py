"""Which parts of two stages changed, as lines of a tree, and by how much of the whole change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fxmeter.annotators.differences.difference import StageDifference
from fxmeter.annotators.differences.pairs import Pair


@dataclass(frozen=True, slots=True)
class PartRow:
    """A part that changed. ``share`` is of the whole stage's change, negative where the part went the other way; None
    where the stage as a whole did not change. ``itself`` is what a part does outside of its children."""

    depth: int
    pair: Pair
    before: float
    after: float
    share: float | None
    itself: bool = False

    @property
    def change(self) -> float:
        """After less before."""
        return self.after - self.before


def part_rows(stage: StageDifference, depth: int) -> list[PartRow]:
    """The parts that differ, down to ``depth``. A part's children, and what it does itself, add up to it."""
    return (
        []
        if stage.parts is None
        else list(_rows(stage.parts, stage.headline, stage.parts.change(stage.headline), 0, depth))
    )


def _rows(pair: Pair, figure: str, whole: float, level: int, depth: int) -> Iterator[PartRow]:
    if pair.alike or (level and pair.before and pair.after and not pair.change(figure)):
        return

    def row(before: float, after: float, level: int, *, itself: bool = False) -> PartRow:
        return PartRow(level, pair, before, after, (after - before) / whole if whole else None, itself)

    yield row(pair.amount_before(figure), pair.amount_after(figure), level)
    if level == depth or not pair.children:
        return
    for child in sorted(pair.children, key=lambda child: -abs(child.change(figure))):
        yield from _rows(child, figure, whole, level + 1, depth)
    if pair.own_change(figure):
        own = [0 if part is None else part.own[figure] for part in (pair.before, pair.after)]
        yield row(own[0], own[1], level + 1, itself=True)
