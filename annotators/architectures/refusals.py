"""Why architectures were refused, by reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Refusal:
    """Architectures that were refused for reasons that differ in numbers alone: how many, and one of them."""

    count: int
    reason: str
    fields: Mapping[str, Any]


def by_reason(refused: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[Refusal, ...]:
    """The reasons of (reason, fields), the most frequent first."""
    found: dict[str, Refusal] = {}
    for reason, fields in refused:
        kind = re.sub(r"\d+", "#", reason)
        first = found.get(kind, Refusal(0, reason, fields))
        found[kind] = Refusal(first.count + 1, first.reason, first.fields)
    return tuple(sorted(found.values(), key=lambda each: -each.count))
