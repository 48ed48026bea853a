"""Where a figure is which polynomial, as few cases with conditions that can be read.

A closed form's pieces overlap, and most differ in a few figures only. For one figure, pieces whose polynomials agree
wherever the piece holds are one case; what single sizes fix or bound becomes ranges of whole numbers, the rest stays a
comparison of polynomials.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from fxmeter.annotators.shapes.pieces import FormStage, Piece
from fxmeter.annotators.symbolic import VARIABLES, Condition, Path, largest, made_of, terms_of, variable, variables_of
from fxmeter.annotators.symbolic.sums import substituted

Range = tuple[int, int | None]
"""First and last of consecutive whole numbers; without a last one, all from the first."""

Ranges = tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Box:
    """Points whose three sizes lie in these ranges, and for which all of ``rest`` holds."""

    axes: tuple[Ranges, Ranges, Ranges]
    rest: frozenset[Condition] = frozenset()


@dataclass(frozen=True, slots=True)
class Case:
    """``value`` is right in every one of ``boxes``."""

    value: Any
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class Cases:
    """All cases of a figure, the most general last. ``complete`` if their boxes are known to cover every point; then
    the last needs no condition."""

    cases: tuple[Case, ...]
    complete: bool


def domain(stage: FormStage) -> tuple[Box, ...]:
    """Every point of the stage as it is usually meant."""
    batch, any_length = ((1, None),), ((0, None),)
    one: Ranges = ((1, 1),)
    none: Ranges = ((0, 0),)
    if stage == "vision":
        return Box((batch, batch, batch)), Box((batch, none, none))
    return (Box((batch, batch, none)),) if stage == "prefill" else (Box((batch, one, any_length)),)


def cases_of(stage: FormStage, pieces: Sequence[Piece], values: Sequence[Any]) -> Cases:
    """The cases of a figure that has ``values`` in ``pieces``."""
    whole = domain(stage)
    found: list[tuple[Any, list[Box]]] = []
    placed = [(value, box) for value, piece in zip(values, pieces, strict=True) for box in _boxes(piece, whole)]
    for value, box in sorted(placed, key=lambda item: _generality(item[1]), reverse=True):
        for general, boxes in found:
            if _same_within(general, value, box):
                boxes.append(box)
                break
        else:
            found.append((value, [box]))
    every = merged(box for _, boxes in found for box in boxes)
    cases = tuple(Case(value, merged(boxes)) for value, boxes in reversed(found))
    return Cases(cases, complete=not _uncovered(whole, every))


def _boxes(piece: Piece, whole: Sequence[Box]) -> list[Box]:
    """The part of the stage's domain that a piece is right in."""
    region = piece.region
    found = []
    for part in whole:
        axes = [
            _both(ranges, ((low, high),))
            for ranges, low, high in zip(part.axes, region.lower, region.upper, strict=True)
        ]
        conditions = list(piece.conditions)
        together = variable(1) + variable(2)
        if region.sums[0] > 0:
            conditions.append(Condition(together - region.sums[0], ">="))
        if region.sums[1] is not None:
            conditions.append(Condition(region.sums[1] - together, ">="))
        box = _narrowed(axes, conditions)
        if box is not None:
            found.append(box)
    return found


def _narrowed(axes: list[Ranges], conditions: Iterable[Condition]) -> Box | None:
    """Conditions on one size turned into ranges. None where nothing is left."""
    rest = set()
    for condition in conditions:
        value = substituted(condition.value, fixed_of(axes))
        free = variables_of(value)
        if not free:
            if not Condition(value, condition.relation).holds((0, 0, 0)):
                return None
        elif len(free) == 1 and terms_of(value).keys() <= {0, *_linear(free)}:
            (index,) = free
            slope, offset = terms_of(value)[_linear(free)[0]], terms_of(value).get(0, 0)
            axes[index] = _both(axes[index], _solved(Fraction(slope), Fraction(offset), condition.relation))
        else:
            rest.add(condition)
    if not all(axes):
        return None
    box = Box((axes[0], axes[1], axes[2]))
    return replace(box, rest=frozenset(c for c in rest if not _goes_without_saying(c, box)))


def _goes_without_saying(condition: Condition, box: Box) -> bool:
    """Whether the ranges alone make a condition hold."""
    with _within(box) as path:
        least, _ = path.bounds(substituted(condition.value, fixed_of(box.axes)))
    return condition.relation == ">=" and least is not None and least >= 0


def _within(box: Box) -> Path:
    """Bounds of a box, as those of comparisons."""
    lower = tuple(ranges[0][0] for ranges in box.axes)
    return Path(lower, lower, tuple(ranges[-1][1] for ranges in box.axes))


def _linear(free: set[int]) -> list[int]:
    return [next(iter(terms_of(variable(index)))) for index in free]


def _solved(slope: Fraction, offset: Fraction, relation: str) -> Ranges:
    """The whole numbers x from 0 on for which slope·x + offset is what ``relation`` says of 0."""
    zero = -offset / slope
    if relation == ">=":
        if slope > 0:
            return ((max(0, -(-zero.numerator // zero.denominator)), None),)
        last = zero.numerator // zero.denominator
        return ((0, last),) if last >= 0 else ()
    at = int(zero) if zero.denominator == 1 and zero >= 0 else None
    if relation == "==":
        return () if at is None else ((at, at),)
    if at is None:
        return ((0, None),)
    return (((0, at - 1),) if at else ()) + ((at + 1, None),)


def _both(one: Ranges, other: Ranges) -> Ranges:
    """What lies in both."""
    found = []
    for (a, b), (c, d) in itertools.product(one, other):
        low = max(a, c)
        high = b if d is None else d if b is None else min(b, d)
        if high is None or low <= high:
            found.append((low, high))
    return tuple(sorted(found, key=lambda r: r[0]))


def fixed_of(axes: Sequence[Ranges]) -> dict[int, int]:
    """Sizes that can have one value only."""
    return {i: ranges[0][0] for i, ranges in enumerate(axes) if len(ranges) == 1 and ranges[0][0] == ranges[0][1]}


def _generality(box: Box) -> tuple[int, int, int]:
    """How much a box has: unbounded sizes, then few conditions, then how far up it begins."""
    unbounded = sum(ranges[-1][1] is None for ranges in box.axes)
    return unbounded, -len(box.rest), sum(ranges[-1][0] for ranges in box.axes)


def _same_within(one: Any, other: Any, box: Box) -> bool:
    """Whether two polynomials agree all over a box (where it is not certain: no)."""
    return terms_of(simplified(one, box)) == terms_of(simplified(other, box))


def simplified(value: Any, box: Box) -> Any:
    """What ``value`` is within a box: sizes that have one value put in, maxima without what is never the largest."""
    with _within(box):
        return largest([substituted(value, fixed_of(box.axes))])


def merged(boxes: Iterable[Box]) -> tuple[Box, ...]:
    """The same points in fewer boxes: those that differ in one size are put together."""
    left = list(dict.fromkeys(boxes))
    while True:
        for one, other in itertools.combinations(left, 2):
            joined = _joined(one, other)
            if joined is not None:
                left = [box for box in left if box not in (one, other)] + [joined]
                break
        else:
            return tuple(left)


def _joined(one: Box, other: Box) -> Box | None:
    if one.rest != other.rest:
        apart = one.rest ^ other.rest
        return Box(one.axes, one.rest & other.rest) if one.axes == other.axes and _opposite(*apart) else None
    different = [i for i in range(VARIABLES) if one.axes[i] != other.axes[i]]
    if len(different) > 1:
        return None
    axes = list(one.axes)
    for i in different:
        axes[i] = _union((*one.axes[i], *other.axes[i]))
    return replace(one, axes=(axes[0], axes[1], axes[2]))


def _opposite(*conditions: Condition) -> bool:
    """Whether of two conditions on whole numbers always one holds and never both."""
    if len(conditions) != 2:
        return False
    one, other = conditions
    if one.relation == other.relation == ">=":
        return terms_of(one.value + other.value + 1) == {}
    return {one.relation, other.relation} == {"==", "!="} and terms_of(one.value) == terms_of(other.value)


def sides(condition: Condition) -> tuple[Any, Any]:
    """A comparison with 0 as one of two sides with positive terms, as small as whole numbers allow.

    8·B·S − 129 >= 0 is (B·S, 17).
    """
    terms = dict(terms_of(condition.value))
    constant = Fraction(terms.pop(0, 0))
    factor = Fraction(math.gcd(*(Fraction(v).numerator for v in terms.values())), 1)
    factor /= math.lcm(*(Fraction(v).denominator for v in terms.values()))
    offset = constant / factor
    if condition.relation == ">=" and not any(Fraction(v / factor).denominator > 1 for v in terms.values()):
        offset = Fraction(offset.numerator // offset.denominator)
    scaled = {key: Fraction(value) / factor for key, value in terms.items()} | {0: offset}
    more = made_of({key: value for key, value in scaled.items() if value > 0})
    return more, made_of({key: -value for key, value in scaled.items() if value < 0})


def _union(ranges: Iterable[Range]) -> Ranges:
    found: list[Range] = []
    for low, high in sorted(ranges, key=lambda r: r[0]):
        if found and (found[-1][1] is None or low <= found[-1][1] + 1):
            before = found.pop()
            high = None if before[1] is None or high is None else max(before[1], high)
            low = before[0]
        found.append((low, high))
    return tuple(found)


Simple = tuple[Range, ...]


def _uncovered(whole: Sequence[Box], boxes: Iterable[Box]) -> list[Simple]:
    """What of a domain no box without further conditions has."""
    left: list[Simple] = [simple for box in whole for simple in itertools.product(*box.axes)]
    for box in boxes:
        if not box.rest:
            for simple in itertools.product(*box.axes):
                left = [part for piece in left for part in _without(piece, simple)]
    return left


def _without(piece: Simple, cut: Simple) -> list[Simple]:
    """A simple box less another: what sticks out, side by side."""
    if any(not _both((a,), (b,)) for a, b in zip(piece, cut, strict=True)):
        return [piece]
    parts = []
    for i, ((low, high), (cut_low, cut_high)) in enumerate(zip(piece, cut, strict=True)):
        if low < cut_low:
            parts.append((*piece[:i], (low, cut_low - 1), *piece[i + 1 :]))
        if cut_high is not None and (high is None or high > cut_high):
            parts.append((*piece[:i], (cut_high + 1, high), *piece[i + 1 :]))
        inside = _both(((low, high),), ((cut_low, cut_high),))
        piece = (*piece[:i], inside[0], *piece[i + 1 :])
    return parts
