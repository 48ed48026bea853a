"""``docs/validation.md``: each check of this folder owns one section of it and rewrites only that one."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "validation.md"
ORDER = ("peak", "kv", "io", "fused", "gpu")
HEAD = """\
# Bytes and memory against what runs

What fxmeter predicts from a config on `meta`, beside what was measured on models that really ran. Each section is
written by the script that it names (`python -m validation.NAME`); a quick part of each is in the
test suite. Signed error: predicted less measured, as a share of measured.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A case: what was predicted, what was measured, in the unit of its table, and every term of a difference."""

    case: str
    predicted: int
    measured: int
    explanation: str = ""

    @property
    def error(self) -> float | None:
        """Predicted less measured, as a share of measured; None where nothing was measured."""
        return (self.predicted - self.measured) / self.measured if self.measured else None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with what their figures are."""

    title: str
    rows: Sequence[Row]
    unit: str = "bytes"


@dataclass(frozen=True, slots=True)
class Section:
    """What one script has to say: how it was measured, its tables, what they come to, whether the bounds are met."""

    key: str
    title: str
    method: str
    tables: Sequence[Table]
    verdict: str
    holds: bool = True


def write(section: Section, path: Path = PAGE, *, machine: str | None = None) -> None:
    """Put a section into the page, in the place of an older one; the other sections stay as they are."""
    sections = _sections(path)
    sections[section.key] = text(section, machine or f"{this_machine()}, CPU only")
    parts = [f"<!-- {key} -->\n{sections[key]}\n<!-- /{key} -->" for key in ORDER if key in sections]
    path.write_text("\n".join([HEAD, "\n\n".join(parts), ""]), encoding="utf-8")


def recorded(key: str, path: Path = PAGE) -> bool:
    """Whether the page has a section with results."""
    return "|---|" in _sections(path).get(key, "")


def _sections(path: Path) -> dict[str, str]:
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    return dict(re.findall(r"<!-- (\w+) -->\n(.*?)\n<!-- /\1 -->", before, re.DOTALL))


def text(section: Section, machine: str) -> str:
    """A section as Markdown."""
    lines = [f"## {section.title}", "", f"Written by `python -m validation.{section.key}`, {machine}.", ""]
    lines += [section.method.strip(), ""]
    for table in section.tables:
        lines += [
            f"### {table.title}",
            "",
            f"| case | predicted | measured | signed error | explanation ({table.unit}) |",
        ]
        lines += ["|---|---:|---:|---:|---|", *map(_line, table.rows), ""]
    return "\n".join([*lines, section.verdict.strip()])


def _line(row: Row) -> str:
    return f"| {row.case} | {row.predicted:,} | {row.measured:,} | {percent(row)} | {row.explanation or '–'} |"


def percent(row: Row) -> str:
    """The signed error for people: 0 only where the figures are equal."""
    if row.predicted == row.measured:
        return "0"
    if row.error is None:
        return "nothing measured"
    shown = f"{100 * row.error:+.2f} %"
    return shown if shown.strip("+-0. %") else f"{100 * row.error:+.1e} %"


def this_machine() -> str:
    """Date, versions and cores."""
    day = datetime.now(UTC).date().isoformat()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    return f"{day}: {packages}, Python {platform.python_version()}, {os.cpu_count()} cores"


def named(terms: Iterable[tuple[str, int]]) -> str:
    """Terms of a difference as text, those of one name as a sum."""
    found: dict[str, list[int]] = {}
    for name, amount in terms:
        found.setdefault(name, []).append(amount)
    return "; ".join(f"{name} {sum(amounts):,}" for name, amounts in found.items())


def run(measure: Callable[[], Section], description: str | None) -> int:
    """A script's command line: measure, write the page, print what it comes to. Exit code 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-write", action="store_true", help="leave docs/validation.md as it is")
    given = parser.parse_args()
    quiet()
    section = measure()
    if not given.no_write:
        write(section)
    print(section.verdict)
    return 0 if section.holds else 1


def quiet() -> None:
    """One thread, and nothing from transformers about missing kernel packages."""
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


def progress(line: str) -> None:
    """A line on stderr."""
    print(line, file=sys.stderr, flush=True)
