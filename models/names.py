"""What to say when a name is not found."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def near(name: str, known: Iterable[str]) -> str:
    """ "did you mean a or b? ", or nothing where no known name is near. Names are compared in lower case."""
    by_lower = {other.lower(): other for other in known}
    matches = [by_lower[match] for match in get_close_matches(name.lower(), by_lower, n=3)]
    return f"did you mean {' or '.join(matches)}? " if matches else ""
