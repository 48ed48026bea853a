"""Which architectures nobody beats in two figures at once."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from fxmeter.annotators.studies.architectures.question import Column, Question
from fxmeter.models.errors import ScenarioError
from fxmeter.models.names import Fields, near

MOST_POINTS = 20_000
"""Points beside the front that a picture shows; of more, every n-th."""


@dataclass(frozen=True, slots=True)
class Front:
    """Two figures, the architectures that no other one equals or beats in both, by the first, and a sample of all.

    ``rows`` have the values of what was varied and of both figures; ``points`` are (first, second) of ``count``.
    """

    first: Column
    second: Column
    rows: tuple[Fields, ...]
    points: tuple[tuple[float, float], ...]
    count: int


def read_pareto(text: str, question: Question) -> tuple[Column, Column]:
    """ "tpot,parameters" as two figures; ``:max`` or ``:min`` behind one says what is better, where it is not said by
    the figure itself (less, but for parameters and ratios). Raises ScenarioError."""
    columns = {column.name: column for column in question.columns if column.kind != "word"}
    found = []
    for part in text.split(","):
        name, _, better = part.strip().partition(":")
        if name not in columns:
            timed = "; it needs --device" if name in ("ttft", "tpot") and not question.devices else ""
            raise ScenarioError(f"--pareto {text}: no figure is called {name or 'that'}{timed}; {near(name, columns)}")
        if better not in ("", "max", "min"):
            raise ScenarioError(f"--pareto {text}: {part.strip()} ends in neither :max nor :min")
        one = columns[name]
        more = one.more_is_better if not better else better == "max"
        found.append(Column(one.name, one.label, one.kind, one.whole, more))
    if len(found) != 2 or found[0].name == found[1].name:
        raise ScenarioError(f"--pareto {text}: name two figures, such as tpot,parameters")
    return found[0], found[1]


def front_of(rows: Iterable[Fields], first: Column, second: Column) -> Front:
    """The front of rows, however many. Of those that are equal in both figures, the first is taken."""
    signs = tuple(-1 if column.more_is_better else 1 for column in (first, second))
    best: list[tuple[float, float, Fields]] = []  # sorted by the first figure; the second falls along it
    points: list[tuple[float, float]] = []
    count, step = 0, 1
    for row in rows:
        point = row[first.name], row[second.name]
        _enter(best, (signs[0] * point[0], signs[1] * point[1]), row)
        if count % step == 0:
            points.append(point)
        count += 1
        if len(points) > MOST_POINTS:
            points, step = points[::2], 2 * step
    return Front(first, second, tuple(row for *_, row in best), tuple(points), count)


def _enter(best: list[tuple[float, float, Fields]], place: tuple[float, float], row: Fields) -> None:
    """Add a row that none beats or equals, in the place of those that it beats."""
    behind = bisect_right(best, place[0], key=lambda each: each[0])
    if behind and best[behind - 1][1] <= place[1]:
        return
    start = end = bisect_left(best, place[0], key=lambda each: each[0])
    while end < len(best) and best[end][1] >= place[1]:
        end += 1
    best[start:end] = [(*place, row)]
