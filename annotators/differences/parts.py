"""The modules of a stage's document as a tree, and identical ones as one part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from fxmeter.annotators.sheets.tables import CONTAINERS
from fxmeter.models.names import Document
from fxmeter.models.stage_cost import FIGURES

SUMMED = tuple(name for name, figure in FIGURES.items() if figure.over_parts == "sum" and figure.whole)
"""Figures of which a whole is the sum of its parts."""
SECONDS = "estimate_s"
"""The estimated time of a part, where a stage has one."""

Amounts = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Part:
    """Identical modules of one parent.

    Attributes:
        name: the first one's, as its parent calls it ("layers.0").
        path: the first one's.
        class_name: of each.
        count: how many there are in the whole model.
        amounts: of all of them together: the figures of :data:`SUMMED`, and :data:`SECONDS` where the stage has a time.
        children: what they are made of, for all of them together.
    """

    name: str
    path: str
    class_name: str
    count: int
    amounts: Amounts
    children: tuple[Part, ...] = ()

    @property
    def numbered(self) -> bool:
        """Whether it is a member of a list."""
        return self.name.rpartition(".")[2].isdigit()

    @property
    def prefix(self) -> str:
        """Of a member, its list."""
        return self.name.rpartition(".")[0]

    @property
    def own(self) -> Amounts:
        """What its children do not have."""
        return {
            name: whole - sum(child.amounts[name] for child in self.children) for name, whole in self.amounts.items()
        }


def part_of(stage: Document) -> Part:
    """The root of a stage's modules. ``stage`` is an item of a report's ``stages``."""
    seconds = {row["path"]: row[SECONDS] for row in stage["time"][0]["modules"]} if stage.get("time") else {}
    parts: dict[str, Part] = {}
    within: dict[str, list[str]] = {}
    for row in stage["modules"]:
        path, times = row["path"], row["times"]
        if path and row["class"] in CONTAINERS:
            continue
        amounts: dict[str, float] = {name: row["cost"][name] * times for name in SUMMED}
        if seconds:
            amounts[SECONDS] = seconds.get(path, 0.0) * times
        parent = _parent(path, parts)
        name = path if parent == "" else path.removeprefix(f"{parent}.")
        parts[path] = Part(name, path, row["class"], times, amounts)
        if path:
            within.setdefault(parent, []).append(path)
    return _whole("", parts, within)


def _parent(path: str, parts: Mapping[str, Part]) -> str:
    """The nearest module that it is in and that runs."""
    while path:
        path = path.rpartition(".")[0]
        if path in parts:
            return path
    return ""


def _whole(path: str, parts: Mapping[str, Part], within: Mapping[str, list[str]]) -> Part:
    """A part with everything in it."""
    children = (_whole(child, parts, within) for child in within.get(path, ()))
    return replace(parts[path], children=tuple(children))


def merged(members: Iterable[Part]) -> list[Part]:
    """Members of a list that are alike in class, amounts and children as one part: layers that were recorded in full
    are then what a folded one says."""
    found: dict[object, Part] = {}
    for part in members:
        key = likeness(part)
        found[key] = both(found[key], part) if key in found else part
    return list(found.values())


def likeness(part: Part) -> object:
    """What two members of a list have in common where they are one part: everything, for each of their instances."""
    each = tuple(part.amounts[name] / part.count for name in SUMMED)
    return (
        part.class_name,
        each,
        tuple((child.name, child.count / part.count, likeness(child)) for child in part.children),
    )


def both(one: Part, other: Part) -> Part:
    """Two parts that are alike, as one."""
    return replace(
        one,
        count=one.count + other.count,
        amounts={name: amount + other.amounts[name] for name, amount in one.amounts.items()},
        children=tuple(map(both, one.children, other.children)),
    )
