"""Names: data that goes by them, and what to say when one is not found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeAlias

Fields: TypeAlias = Mapping[str, Any]
"""Name → value: the fields of a config, the figures of a row."""

Document: TypeAlias = dict[str, Any]
"""Plain JSON data that is made or changed."""

Kwargs: TypeAlias = dict[str, Any]
"""Keyword arguments of a call, or those that several calls have in common."""


def near(name: str, known: Iterable[str]) -> str:
    """ "did you mean a or b? ", or nothing where no known name is near. Names are compared in lower case."""
    by_lower = {other.lower(): other for other in known}
    matches = [by_lower[match] for match in get_close_matches(name.lower(), by_lower, n=3)]
    return f"did you mean {' or '.join(matches)}? " if matches else ""
