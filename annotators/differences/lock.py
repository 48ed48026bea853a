"""Lock files: every figure of a model in a file that is reviewed like code, and what of them has moved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fxmeter.annotators.differences.difference import Change, Difference, StageDifference
from fxmeter.annotators.differences.pairs import every
from fxmeter.annotators.differences.parts import SUMMED
from fxmeter.annotators.differences.saved import read_report
from fxmeter.annotators.units import read_share
from fxmeter.models.errors import FxmeterError, ScenarioError
from fxmeter.models.names import Document, near
from fxmeter.models.stage_cost import EXACT, FIELDS, PASS_FIGURES

WATCHED = (*EXACT, *PASS_FIGURES)
"""Figures that a lock holds to what they were."""
_HEAD = ("schema_version", "analytic_model_version", "versions", "model", "conventions")
_NO_FIGURES = ("per_step", "cost", "modules", "ops", "peak", "kv_cache", "time", *PASS_FIGURES)
LOCK = "fxmeter lock MODEL --file FILE"
_DEEPEST = 4
"""Values that lie deeper are on one line: a module or an op, with its figures."""


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock file that was read: the report that it was made of, and with what it was asked."""

    report: Document
    model: str
    options: tuple[str, ...]
    tolerances: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Moved:
    """A figure that is not what the lock says: of a pass, or of all ``times`` modules of one role in it.

    ``module`` is the first one's path. Modules are those that changed by themselves, not by what is in them.
    """

    stage: str
    module: str
    times: int
    figure: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Checked:
    """What has moved beyond its tolerance, and why it may have."""

    difference: Difference
    moved: tuple[Moved, ...]
    model_changed: bool
    versions: tuple[Change, ...]

    @property
    def reason(self) -> str:
        """Whose change it is, in words."""
        told = ", ".join(f"{item.name} {item.before} → {item.after}" for item in self.versions)
        if self.model_changed:
            return f"the model has changed{f', and so have {told}' if told else ''}"
        if told:
            return f"the model is the same; changed are {told}"
        return "neither the model's config nor a version has changed: what was asked of it, or its code, has"


def locked(report: Document, model: str, options: Sequence[str], tolerances: Mapping[str, float]) -> Document:
    """What of a report a lock keeps: the figures that are counted, of passes, modules and ops.

    Args:
        report: the document of ``fxmeter report``.
        model, options: what it was asked with.
        tolerances: figure → the share of it that may move, 0.01 for one in a hundred; 0 where none is given.
    """
    stages = [_stage(item) for item in report["stages"]]
    asked = {"model": model, "options": list(options), "tolerances": dict(tolerances), "figures": seal(stages)}
    return {"lock": asked, **{key: report[key] for key in _HEAD}, "stages": stages}


def lock_text(lock: Document) -> str:
    """The file: a line for each figure of a pass, each module and each op, the same bytes for the same figures."""
    return _text(lock, 0) + "\n"


def read_lock(path: Path) -> Lock:
    """What :func:`lock_text` wrote, with the figures that are derived from those in the file.

    Raises:
        FxmeterError: a file that is not there, cut, no lock, or edited so that it cannot be read.
    """
    document = read_report(path, LOCK)
    try:
        asked = document["lock"]
        model, options = str(asked["model"]), tuple(map(str, asked["options"]))
        tolerances, written = dict(asked["tolerances"]), asked["figures"]
        figures = seal(list(map(_stage, document["stages"])))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FxmeterError(f"{path}: is not whole ({type(error).__name__}: {error}); write it with `{LOCK}`") from None
    if written != figures:
        raise FxmeterError(
            f"{path}: its figures are not those that `fxmeter lock` wrote: edited, or merged of two; write it again"
        )
    _check_tolerances(tolerances)
    return Lock(document, model, options, tolerances)


def read_tolerances(texts: Sequence[str]) -> dict[str, float]:
    """What ``--tolerance io_bytes=1%`` says, each figure with its share.

    Raises:
        FxmeterError: no such figure, or no share from 0 to less than 1.
    """
    found = {}
    for text in texts:
        name, _, share = text.partition("=")
        try:
            found[name] = read_share(share)
        except ScenarioError as error:
            raise FxmeterError(f"--tolerance {text}: {error}") from None
    _check_tolerances(found)
    return found


def checked(difference: Difference, lock: Lock) -> Checked:
    """What of a lock has moved by more than it may; ``difference`` is of its report and of today's."""
    identity = next((change for change in difference.facts if change.name == "source_sha256"), None)
    return Checked(
        difference,
        tuple(item for stage in difference.stages for item in _moved(stage, lock.tolerances)),
        identity is not None and identity.differs,
        tuple(change for change in difference.versions if change.differs),
    )


def seal(stages: Sequence[Document]) -> str:
    """What tells whether figures in a file are those that were written into it."""
    return hashlib.sha256(json.dumps(stages, sort_keys=True).encode()).hexdigest()[:16]


def _stage(stage: Document) -> Document:
    return {
        **{key: value for key, value in stage.items() if key not in _NO_FIGURES},
        "cost": _counted(stage["cost"]),
        **{name: stage[name] for name in PASS_FIGURES},
        "modules": [{**row, "cost": _counted(row["cost"])} for row in stage["modules"]],
        "ops": [{**row, "cost": _counted(row["cost"])} for row in stage["ops"]],
    }


def _counted(cost: Document) -> Document:
    """Zeros, and what is derived from the others, are left out."""
    return {name: cost[name] for name in FIELDS if cost[name]}


def _text(value: Any, depth: int) -> str:
    if depth == _DEEPEST or not isinstance(value, dict | list) or not value:
        return json.dumps(value)
    pad = "\n" + " " * (depth + 1)
    if isinstance(value, dict):
        inner = [f"{json.dumps(key)}: {_text(item, depth + 1)}" for key, item in value.items()]
        return "{" + pad + f",{pad}".join(inner) + pad[:-1] + "}"
    return "[" + pad + f",{pad}".join(_text(item, depth + 1) for item in value) + pad[:-1] + "]"


def _check_tolerances(tolerances: Mapping[str, object]) -> None:
    for name, share in tolerances.items():
        if name not in WATCHED:
            raise FxmeterError(f"no figure is called {name}; {near(name, WATCHED)}a lock has {', '.join(WATCHED)}")
        if not isinstance(share, int | float) or not 0 <= share < 1:
            raise FxmeterError(f"the tolerance of {name} is {share!r}; it is a share from 0 to less than 1")


def _moved(stage: StageDifference, tolerances: Mapping[str, float]) -> Iterator[Moved]:
    title = stage.after or stage.before
    for change in stage.figures:
        before, after = _number(change.before), _number(change.after)
        if change.name in WATCHED and _beyond(before, after, tolerances.get(change.name, 0)):
            yield Moved(title, "", 1, change.name, before, after)
    for pair in () if stage.parts is None else every(stage.parts):
        times = max(part.count for part in (pair.before, pair.after) if part is not None)
        for name in SUMMED if pair.path else ():
            before, after = pair.amount_before(name), pair.amount_after(name)
            if pair.own_change(name) and _beyond(before, after, tolerances.get(name, 0)):
                yield Moved(title, pair.path, times, name, before, after)


def _beyond(before: float, after: float, share: float) -> bool:
    return abs(after - before) > share * abs(before)


def _number(value: object) -> float:
    """A figure; 0 of a stage that is not there."""
    return value if isinstance(value, int | float) else 0
