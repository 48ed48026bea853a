"""Where most activation memory of a pass is in use, and by what; and the rows of it that reports show."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from fxmeter.annotators.pricing.liveness import Lifetimes
from fxmeter.annotators.sheets.tables import AliveRow, AtPeak
from fxmeter.tracer.capture.recording import Recording
from fxmeter.tracer.graph.nodes import executed, made_by, meta_of
from fxmeter.tracer.graph.spec import Spec, Storage


@dataclass(frozen=True, slots=True)
class Alive:
    """A tensor alive at a moment: the node, op and module that made it, and what it is."""

    node: str
    op: str
    module: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Peak:
    """The moment at which most activation memory is in use: the op that ran, where, and what was alive, largest first.

    ``module`` is the layer call with most alive, of all identical ones; the bytes of ``alive`` add up to ``bytes``.
    """

    bytes: int
    node: str
    op: str
    module: str
    alive: tuple[Alive, ...]


def at_peak(peak: Peak | None, past_len: int | None = None) -> AtPeak | None:
    """A peak as rows; None for a pass that makes nothing."""
    if peak is None:
        return None
    groups: dict[tuple[str, str, tuple[int, ...], str], list[Alive]] = {}
    for item in peak.alive:
        groups.setdefault((item.module, item.op, item.shape, item.dtype), []).append(item)
    rows = [_row(alike, peak.bytes) for alike in groups.values()]
    return AtPeak(
        node=peak.node,
        op=peak.op,
        module=peak.module,
        past_len=past_len,
        count=sum(row.count for row in rows),
        bytes=sum(row.bytes for row in rows),
        rows=tuple(sorted(rows, key=lambda row: -row.bytes)),
    )


def _row(alike: list[Alive], peak_bytes: int) -> AliveRow:
    first, total = alike[0], sum(item.bytes for item in alike)
    return AliveRow(first.module, first.op, first.shape, first.dtype, len(alike), total, total / peak_bytes)


def find_peak(recording: Recording) -> Peak | None:
    """Where the peak of a pass is; None for a pass that makes nothing."""
    lifetimes = Lifetimes(recording)
    making = [node for node in executed(recording.graph) if made_by(node)]
    if not making:
        return None
    node = max(making, key=lambda n: (lifetimes.peak_of(n), -lifetimes.begins(n)))
    alive_there, renamed = _alive_in_fullest_calls(node, lifetimes)
    makers = {storage.id: (maker, spec) for maker in making for storage, spec in made_by(maker).items()}
    alive = [_describe(*makers[storage.id], path) for storage, path in alive_there]
    return Peak(
        bytes=lifetimes.peak_of(node),
        node=node.name,
        op=str(node.target),
        module=_rename(meta_of(node).module, renamed),
        alive=tuple(sorted(alive, key=lambda item: -item.bytes)),
    )


_Renamed = tuple[tuple[str, str], ...]


def _alive_in_fullest_calls(node: fx.Node, lifetimes: Lifetimes) -> tuple[list[tuple[Storage, _Renamed]], _Renamed]:
    """What is alive at a node in the fullest of the calls that it stands for, and how that call's paths read.

    Around the outermost call: what was alive when the fullest one began, but for what it let go of meanwhile; in it the
    same around the next inner call; and in the innermost what is alive at the node's own moment.
    """
    alive: list[tuple[Storage, _Renamed]] = []
    renamed: _Renamed = ()
    moment, since = lifetimes.fullest_moment(node), -1
    for instance in meta_of(node).instances:
        index = lifetimes.fullest_call(instance)
        skip = instance.skips[index - 1] if index else None
        gone = {s.id for s in lifetimes.alive_at(instance.began) if s.died is not None and s.died <= moment}
        if skip is not None:
            pairs = zip(instance.given, skip.given, strict=True)
            own_of = {recorded.id: own.id for recorded, own in pairs if recorded is not None and own is not None}
            gone = {own_of.get(id, id) for id in gone}
        there = lifetimes.alive_at(instance.began if skip is None else skip.moment)
        alive += [(s, renamed) for s in there if s.born > since and s.id not in gone]
        since, renamed = instance.began, (*renamed, (instance.paths[0], instance.paths[index]))
    alive += [(s, renamed) for s in lifetimes.alive_at(moment) if s.born > since]
    return alive, renamed


def _describe(maker: fx.Node, spec: Spec, renamed: _Renamed) -> Alive:
    return Alive(
        node=maker.name,
        op=str(maker.target),
        module=_rename(meta_of(maker).module, renamed),
        shape=tuple(spec.shape),
        dtype=str(spec.dtype).removeprefix("torch."),
        bytes=spec.storage.nbytes,
    )


def _rename(path: str, renamed: _Renamed) -> str:
    """A recorded module's path as it reads in another call."""
    for recorded, other in reversed(renamed):
        if path == recorded or path.startswith(recorded + "."):
            return other + path[len(recorded) :]
    return path
