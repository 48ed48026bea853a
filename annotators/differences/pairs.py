"""Which part of one stage plays the role of which part of another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from fxmeter.annotators.differences.parts import Part, both, likeness, merged


@dataclass(frozen=True, slots=True)
class Pair:
    """Two parts of the same role, or one that the other stage has nothing for. One of the two is there."""

    before: Part | None
    after: Part | None
    children: tuple[Pair, ...] = ()

    @property
    def path(self) -> str:
        """Where it is: the path in the second stage, in the first where only that has it."""
        part = self.after or self.before
        return part.path if part is not None else ""

    @property
    def alike(self) -> bool:
        """Whether nothing differs: neither amounts, nor class, nor count, here and below."""
        if self.before is None or self.after is None:
            return False
        same = (self.before.class_name, self.before.count, self.before.amounts) == (
            self.after.class_name,
            self.after.count,
            self.after.amounts,
        )
        return same and all(child.alike for child in self.children)

    def amount_before(self, figure: str) -> float:
        """Of all that is in the first; 0 where it has no such part."""
        return _amount(self.before, figure)

    def amount_after(self, figure: str) -> float:
        """Of all that is in the second; 0 where it has no such part."""
        return _amount(self.after, figure)

    def change(self, figure: str) -> float:
        """After less before, of all that is in it."""
        return self.amount_after(figure) - self.amount_before(figure)

    def own_change(self, figure: str) -> float:
        """Of what none of its children has."""
        return self.change(figure) - sum(child.change(figure) for child in self.children)


def paired(before: Part | None, after: Part | None, figure: str) -> Pair:
    """The two and everything in them, by role.

    Members of a list have the role of their number where both sides have the same numbers; else of their place among
    the kinds of members, or of their share of ``figure`` where one side has more kinds than the other. Then the same
    name, the same class, and last the shares.
    """
    ones, others = before.children if before else (), after.children if after else ()
    return Pair(before, after, tuple(paired(one, other, figure) for one, other in _matched(ones, others, figure)))


def every(pair: Pair) -> Iterator[Pair]:
    """A pair and all that are in it. Their own changes add up to the change of the whole."""
    yield pair
    for child in pair.children:
        yield from every(child)


def _amount(part: Part | None, figure: str) -> float:
    return 0 if part is None else part.amounts.get(figure, 0)


def _matched(before: Sequence[Part], after: Sequence[Part], figure: str) -> list[tuple[Part | None, Part | None]]:
    """Children of two parts by their roles, in the order of the second; what is in one alone at the end."""
    ones, others = [part for part in before if not part.numbered], [part for part in after if not part.numbered]
    found: list[tuple[Part | None, Part | None]] = []
    for prefix in dict.fromkeys(part.prefix for part in (*before, *after) if part.numbered):
        sides = [[part for part in side if part.numbered and part.prefix == prefix] for side in (before, after)]
        if [part.name for part in sides[0]] == [part.name for part in sides[1]]:
            found += _alike_as_one(zip(*sides, strict=True))
        else:  # other members, or all of them on one side and one for many on the other
            ones += merged(sides[0])
            others += merged(sides[1])

    def match(role: Callable[[Part], object], *, by_share: bool = False) -> None:
        """Pair what is left and has the same role, where it has one."""
        for one_role in dict.fromkeys(role(part) for part in ones):
            sides = [[part for part in rest if role(part) == one_role] for rest in (ones, others)]
            if one_role is None:
                continue
            if by_share or len(sides[0]) != len(sides[1]):
                sides = [sorted(side, key=lambda part: -_amount(part, figure)) for side in sides]
            for one, other in zip(*sides, strict=False):
                found.append((one, other))
                ones.remove(one)
                others.remove(other)

    match(lambda part: part.prefix if part.numbered else None)
    match(lambda part: None if part.numbered else part.name)
    match(lambda part: part.class_name)
    match(lambda part: part.numbered, by_share=True)
    order = {part.path: place for place, part in enumerate(after)}
    found.sort(key=lambda pair: order[pair[1].path] if pair[1] else 0)
    return [*found, *((None, part) for part in others), *((part, None) for part in ones)]


def _alike_as_one(pairs: Iterable[tuple[Part, Part]]) -> list[tuple[Part | None, Part | None]]:
    """Pairs of members of which all befores are alike, and all afters, as one pair."""
    found: dict[object, tuple[Part, Part]] = {}
    for one, other in pairs:
        key = likeness(one), likeness(other)
        known = found.get(key)
        found[key] = (one, other) if known is None else (both(known[0], one), both(known[1], other))
    return list(found.values())
