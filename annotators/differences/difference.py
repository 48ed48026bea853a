"""What two reports, or two stages, differ in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from fxmeter.annotators.differences.pairs import Pair, every, paired
from fxmeter.annotators.differences.parts import SECONDS, part_of
from fxmeter.annotators.differences.saved import read_report
from fxmeter.annotators.documents.head import scenario_in
from fxmeter.annotators.sheets.titles import title
from fxmeter.models.errors import FxmeterError
from fxmeter.models.names import Document
from fxmeter.models.stage_cost import FIGURES, PASS_FIGURES

if TYPE_CHECKING:
    from fxmeter.annotators.stages.rollup import AnnotatedStage

Value: TypeAlias = str | float | None
Source: TypeAlias = "AnnotatedStage | Document | str | Path"
_TIMES = ("bound_s", SECONDS, "launch_s", "tokens_per_s")
_FACTS = (
    "name",
    "model_type",
    "layers",
    "parameters",
    "active_parameters",
    "weight_bytes",
    "vision_parameters",
    "source_sha256",
)


@dataclass(frozen=True, slots=True)
class Change:
    """One figure or fact of both sides; None where a side does not have it."""

    name: str
    before: Value
    after: Value

    @property
    def differs(self) -> bool:
        """Whether the two are not the same."""
        return self.before != self.after

    @property
    def change(self) -> float | None:
        """By how much: after less before. None of words, and where one is missing."""
        if isinstance(self.before, int | float) and isinstance(self.after, int | float):
            return self.after - self.before
        return None

    @property
    def ratio(self) -> float | None:
        """After as a multiple of before; None where there is no change to say, or nothing before."""
        return self.after / self.before if self.change is not None and self.before else None  # type: ignore[operator]


@dataclass(frozen=True, slots=True)
class OpChange:
    """All executions of an op: how many, and what they cost together."""

    op: str
    count: Change
    figures: Mapping[str, Change]


@dataclass(frozen=True, slots=True)
class StageDifference:
    """Two stages, figure by figure.

    Attributes:
        before, after: what the two are, in words.
        figures: every figure of the passes, and what is derived of them.
        parts: the modules by role, the root first; None where only one side has the stage.
        ops: ops whose count or cost differs.
        headline: the figure that the stage is bound by: the time where there is one, bytes moved in decode, else FLOPs.
    """

    before: str
    after: str
    figures: tuple[Change, ...]
    parts: Pair | None
    ops: tuple[OpChange, ...]
    headline: str

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        alike = self.parts is not None and self.parts.alike
        return alike and not self.ops and not any(change.differs for change in self.figures)

    def heaviest(self, count: int, figure: str = "") -> list[Pair]:
        """The parts whose own ``figure`` (the headline) changes most. Own changes of all parts add up to the whole."""
        figure = figure or self.headline
        pairs = [] if self.parts is None else [pair for pair in every(self.parts) if pair.own_change(figure)]
        return sorted(pairs, key=lambda pair: -abs(pair.own_change(figure)))[:count]

    def heaviest_ops(self, count: int, figure: str) -> list[OpChange]:
        """The ops whose ``figure`` changes most, then those whose count does."""
        changed = (op for op in self.ops if op.figures[figure].differs or op.count.differs)
        return sorted(changed, key=lambda op: -abs(op.figures[figure].change or 0))[:count]

    def share(self, pair: Pair) -> float | None:
        """What a part itself has of the change of the headline; None where the whole does not change."""
        whole = 0 if self.parts is None else self.parts.change(self.headline)
        return pair.own_change(self.headline) / whole if whole else None


@dataclass(frozen=True, slots=True)
class Difference:
    """Two reports: ``facts`` are of the models and what was assumed of them, ``versions`` of what made the reports."""

    before: str
    after: str
    facts: tuple[Change, ...]
    versions: tuple[Change, ...]
    stages: tuple[StageDifference, ...]

    @property
    def same(self) -> bool:
        """Whether no fact and no figure differs. Versions may."""
        return all(stage.same for stage in self.stages) and not any(change.differs for change in self.facts)


def diff(before: Source, after: Source) -> Difference:
    """What two reports or two stages differ in: figures, then modules of the same role, then ops.

    Args:
        before, after: a stage that ``annotate`` gave, a report's document, or the path of a saved report
            (``fxmeter report --json FILE``).

    Returns:
        The differences.

    Raises:
        FxmeterError: for a file that is no report, or one of another schema.
    """
    one, other = _document(before), _document(after)
    try:
        return Difference(
            _name(one),
            _name(other),
            tuple(_facts(one, other)),
            tuple(_changes(one.get("versions", {}), other.get("versions", {}))),
            tuple(_stage(*pair) for pair in _stages(one["stages"], other["stages"])),
        )
    except (AttributeError, KeyError, TypeError) as error:
        sources = " or ".join(str(side) for side in (before, after) if isinstance(side, str | Path))
        if not sources:
            raise
        raise FxmeterError(f"{sources}: is no whole report ({type(error).__name__}: {error}); write it again") from None


def _document(source: Source) -> Document:
    if isinstance(source, str | Path):
        return read_report(Path(source))
    if isinstance(source, Mapping) and "stages" in source:
        return dict(source)
    from fxmeter.annotators.documents.report import stage_of  # with torch, which saved reports do without
    from fxmeter.annotators.stages.rollup import AnnotatedStage

    if isinstance(source, AnnotatedStage):
        return {"stages": [stage_of(source.reported())]}
    raise FxmeterError(f"diff takes stages, reports and files of them, not {type(source).__name__}")


def _name(document: Document) -> str:
    return str(document.get("model", {}).get("name", ""))


def _changes(before: Mapping[str, Value], after: Mapping[str, Value]) -> Iterator[Change]:
    """Of every key of the two."""
    for name in dict.fromkeys([*before, *after]):
        yield Change(name, before.get(name), after.get(name))


def _facts(one: Document, other: Document) -> Iterator[Change]:
    """What the models are and what was assumed of them, where the two reports say it."""
    before, after = ({name: side.get("model", {}).get(name) for name in _FACTS} for side in (one, other))
    yield from (change for change in _changes(before, after) if (change.before, change.after) != (None, None))
    assumed = [{name: _word(value) for name, value in side.get("conventions", {}).items()} for side in (one, other)]
    yield from _changes(*assumed)


def _word(value: object) -> Value:
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "nothing"
    return value if isinstance(value, str | int | float | None) else str(value)


def _stages(before: Sequence[Document], after: Sequence[Document]) -> list[tuple[Document | None, Document | None]]:
    """Stages by their names, and by their attentions where both reports have the same ones, each in its order."""
    by_attention = {stage["attention"] for stage in before} == {stage["attention"] for stage in after}

    def kind(stage: Document) -> object:
        return (stage["stage"], stage["attention"] if by_attention else None)

    rest = list(after)
    pairs: list[tuple[Document | None, Document | None]] = []
    for stage in before:
        other = next((item for item in rest if kind(item) == kind(stage)), None)
        if other is not None:
            rest.remove(other)
        pairs.append((stage, other))
    if len(pairs) == len(rest) == 1:  # one stage each: what is asked for is how they differ
        return [(pairs[0][0], rest[0])]
    return [*pairs, *((None, stage) for stage in rest)]


def _stage(before: Document | None, after: Document | None) -> StageDifference:
    one, other = _figures(before), _figures(after)
    any_stage = after or before or {}
    timed = before is not None and after is not None and bool(before.get("time")) and bool(after.get("time"))
    headline = SECONDS if timed else "io_bytes" if any_stage["stage"] == "decode" else "flops"
    roots = [None if side is None else part_of(side) for side in (before, after)]
    return StageDifference(
        title_in(before),
        title_in(after),
        tuple(_changes(one, other)),
        None if None in roots else paired(roots[0], roots[1], headline),
        tuple(_ops(before, after)),
        headline,
    )


def _figures(stage: Document | None) -> dict[str, Value]:
    """Every figure of a stage, its time on the first device, and what its cache takes for a token."""
    if stage is None:
        return {}
    found: dict[str, Value] = {name: stage["cost"][name] for name in FIGURES}
    found |= {name: stage[name] for name in PASS_FIGURES}
    tokens = stage.get("batch", 0) * (stage.get("past_len", 0) + stage.get("query_len", 0) * stage.get("steps", 1))
    if tokens and stage["cost"]["kv_bytes"]:
        found["kv_bytes_per_token"] = stage["cost"]["kv_bytes"] / tokens
    if stage.get("time"):
        found |= {"device": stage["time"][0]["device"], **{name: stage["time"][0][name] for name in _TIMES}}
    return found


def title_in(stage: Document | None) -> str:
    """What a stage of a document is: its scenario and attention."""
    if stage is None:
        return ""
    scenario = scenario_in(stage)
    return f"{stage['stage'] if scenario is None else title(scenario)}, {stage['attention']}"


def _ops(before: Document | None, after: Document | None) -> Iterator[OpChange]:
    """The ops that differ, those whose bytes and FLOPs change most first."""
    sides = [{} if side is None else {row["op"]: row for row in side["ops"]} for side in (before, after)]
    changes = []
    for op in dict.fromkeys([*sides[0], *sides[1]]):
        rows = [side.get(op) for side in sides]
        count = Change("count", *(0 if row is None else row["count"] for row in rows))
        figures = {name: Change(name, *(0 if row is None else row["cost"][name] for row in rows)) for name in FIGURES}
        if count.differs or any(change.differs for change in figures.values()):
            changes.append(OpChange(op, count, figures))
    return iter(sorted(changes, key=lambda item: -sum(abs(item.figures[n].change or 0) for n in ("flops", "io_bytes"))))
