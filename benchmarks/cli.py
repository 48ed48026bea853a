"""What the command line takes, from the shell: processor time and memory of whole processes, and what they import.

    python -m benchmarks.cli [--runs 5] [--output docs/benchmarks_cli.md]

Every command runs in processes of its own with a cache folder of its own: first with nothing kept, then again. Exit 1
where a median is above what is wanted of it.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from fxmeter.models.version import versions

MODEL = "llama-3.1-8b"
FIRST_S, AGAIN_S, LIGHT_S, AGAIN_MIB = 6.0, 0.6, 0.5, 80.0
"""What is wanted: seconds of a first report, of a repeated question, of what needs no model; memory of a repeat."""
ASKED = (
    ("report", MODEL),
    ("time", MODEL, "--device", "h100-sxm5-80g"),
    ("capacity", MODEL),
    ("formula", MODEL),
)
LIGHT = (("ops",), ("models",), ("devices",), ("--help",))
HEAVY = ("torch", "transformers", "sympy", "networkx", "numpy", "rich", "click")
"""Packages whose part of the imports the table shows."""
LEAST_US = 5_000


@dataclass(frozen=True, slots=True)
class Run:
    """A process: seconds of the processor, and the most memory that it had."""

    cpu_s: float
    memory_mib: float


@dataclass(frozen=True, slots=True)
class Row:
    """A command: medians, what is wanted, and what it imports (package → seconds)."""

    command: str
    when: str
    cpu_s: float
    memory_mib: float
    wanted_s: float | None
    wanted_mib: float | None
    imports: dict[str, float]

    @property
    def holds(self) -> bool:
        """Whether it is what is wanted."""
        quick = self.wanted_s is None or self.cpu_s <= self.wanted_s
        return quick and (self.wanted_mib is None or self.memory_mib <= self.wanted_mib)


def run(command: tuple[str, ...], folder: Path) -> Run:
    """Run a command to its end, its cache in ``folder``."""
    environment = {**os.environ, "FXMETER_CACHE_DIR": str(folder), "HF_HUB_OFFLINE": "1"}
    arguments = [sys.executable, "-m", "fxmeter", *command]
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return Run(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def imports(command: tuple[str, ...], folder: Path) -> dict[str, float]:
    """Package → seconds of the imports that began with it, of those packages that anything is made of."""
    environment = {**os.environ, "FXMETER_CACHE_DIR": str(folder), "HF_HUB_OFFLINE": "1"}
    arguments = [sys.executable, "-X", "importtime", "-m", "fxmeter", *command]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
    seconds: dict[str, float] = {}
    for line in done.stderr.splitlines():
        own, _, name = line.removeprefix("import time:").split("|") if line.count("|") == 2 else ("", "", "")
        package = name.strip().partition(".")[0]
        if own.strip().isdigit() and package in HEAVY:
            seconds[package] = seconds.get(package, 0.0) + int(own) / 1e6
    return {name: second for name, second in seconds.items() if second * 1e6 >= LEAST_US}


def row(command: tuple[str, ...], when: str, runs: int, folder: Path, wanted: tuple[float | None, float | None]) -> Row:
    """Measure a command; "first" is with an empty cache each time."""
    found = []
    for _ in range(runs):
        if when == "first":
            shutil.rmtree(folder, ignore_errors=True)
        found.append(run(command, folder))
    if when == "first":
        shutil.rmtree(folder, ignore_errors=True)
    cpu, memory = (statistics.median(values) for values in zip(*((r.cpu_s, r.memory_mib) for r in found), strict=True))
    return Row(" ".join(command), when, cpu, memory, *wanted, imports(command, folder))


def table(rows: list[Row], runs: int) -> str:
    """The page."""
    known = ", ".join(f"{name} {number}" for name, number in versions().items())
    lines = [
        "# The command line: how fast",
        "",
        f"Measured on {date.today():%-d %B %Y} with {known}, {platform.machine()}, by `python -m benchmarks.cli "
        f"--runs {runs}`. Medians, processor time of the whole process; on a machine that others use too.",
        "",
        "| `fxmeter` | | seconds | wanted | MiB | imports, seconds by package |",
        "|---|---|---|---|---|---|",
    ]
    for each in rows:
        parts = ", ".join(f"{name} {second:.2f}" for name, second in sorted(each.imports.items(), key=lambda i: -i[1]))
        wanted = "–" if each.wanted_s is None else f"at most {each.wanted_s}"
        wanted += "" if each.wanted_mib is None else f", {each.wanted_mib:.0f} MiB"
        lines.append(
            f"| `{each.command}` | {each.when} | {each.cpu_s:.2f} | {wanted} | {each.memory_mib:.0f} | {parts} |"
        )
    lines += ["", "What is kept, and where: [cost_sheets.md](cost_sheets.md#the-cache-of-the-command-line).", ""]
    return "\n".join(lines)


def main() -> None:
    """Measure, write the page, and say where something is slower than wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks_cli.md"))
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "cache"
        for command in ASKED:
            first = (FIRST_S, None) if command[0] == "report" else (None, None)
            rows.append(row(command, "first", max(1, given.runs // 2), kept, first))
            rows.append(row(command, "again", given.runs, kept, (AGAIN_S, AGAIN_MIB)))
        rows += [row(command, "", given.runs, kept, (LIGHT_S, None)) for command in LIGHT]
    given.output.write_text(table(rows, given.runs), encoding="utf-8")
    slow = [f"{each.command} {each.when}" for each in rows if not each.holds]
    if slow:
        raise SystemExit(f"above what is wanted: {'; '.join(slow)}")


if __name__ == "__main__":
    main()
