"""The events of a Chrome trace, one at a time: never more of the file in memory than a piece of it."""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, cast

from fxmeter.models.errors import TraceFileError
from fxmeter.models.names import Document

PIECE = 1 << 20
LONGEST_HEAD = 1 << 24
LONGEST_EVENT = 1 << 24
"""No profiler writes a head or an event as long as these: what has one is no trace, and is not read to its end."""
_EVENTS = re.compile(r'"traceEvents"\s*:\s*\[')
_BETWEEN = re.compile(r"[\s,]*")

Event = Document


def events_of(path: Path) -> Iterator[Event]:
    """Every event of a trace, compressed by gzip or not. Numbers with a point come as text, in all their digits.

    Raises:
        TraceFileError: no such file, no trace, or one that is cut off.
    """
    try:
        with ExitStack() as stack:
            file = stack.enter_context(path.open("rb"))
            if file.peek(2)[:2] == b"\x1f\x8b":
                file = cast("io.BufferedReader", stack.enter_context(gzip.open(file)))
            text = stack.enter_context(io.TextIOWrapper(file, encoding="utf-8", errors="replace"))
            yield from _decoded(text, path)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise TraceFileError(f"{path}: the compressed file is cut off or broken; write it again") from None
    except OSError as error:
        raise TraceFileError(f"{path}: {error.strerror or error}") from None


def _decoded(file: IO[str], path: Path) -> Iterator[Event]:
    decoder = json.JSONDecoder(strict=False, parse_float=str)
    text, place, count = *_after_head(file, path), 0
    while True:
        between = _BETWEEN.match(text, place)
        place = place if between is None else between.end()
        if text.startswith("]", place):
            return
        try:
            event, place = decoder.raw_decode(text, place)
        except (json.JSONDecodeError, RecursionError):
            more = file.read(PIECE) if len(text) - place < LONGEST_EVENT else ""
            if not more:
                raise TraceFileError(f"{path}: is cut off or broken after {count:,} events; write it again") from None
            text, place = text[place:] + more, 0
            continue
        count += 1
        if isinstance(event, dict):
            yield event


def _after_head(file: IO[str], path: Path) -> tuple[str, int]:
    """The text from the head on, and where in it the first event is."""
    text = ""
    while piece := file.read(PIECE):
        text += piece
        start = text.lstrip("\ufeff \t\r\n")
        if start.startswith("["):
            return start, 1
        if found := _EVENTS.search(start):
            return start, found.end()
        if not start.startswith("{") or len(text) > LONGEST_HEAD:
            break
    raise TraceFileError(
        f"{path}: is no Chrome trace (it has no traceEvents); write one with torch.profiler's export_chrome_trace"
    )
