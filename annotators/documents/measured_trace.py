"""A measured pass and its prediction as a Chrome trace: two tracks, which ui.perfetto.dev shows one under the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fxmeter.annotators.documents.chrome_trace import Event, events_text
from fxmeter.annotators.studies.measured.comparison import Comparison
from fxmeter.annotators.studies.measured.tracks import Slice, measured_track, predicted_track
from fxmeter.models.version import versions


def tracks_text(found: Comparison, model: str) -> str:
    """The file: one event a line. Both tracks begin at 0; of the prediction every op is as long as its estimate."""
    device = "" if found.device is None else f" on {found.device.name}"
    tracks = {"measured": measured_track(found), f"predicted{device}": predicted_track(found)}
    events = (
        event for number, (name, slices) in enumerate(tracks.items(), 1) for event in _track(name, slices, number)
    )
    return events_text(events, {"model": model, "versions": versions()})


def _track(name: str, slices: Iterable[Slice], track: int) -> Iterator[Event]:
    yield {"ph": "M", "name": "thread_name", "pid": 1, "tid": track, "args": {"name": name}}
    yield {"ph": "M", "name": "thread_sort_index", "pid": 1, "tid": track, "args": {"sort_index": track}}
    for one in slices:
        yield {
            "ph": "X",
            "pid": 1,
            "tid": track,
            "cat": "module" if one.is_module else "op",
            "name": one.name,
            "ts": one.began / 1000,
            "dur": (one.ended - one.began) / 1000,
            "args": {"module": one.module},
        }
