"""A real Dask scheduler and two real workers on this machine, one of which is killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fxmeter import FxmeterError, decode, prefill
from fxmeter.annotators.documents.tables.explored import explored
from fxmeter.annotators.studies.architectures.explore import exploration
from fxmeter.annotators.studies.architectures.workers import cluster
from tests.tracer.tiny import LLAMA

Client = pytest.importorskip("distributed").Client
ROOT = Path(__file__).parents[4]
SETS = {"num_hidden_layers": "1:8", "hidden_size": "32:64:4", "intermediate_size": "8*hidden_size//3,48"}


@pytest.fixture
def started(tmp_path):
    """Start a part of the cluster, in a process of its own that ends with the test."""
    running = []
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start(part, *options):
        command = [sys.executable, "-m", f"distributed.cli.dask_{part}", "--no-dashboard", "--scheduler-file"]
        log = (tmp_path / f"{part}{len(running)}.log").open("w")
        command += [str(tmp_path / "scheduler.json"), *options]
        running.append(subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log))
        log.close()
        return running[-1]

    yield start
    for process in running:
        process.kill()
    for process in running:
        process.wait()


def address(tmp_path):
    for _ in range(600):
        if (tmp_path / "scheduler.json").exists():
            return json.loads((tmp_path / "scheduler.json").read_text())["address"]
        time.sleep(0.1)
    raise TimeoutError


@pytest.mark.slow
def test_a_worker_that_is_killed_in_the_middle_changes_nothing(started, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(LLAMA))
    found = exploration(config, SETS, scenarios=[prefill(24), decode(40)], devices=["h100"])
    alone = {row.key: row for batch in found.run() for row in batch}
    assert len(alone) == len(found.space) == 8 * 9 * 2
    started("scheduler", "--host", "127.0.0.1", "--port", "0")
    scheduler = address(tmp_path)
    workers = [started("worker", "--nthreads", "1", "--no-nanny", "--name", str(n)) for n in range(2)]
    with Client(scheduler, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=120)
    with explored(tmp_path / "out", found.question, found.space.defaults) as table:
        seen = []
        for count, batch in enumerate(found.run(cluster(scheduler, seconds=60), batch=4)):
            table.add(batch)
            seen += batch
            if count == 4:
                os.kill(workers[0].pid, signal.SIGKILL)
        rows = list(table.rows())
    assert workers[0].wait() == -signal.SIGKILL
    assert count > 8
    assert len(seen) == len(alone)
    assert {row.key: row for row in seen} == alone
    assert {row["key"] for row in rows} == {key for key, row in alone.items() if row.refused is None}


def test_where_no_scheduler_answers_that_is_one_line():
    with (
        pytest.raises(FxmeterError, match="no scheduler answers there") as refusal,
        cluster("tcp://127.0.0.1:9", seconds=1),
    ):
        pass
    assert "\n" not in str(refusal.value)
