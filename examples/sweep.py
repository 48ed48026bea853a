"""A sweep: every stage at many sizes, into JSON, SQLite and CSV, and one question asked of the database.

python examples/sweep.py [PRESET]
"""

import sqlite3
import sys
import tempfile
from pathlib import Path

from fxmeter import load_model
from fxmeter.annotators.documents.tables.sweep_files import SQLITE, prepare, write
from fxmeter.annotators.studies.axes import Axes
from fxmeter.annotators.studies.comparing.ratios import check
from fxmeter.annotators.studies.sweep import StageForms, run_sweep

QUERY = """
SELECT stage, COUNT(*), MAX(peak_activation_bytes), MAX(kv_bytes) FROM stage_costs GROUP BY stage ORDER BY stage DESC
"""


def main(name: str = "llama-3.1-8b") -> None:
    """Sweep prompts and batches, hold the numbers to the sanity ratios, and read the highest peaks back."""
    axes = Axes(prefill=(1024, 4096, 16384, 65536), batch=(1, 16))
    costs = run_sweep(StageForms.of_model(load_model(name)), axes, attentions=("flash",))
    for verdict in check(costs):
        print(f"{verdict.name}: {'skipped' if verdict.skipped else 'broken' if verdict.broken else 'holds'}")
    with tempfile.TemporaryDirectory() as out:
        folder = prepare(out)
        write(costs, folder)
        print(f"written: {', '.join(sorted(file.name for file in Path(out).iterdir()))}")
        database = sqlite3.connect(folder / SQLITE)
        for stage, count, peak, kv in database.execute(QUERY):
            alive, cached = peak / 2**30, kv / 2**30
            print(f"{stage:8} {count} points, at most {alive:9.4f} GiB of activations alive, {cached:.3f} GiB of cache")
        database.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
