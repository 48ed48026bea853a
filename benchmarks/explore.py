"""Many architectures: points a second, one process against two, and what a cluster would have to carry.

    python -m benchmarks.explore [--depths 25] [--write]

80 Llama-like architectures for each of 25 depths, 2,000 in all: a prefill and a decode step of 2,048 tokens each, timed
on a device. One process prices them in turn; then two, started afresh, what a process takes to start being measured on
one architecture each. Processor time of all processes is what other programs do not stretch; the time on the clock is
said with it. The rows of both must be equal. Then, of a batch: bytes of its message and of its answer, and what a Dask
scheduler, client and worker spend on a task with such messages that does nothing (where Dask is there). ``--write``
writes docs/benchmarks_explore.md.
"""

from __future__ import annotations

import argparse
import os
import pickle
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from fxmeter.annotators.documents.tables.explored import PARQUET, SQLITE, explored
from fxmeter.annotators.documents.tables.explored_files import write_beside
from fxmeter.annotators.studies.architectures.explore import BATCH, Exploration, exploration
from fxmeter.annotators.studies.architectures.pricing import Architecture, Candidate, price_batch
from fxmeter.annotators.studies.architectures.workers import cores, local

SETS = {
    "hidden_size": "2048:6656:512",
    "num_attention_heads": "16,32",
    "num_key_value_heads": "2,4,8,16",
    "intermediate_size": "8*hidden_size//3",
}
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks_explore.md"
TASKS = 3_000


def spent() -> float:
    """Processor seconds of this process and of those that it started and that have ended."""
    every = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in every)


def timed(work: Callable[[], Iterable[list[Architecture]]]) -> tuple[dict[str, Architecture], float, float]:
    """Rows by key, processor seconds, and seconds on the clock."""
    began, clock = spent(), time.perf_counter()
    rows = {row.key: row for batch in work() for row in batch}
    return rows, spent() - began, time.perf_counter() - clock


def some(depths: int) -> Exploration:
    """80 architectures of each of so many depths."""
    layers = [16 + 2 * index for index in range(depths)]
    return exploration("llama-3.1-8b", {"num_hidden_layers": layers, **SETS}, devices=["h100"])


def bytes_of(found: Exploration, rows: Iterable[Architecture]) -> dict[str, float]:
    """Bytes for a point: on the disk, in a message, in its answer."""
    rows = list(rows)
    wanted = [each for each in islice(found.candidates(), BATCH) if isinstance(each, Candidate)]
    answer = price_batch(found.question, wanted, found.space.defaults)
    with tempfile.TemporaryDirectory() as folder:
        with explored(folder, found.question, dict(found.space.defaults)) as table:
            table.add(rows)
            write_beside(table, None, {})
        sizes = {path.name: path.stat().st_size for path in Path(folder).iterdir()}
    return {
        "SQLite": sizes[SQLITE] / len(rows),
        "Parquet": sizes.get(PARQUET, 0) / len(rows),
        "message": len(pickle.dumps((price_batch, found.question, wanted, found.space.defaults))) / BATCH,
        "answer": len(pickle.dumps(answer)) / BATCH,
    }


def nothing(payload: bytes, answer: int) -> bytes:
    """What a worker does here: an answer of the size of a real one."""
    return bytes(answer)


def scheduler_seconds(message: int, answer: int) -> float | None:
    """Processor seconds of a Dask scheduler, client and workers in its process, for one task; None without Dask."""
    if find_spec("distributed") is None:
        return None
    from distributed import Client, LocalCluster

    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client, client.get_executor(pure=False) as executor:
        executor.submit(nothing, b"", 1).result()
        began = time.process_time()
        futures = [executor.submit(nothing, bytes(message), answer) for _ in range(TASKS)]
        for future in futures:
            future.result()
        return (time.process_time() - began) / TASKS


def main() -> int:
    """Measure, print, and hold both runs to one another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", type=int, default=25)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    found, tiny = some(arguments.depths), exploration("llama-3.1-8b", {"num_hidden_layers": [1, 2]}, devices=["h100"])
    timed(lambda: tiny.run())  # what is loaded on first use
    load = os.getloadavg()[0]
    _, start, _ = timed(lambda: tiny.run(local(2), batch=1))
    one, cpu_one, clock_one = timed(lambda: found.run())
    two, cpu_two, clock_two = timed(lambda: found.run(local(2)))
    assert two == one
    sizes = bytes_of(found, one.values())
    task = scheduler_seconds(round(sizes["message"] * BATCH), round(sizes["answer"] * BATCH))
    lines = [
        f"{len(one):,} architectures, {cores()} cores, load {load:.1f} before",
        f"one process: {len(one) / cpu_one:.1f} points a second of processor time; {clock_one:.0f} s on the clock",
        f"two processes: {len(two) / (cpu_two - start):.1f} points a second of processor time once they have started; "
        f"{clock_two:.0f} s on the clock; {start / 2:.1f} s of processor time each to start",
        *(f"{name}: {size:,.0f} bytes a point" for name, size in sizes.items()),
    ]
    if task is not None:
        lines.append(
            f"Dask: {task * 1e3:.2f} ms of processor time for a task of {BATCH} points, its parts in one process"
        )
    print("\n".join(lines))
    if arguments.write:
        PAGE.write_text("# Many architectures\n\n" + "".join(f"- {line}\n" for line in lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
