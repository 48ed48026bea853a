"""Laying one sequence over another: the longest common subsequence, in time that grows with what differs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

MOST_DIFFERENCES = 2_000
"""Beyond that many, what they have in common at their ends is taken and no more: it is another model's trace. The
memory of the search grows with the square."""


def align(first: Sequence[Hashable], second: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Pairs of places at which both have the same, in order and as many as there can be.

    E. W. Myers, "An O(ND) difference algorithm and its variations", Algorithmica 1 (1986): the furthest that one gets
    on each diagonal with 0, 1, 2, ... differences, then the way back.
    """
    begin, rows, columns = 0, len(first), len(second)
    while begin < min(rows, columns) and first[begin] == second[begin]:
        begin += 1
    while rows > begin and columns > begin and first[rows - 1] == second[columns - 1]:
        rows, columns = rows - 1, columns - 1
    ends = [(place, place) for place in range(begin)]
    tail = [(rows + place, columns + place) for place in range(len(first) - rows)]
    between = _between(first[begin:rows], second[begin:columns])
    return [*ends, *((row + begin, column + begin) for row, column in between), *tail]


def _between(first: Sequence[Hashable], second: Sequence[Hashable]) -> list[tuple[int, int]]:
    if not first or not second or not set(first) & set(second):
        return []
    furthest = {1: 0}
    history: list[dict[int, int]] = []
    for differences in range(min(len(first) + len(second), MOST_DIFFERENCES) + 1):
        history.append(dict(furthest))
        for diagonal in range(-differences, differences + 1, 2):
            row = _reached(furthest, diagonal, differences)
            column = row - diagonal
            while row < len(first) and column < len(second) and first[row] == second[column]:
                row, column = row + 1, column + 1
            furthest[diagonal] = row
            if row >= len(first) and column >= len(second):
                return _way_back(history, row, column)
    return []


def _reached(furthest: dict[int, int], diagonal: int, differences: int) -> int:
    """How far one gets onto a diagonal from its neighbours, before what both have in common."""
    if _from_above(furthest, diagonal, differences):
        return furthest[diagonal + 1]
    return furthest[diagonal - 1] + 1


def _from_above(furthest: dict[int, int], diagonal: int, differences: int) -> bool:
    """Whether the last difference on the way onto a diagonal is something that only the second sequence has."""
    if abs(diagonal) == differences:
        return diagonal == -differences
    return furthest[diagonal - 1] < furthest[diagonal + 1]


def _way_back(history: Sequence[dict[int, int]], row: int, column: int) -> list[tuple[int, int]]:
    pairs = []
    for differences in range(len(history) - 1, -1, -1):
        furthest, diagonal = history[differences], row - column
        start = _reached(furthest, diagonal, differences) if differences else 0
        while row > start:
            row, column = row - 1, column - 1
            pairs.append((row, column))
        if differences:
            above = _from_above(furthest, diagonal, differences)
            row, column = (row, column - 1) if above else (row - 1, column)
    return pairs[::-1]
