"""Why architectures were refused, by reason."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from fxmeter.models.names import Fields


@dataclass(frozen=True, slots=True)
class Refusal:
    """Architectures that were refused for reasons that differ in numbers alone: how many, and one of them."""

    count: int
    reason: str
    fields: Fields


def by_reason(refused: Iterable[tuple[str, Fields]]) -> tuple[Refusal, ...]:
    """The reasons of (reason, fields), the most frequent first."""
    found: dict[str, Refusal] = {}
    for reason, fields in refused:
        kind = re.sub(r"\d+", "#", reason)
        first = found.get(kind, Refusal(0, reason, fields))
        found[kind] = Refusal(first.count + 1, first.reason, first.fields)
    return tuple(sorted(found.values(), key=lambda each: -each.count))
