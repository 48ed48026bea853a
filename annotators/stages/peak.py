"""What fills memory at the peak of a stage: the rows that reports show, tensors alike on one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fxmeter.annotators.pricing.liveness import Alive
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.models.scenario import Scenario


@dataclass(frozen=True, slots=True)
class AliveRow:
    """Tensors alive at the peak that one op made in one module, with the same shape and dtype.

    ``bytes`` of them all together, which are ``share`` of the peak.
    """

    module: str
    op: str
    shape: tuple[int, ...]
    dtype: str
    count: int
    bytes: int
    share: float


@dataclass(frozen=True, slots=True)
class AtPeak:
    """The moment of a stage at which most activation memory is in use: what ran where, and what was alive.

    ``rows`` have the largest first; ``count`` and ``bytes`` are their totals. ``past_len`` is that of the step, where
    the stage is a generation of several; None for any other.
    """

    node: str
    op: str
    module: str
    past_len: int | None
    count: int
    bytes: int
    rows: tuple[AliveRow, ...]


def at_peak(stage: AnnotatedStage) -> AtPeak | None:
    """The peak of a stage; None for a pass that makes nothing."""
    peak = stage.peak
    if peak is None:
        return None
    groups: dict[Any, list[Alive]] = {}
    for item in peak.alive:
        groups.setdefault((item.module, item.op, item.shape, item.dtype), []).append(item)
    rows = [_row(alike, peak.bytes) for alike in groups.values()]
    step = None if stage.fullest_step is None else stage.fullest_step.scenario
    return AtPeak(
        node=peak.node,
        op=peak.op,
        module=peak.module,
        past_len=step.past_len if isinstance(step, Scenario) else None,
        count=sum(row.count for row in rows),
        bytes=sum(row.bytes for row in rows),
        rows=tuple(sorted(rows, key=lambda row: -row.bytes)),
    )


def _row(alike: list[Alive], peak_bytes: int) -> AliveRow:
    first, total = alike[0], sum(item.bytes for item in alike)
    return AliveRow(first.module, first.op, first.shape, first.dtype, len(alike), total, total / peak_bytes)
