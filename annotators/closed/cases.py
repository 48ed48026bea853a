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
from typing import TypeAlias

from fxmeter.annotators.sheets.piece import Piece
from fxmeter.annotators.sheets.region import Interval
from fxmeter.annotators.symbolic import (
    ONE,
    VARIABLES,
    Guard,
    Guards,
    Relation,
    largest,
    made_of,
    substituted,
    terms_of,
    variable,
    variables_of,
)
from fxmeter.annotators.symbolic.monomials import monomial_of
from fxmeter.models.choices import StageName
from fxmeter.models.stage_cost import Size

Ranges: TypeAlias = tuple[Interval, ...]
"""Whole numbers: those in any of several intervals."""


@dataclass(frozen=True, slots=True)
class Box:
    """Points whose three sizes lie in these ranges, and for which all of ``rest`` holds."""

    axes: tuple[Ranges, Ranges, Ranges]
    rest: frozenset[Guard] = frozenset()


@dataclass(frozen=True, slots=True)
class Case:
    """``value`` is right in every one of ``boxes``."""

    value: Size
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class Cases:
    """All cases of a figure, the most general last. ``complete`` if their boxes are known to cover every point; then
    the last needs no condition."""

    cases: tuple[Case, ...]
    complete: bool


def domain(stage: StageName) -> tuple[Box, ...]:
    """Every point of the stage as it is usually meant."""
    batch, any_length = ((1, None),), ((0, None),)
    one: Ranges = ((1, 1),)
    none: Ranges = ((0, 0),)
    if stage == "vision":
        return Box((batch, batch, batch)), Box((batch, none, none))
    return (Box((batch, batch, none)),) if stage in ("encode", "prefill") else (Box((batch, one, any_length)),)


def cases_of(stage: StageName, pieces: Sequence[Piece], values: Sequence[Size]) -> Cases:
    """The cases of a figure that has ``values`` in ``pieces``."""
    whole = domain(stage)
    by_value: list[tuple[Size, list[Box]]] = []
    placed = [(value, box) for value, piece in zip(values, pieces, strict=True) for box in _boxes(piece, whole)]
    for value, box in sorted(placed, key=lambda item: _generality(item[1]), reverse=True):
        for general, boxes in by_value:
            if _same_within(general, value, box):
                boxes.append(box)
                break
        else:
            by_value.append((value, [box]))
    every = merged(box for _, boxes in by_value for box in boxes)
    cases = tuple(Case(value, merged(boxes)) for value, boxes in reversed(by_value))
    return Cases(cases, complete=not _uncovered(whole, every))


def _boxes(piece: Piece, whole: Sequence[Box]) -> list[Box]:
    """The part of the stage's domain that a piece is right in."""
    region = piece.region
    boxes = []
    for part in whole:
        bounds = zip(part.axes, region.lower, region.upper, strict=True)
        axes = [_both(ranges, ((low, high),)) for ranges, low, high in bounds]
        guards = list(piece.guards)
        together = variable(1) + variable(2)
        if region.sums[0] > 0:
            guards.append(Guard(together - region.sums[0], ">="))
        if region.sums[1] is not None:
            guards.append(Guard(region.sums[1] - together, ">="))
        box = _narrowed(axes, guards)
        if box is not None:
            boxes.append(box)
    return boxes


def _narrowed(axes: list[Ranges], guards: Iterable[Guard]) -> Box | None:
    """Guards on one size turned into ranges. None where nothing is left."""
    rest = set()
    for guard in guards:
        value = substituted(guard.value, fixed_of(axes))
        sizes, terms = variables_of(value), terms_of(value)
        if not sizes:
            if not Guard(value, guard.relation).holds((0, 0, 0)):
                return None
        elif len(sizes) == 1 and terms.keys() <= {ONE, *map(monomial_of, sizes)}:
            (index,) = sizes
            slope, offset = terms[monomial_of(index)], terms.get(ONE, 0)
            axes[index] = _both(axes[index], _solved(Fraction(slope), Fraction(offset), guard.relation))
        else:
            rest.add(guard)
    if not all(axes):
        return None
    box = Box((axes[0], axes[1], axes[2]))
    return replace(box, rest=frozenset(guard for guard in rest if not _goes_without_saying(guard, box)))


def _goes_without_saying(guard: Guard, box: Box) -> bool:
    """Whether the ranges alone make a guard hold."""
    least, _ = _within(box).bounds(substituted(guard.value, fixed_of(box.axes)))
    return guard.relation == ">=" and least is not None and least >= 0


def _within(box: Box) -> Guards:
    """Comparisons within the bounds of a box."""
    lower = tuple(ranges[0][0] for ranges in box.axes)
    return Guards(lower, lower, tuple(ranges[-1][1] for ranges in box.axes))


def _solved(slope: Fraction, offset: Fraction, relation: Relation) -> Ranges:
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
    common = []
    for (a, b), (c, d) in itertools.product(one, other):
        low = max(a, c)
        high = b if d is None else d if b is None else min(b, d)
        if high is None or low <= high:
            common.append((low, high))
    return tuple(sorted(common, key=lambda r: r[0]))


def fixed_of(axes: Sequence[Ranges]) -> dict[int, int]:
    """Sizes that can have one value only."""
    return {i: ranges[0][0] for i, ranges in enumerate(axes) if len(ranges) == 1 and ranges[0][0] == ranges[0][1]}


def _generality(box: Box) -> tuple[int, int, int]:
    """How much a box has: unbounded sizes, then few conditions, then how far up it begins."""
    unbounded = sum(ranges[-1][1] is None for ranges in box.axes)
    return unbounded, -len(box.rest), sum(ranges[-1][0] for ranges in box.axes)


def _same_within(one: Size, other: Size, box: Box) -> bool:
    """Whether two polynomials agree all over a box (where it is not certain: no)."""
    return terms_of(simplified(one, box)) == terms_of(simplified(other, box))


def simplified(value: Size, box: Box) -> Size:
    """What ``value`` is within a box: sizes that have one value put in, maxima without what is never the largest."""
    with _within(box):
        return largest([substituted(value, fixed_of(box.axes))])


def merged(boxes: Iterable[Box]) -> tuple[Box, ...]:
    """The same points in fewer boxes: those that differ in one size are put together."""
    different = list(dict.fromkeys(boxes))
    while True:
        for one, other in itertools.combinations(different, 2):
            joined = _joined(one, other)
            if joined is not None:
                different = [box for box in different if box not in (one, other)] + [joined]
                break
        else:
            return tuple(different)


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


def _opposite(*guards: Guard) -> bool:
    """Whether of two guards on whole numbers always one holds and never both."""
    if len(guards) != 2:
        return False
    one, other = guards
    if one.relation == other.relation == ">=":
        return terms_of(one.value + other.value + 1) == {}
    return {one.relation, other.relation} == {"==", "!="} and terms_of(one.value) == terms_of(other.value)


def sides(guard: Guard) -> tuple[Size, Size]:
    """A comparison with 0 as one of two sides with positive terms, as small as whole numbers allow.

    8·B·S − 129 >= 0 is (B·S, 17).
    """
    terms = {monomial: Fraction(value) for monomial, value in terms_of(guard.value).items()}
    constant = terms.pop(ONE, Fraction(0))
    numerators, denominators = zip(*((value.numerator, value.denominator) for value in terms.values()), strict=True)
    factor = Fraction(math.gcd(*numerators), math.lcm(*denominators))
    scaled = {monomial: value / factor for monomial, value in terms.items()}
    offset = constant / factor
    if guard.relation == ">=" and all(value.denominator == 1 for value in scaled.values()):
        offset = Fraction(math.floor(offset))
    scaled[ONE] = offset
    more = made_of({monomial: value for monomial, value in scaled.items() if value > 0})
    return more, made_of({monomial: -value for monomial, value in scaled.items() if value < 0})


def _union(ranges: Iterable[Interval]) -> Ranges:
    union: list[Interval] = []
    for low, high in sorted(ranges, key=lambda r: r[0]):
        if union and (union[-1][1] is None or low <= union[-1][1] + 1):
            first, last = union.pop()
            low, high = first, None if last is None or high is None else max(last, high)
        union.append((low, high))
    return tuple(union)


Simple: TypeAlias = tuple[Interval, ...]
"""One range of each size."""


def _uncovered(whole: Sequence[Box], boxes: Iterable[Box]) -> list[Simple]:
    """What of a domain no box without further conditions has."""
    uncovered: list[Simple] = [simple for box in whole for simple in itertools.product(*box.axes)]
    for box in boxes:
        if not box.rest:
            for simple in itertools.product(*box.axes):
                uncovered = [part for piece in uncovered for part in _without(piece, simple)]
    return uncovered


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
