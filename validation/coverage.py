"""Every causal-LM type of transformers, prefill and decode, eager and flash: writes ``docs/coverage.md``.

python -m validation.coverage [TYPE ...] [--workers N] [--limit SECONDS] [--json FILE] [--no-write]

Each type runs in a worker process with a time and memory limit of its own. The denominator is the types that
transformers itself builds and runs forward, prefill and decode, on a small real CPU config.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import resource
import sys
import time
import warnings
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from validation.coverage_page import holds, page, reasons, summary

PAGE = Path(__file__).parent.parent / "docs" / "coverage.md"
FULL_SIZE = "## At full size"
"""The heading of the page's last section, which ``validation.full_size`` writes."""
MEMORY = 12 * 2**30


def main() -> None:
    """Run, write the page, print the summary."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("types", nargs="*")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--limit", type=float, default=300)
    parser.add_argument("--json")
    parser.add_argument("--no-write", action="store_true")
    given = parser.parse_args()
    types = given.types or every_type()
    started = time.perf_counter()
    results = run_all(types, given.workers, given.limit)
    if given.json:
        Path(given.json).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if not given.no_write and not given.types:
        _, title, second = PAGE.read_text(encoding="utf-8").partition(FULL_SIZE)
        PAGE.write_text(page(results) + title + second, encoding="utf-8")
    print(summary(results))
    print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)


def every_type() -> list[str]:
    """The keys of transformers' own mapping, in its order."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def run_all(types: list[str], workers: int, limit: float) -> list[dict[str, Any]]:
    """One result per type, in order; a worker that takes too long or dies is replaced, and its type says so."""
    todo = list(reversed(types))
    results: dict[str, dict[str, Any]] = {}
    crew = [Worker() for _ in range(min(workers, len(types)))]
    while len(results) < len(types):
        for worker in crew:
            if worker.task is None and todo:
                worker.start(todo.pop())
        busy = [worker for worker in crew if worker.task is not None]
        ready = wait([worker.pipe for worker in busy], timeout=0.5)
        for worker in busy:
            result = worker.result(worker.pipe in ready, limit)
            if result is not None:
                results[result["model_type"]] = result
                progress(len(results), len(types), result)
    for worker in crew:
        worker.stop()
    return [results[name] for name in types]


class Worker:
    """A process that checks one type at a time."""

    def __init__(self) -> None:
        self.task: str | None = None
        self._launch()

    def _launch(self) -> None:
        self.pipe, theirs = multiprocessing.get_context("spawn").Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def start(self, task: str) -> None:
        """Hand it a type."""
        self.task, self._since = task, time.monotonic()
        self.pipe.send(task)

    def result(self, ready: bool, limit: float) -> dict[str, Any] | None:
        """What it found, why it found nothing, or None while it is at work."""
        reason = ""
        if ready:
            try:
                found: dict[str, Any] = self.pipe.recv()
                self.task = None
                return found
            except (EOFError, ConnectionResetError):
                reason = "the process died (out of memory?)"
        elif time.monotonic() - self._since > limit:
            reason = f"took more than {limit:.0f} s"
        if not reason:
            return None
        failed = {"model_type": self.task, "runs": True, "reason": reason, "layers": 0, "parameters": 0}
        self.task = None
        self.stop()
        self._launch()
        return {**failed, "cache_kinds": [], "passes": []}

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def serve(pipe: Connection) -> None:
    """A worker's life."""
    os.nice(5)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    from validation.coverage_type import TypeResult, check_type, one_line

    while True:
        name = pipe.recv()
        try:
            result = check_type(name)
        except Exception as error:
            result = TypeResult(name, runs=True, reason=one_line(error))
        pipe.send(result.to_dict())


def progress(done: int, total: int, result: dict[str, Any]) -> None:
    """A line on stderr for each type."""
    print(f"[{done}/{total}] {result['model_type']}: {verdict(result)}", file=sys.stderr, flush=True)


def verdict(result: dict[str, Any]) -> str:
    """One line for a type."""
    if not result["runs"]:
        return f"transformers cannot: {result['reason']}"
    return "holds" if holds(result) else reasons(result)


if __name__ == "__main__":
    main()
