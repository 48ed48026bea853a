"""``docs/coverage.md`` and the summary, from the results of ``benchmarks/coverage.py``. No checks here."""

from __future__ import annotations

from typing import Any

Result = dict[str, Any]


def summary(results: list[Result]) -> str:
    """A few lines: the denominator, what holds, what does not and why."""
    running = [r for r in results if r["runs"]]
    holding = [r for r in running if r["passes"] and all(p["holds"] for p in r["passes"])]
    lines = [
        f"{len(results)} types; transformers builds and runs {len(running)} of them on a small CPU config",
        f"{len(holding)} of {len(running)} hold in all four combinations ({len(holding) / max(1, len(running)):.1%})",
    ]
    return "\n".join(lines)


def page(results: list[Result]) -> str:
    """The whole page, Markdown."""
    return summary(results)
