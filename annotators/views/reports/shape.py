"""Input shapes in words."""

from __future__ import annotations

from fxmeter.annotators.studies.axes import SweepPoint


def shape(point: SweepPoint) -> str:
    """A point in a few words."""
    parts = [] if point.crops is None else [f"{point.crops[0]}x{point.crops[1]} crops"]
    if point.prefill is not None and point.crops is None:
        parts.append(f"S={point.prefill:,}")
    if point.decode is not None and point.decode != point.prefill:
        parts.append(f"C={point.decode:,}")
    parts += [f"K={point.steps:,}"] if point.steps > 1 else []
    return ", ".join([*parts, f"B={point.batch:,}"])
