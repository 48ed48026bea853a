"""What was answered before, in the platform's cache folder: looked up by everything that the answer follows from.

An entry is a sealed document in a file of its own, named by the hash of its question. It is written beside its place
and moved into it, so that readers see a whole entry or none; one that is damaged is none. Whatever the disk refuses is
no error: the answer is then worked out again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fxmeter.annotators.sheets.kept.sealed import sealed, unsealed
from fxmeter.models.names import Document
from fxmeter.models.version import versions

FOLDER_VARIABLE = "FXMETER_CACHE_DIR"
MOST_BYTES = 2**28
"""What all entries together may take: thousands of reports. The ones not read for longest go first."""
MOST_ENTRY_BYTES = 2**24
"""What one entry may take."""
_PACKAGE = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class Question:
    """What an answer follows from: its ``kind``, and everything else as plain data."""

    kind: str
    facts: Document

    @property
    def name(self) -> str:
        """The name of its entry: a hash of all of it, of this package's source, and of the versions beneath it."""
        everything = [self.kind, self.facts, versions(), source_sha256()]
        text = json.dumps(everything, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Store:
    """Entries in ``folder``, which is made when the first is kept; ``most_bytes`` bounds them all."""

    folder: Path
    most_bytes: int = MOST_BYTES

    def get(self, question: Question) -> Document | None:
        """The answer that was kept; None where there is none, or none that is whole."""
        path = self._path(question)
        try:
            data = unsealed(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # it was read: it stays longer
        return data

    def put(self, question: Question, answer: Document) -> None:
        """Keep an answer, if the disk takes it."""
        content = sealed(answer)
        if len(content) > MOST_ENTRY_BYTES:
            return
        path = self._path(question)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, scratch = tempfile.mkstemp(prefix=".", dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as stream:
                    stream.write(content)
                Path(scratch).replace(path)
            except BaseException:
                Path(scratch).unlink(missing_ok=True)
                raise
            self._bound()

    def entries(self) -> list[tuple[Path, os.stat_result]]:
        """Every file of the cache, those not read for longest first."""
        return sorted(self._files(), key=lambda entry: entry[1].st_mtime_ns)

    def clear(self) -> int:
        """Remove every entry; how many there were."""
        removed = 0
        for path, _ in self.entries():
            with contextlib.suppress(OSError):
                path.unlink()
                removed += 1
        return removed

    def _path(self, question: Question) -> Path:
        return self.folder / _ENTRIES / question.name

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        with contextlib.suppress(OSError):
            for path in (self.folder / _ENTRIES).iterdir():
                with contextlib.suppress(OSError):  # another process may have removed it
                    yield path, path.stat()

    def _bound(self) -> None:
        entries = self.entries()
        excess = sum(facts.st_size for _, facts in entries) - self.most_bytes
        for path, facts in entries:
            if excess <= 0:
                break
            with contextlib.suppress(OSError):
                path.unlink()
            excess -= facts.st_size


_ENTRIES = "answers"


def is_settled() -> bool:
    """Whether versions say which code runs beneath: those of a development version change under one name."""
    return not any("dev" in number for number in versions().values())


def default_store() -> Store:
    """The store in the folder that FXMETER_CACHE_DIR names, else in the platform's own folder for caches."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Store(Path(named).expanduser())
    from platformdirs import user_cache_path

    return Store(user_cache_path("fxmeter", appauthor=False))


@cache
def source_sha256() -> str:
    """Of the package's own code: another checkout of the same version answers for itself."""
    digest = hashlib.sha256()
    for floor in ("models", "tracer", "annotators"):
        for path in sorted((_PACKAGE / floor).rglob("*.py")):
            digest.update(path.read_bytes())
            digest.update(str(path.relative_to(_PACKAGE)).encode())
    return digest.hexdigest()
