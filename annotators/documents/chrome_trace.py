"""Timelines as a Chrome trace, which ui.perfetto.dev, chrome://tracing and speedscope open, all from a local file.

Chosen over the snapshot of PyTorch's memory viewer. That one is a pickle, which nobody should load from somebody else
and which no tool but one web page reads; it knows allocations and stack traces, but no modules, no cache and no
weights. A trace is JSON that can be read, searched and compared, and one file has the allocations, the modules and ops
that ran meanwhile as nested slices, and a counter for each kind of memory.

Each pass is a process: a track with its modules and ops, a counter for each kind of memory, and below them the
activations, each a slice from its birth to its death. A microsecond in the viewer is one event of the pass, not a time.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator, Mapping

from fxmeter.annotators.studies.timeline import ACTIVATIONS, RESIDENT, Allocation, Span, Timeline
from fxmeter.models.names import Document, Fields

Event = Document
_PROGRAM = 1
"""The track of modules and ops; activations have those behind it."""


def trace_text(timelines: Iterable[Timeline], about: Fields) -> str:
    """The file: one event a line, in order. ``about`` says what the passes are of."""
    events = (event for process, timeline in enumerate(timelines, 1) for event in _process(timeline, process))
    return events_text(events, {**about, "unit": "a microsecond is one event of the pass, not a time"})


def events_text(events: Iterable[Event], about: Fields) -> str:
    """A Chrome trace: one event a line."""
    lines = ",\n".join(json.dumps(event, separators=(",", ":"), ensure_ascii=False) for event in events)
    return f'{{"displayTimeUnit":"ns","otherData":{json.dumps(about)},"traceEvents":[\n{lines}\n]}}\n'


def _process(timeline: Timeline, process: int) -> Iterator[Event]:
    rows = _rows(timeline)
    names = [(_PROGRAM, "modules and ops")]
    names += [(track, f"activations {track - _PROGRAM:02}") for track in sorted({track for track, _ in rows})]
    yield _named("process_name", process, 0, f"{timeline.title}, {timeline.attention}")
    yield {"ph": "M", "name": "process_sort_index", "pid": process, "tid": 0, "args": {"sort_index": process}}
    for track, name in names:
        yield _named("thread_name", process, track, name)
        yield {"ph": "M", "name": "thread_sort_index", "pid": process, "tid": track, "args": {"sort_index": track}}
    events = [*_slices(timeline.spans), *_tensors(rows), *_counters(timeline), _peak(timeline)]
    for event in sorted(events, key=lambda event: event["ts"]):
        yield {**event, "pid": process}


def _named(what: str, process: int, track: int, name: str) -> Event:
    return {"ph": "M", "name": what, "pid": process, "tid": track, "args": {"name": name}}


def _slices(spans: Iterable[Span]) -> Iterator[Event]:
    """Begin and end of every module's call and op, nested."""
    open_spans: list[Span] = []

    def close(depth: int) -> Iterator[Event]:
        while len(open_spans) > depth:
            yield {"ph": "E", "ts": open_spans.pop().ended, "tid": _PROGRAM}

    for span in spans:
        yield from close(span.depth)
        args = {"flops": span.flops, "io_bytes": span.io_bytes} if span.op else {"module": span.name}
        name = span.name if span.op else _short(span.name)
        yield {"ph": "B", "ts": span.began, "tid": _PROGRAM, "name": name, "args": args}
        open_spans.append(span)
    yield from close(0)


def _short(path: str) -> str:
    """A module's own name, a member of a list with the list's: "layers.3"."""
    *around, name = path.split(".")
    return ".".join([*around[-1:], name]) if name.isdigit() else name or "(root)"


def _rows(timeline: Timeline) -> list[tuple[int, Allocation]]:
    """Every activation with the track that it goes on: the first that is free."""
    free: list[int] = []
    busy: list[tuple[int, int]] = []
    placed = []
    tracks = _PROGRAM
    for item in sorted((a for a in timeline.allocations if a.kind in ACTIVATIONS), key=lambda a: a.born):
        while busy and busy[0][0] <= item.born:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if not free:
            tracks += 1
            free.append(tracks)
        track = heapq.heappop(free)
        heapq.heappush(busy, (item.died, track))
        placed.append((track, item))
    return placed


def _tensors(rows: Iterable[tuple[int, Allocation]]) -> Iterator[Event]:
    for track, item in rows:
        yield {
            "ph": "X",
            "ts": item.born,
            "dur": item.died - item.born,
            "tid": track,
            "cat": item.kind,
            "name": f"{item.op.removeprefix('aten.').removesuffix('.default')} {item.tensor}",
            "args": {"bytes": item.bytes, "kind": item.kind, "module": item.module},
        }


def _counters(timeline: Timeline) -> Iterator[Event]:
    """The bytes of each kind in use whenever they change; activations also by the op that made them."""
    shown: Document = {}
    for moment, live in timeline.live_bytes():
        by_op = {kind: live[kind] for kind in ACTIVATIONS}
        counters: dict[str, Mapping[str, int]] = {"activations": {"bytes": sum(by_op.values())}}
        counters["activations by op"] = by_op
        counters |= {kind: {"bytes": live[kind]} for kind in RESIDENT}
        for name, values in counters.items():
            if shown.get(name) != values:
                shown[name] = values
                yield {"ph": "C", "ts": moment, "tid": 0, "name": name, "args": values}


def _peak(timeline: Timeline) -> Event:
    return {
        "ph": "i",
        "s": "p",
        "ts": timeline.peak,
        "tid": _PROGRAM,
        "name": "peak of the activations",
        "args": {"bytes": timeline.peak_bytes},
    }
