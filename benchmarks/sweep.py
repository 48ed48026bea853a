"""A sweep of page grids against annotating each of its points.

    python -m benchmarks.sweep [--sample 2] [--seed 0]

200 page grids of DeepSeek-OCR, eager and flash: vision, prefill, and 100 decoded tokens. The sweep's time is all of
it: finding the closed forms, evaluating every point, writing JSON, SQLite and CSV (no plots). Annotating is timed on a
sample of the same points in this process: every pass recorded and priced, decode step by step; and also as
``annotate`` does it, which itself takes a closed form for the 100 steps. Times are of the processor, which other
programs do not stretch. The figures of the sample must be equal. Exit 1 below a hundred times.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable

from fxmeter import annotate, generation, load_model, prefill, vision
from fxmeter.annotators import AnnotatedStage
from fxmeter.annotators.api import annotate_steps
from fxmeter.annotators.documents.tables.sweep_files import prepare, write
from fxmeter.annotators.studies.axes import Axes, SweepPoint
from fxmeter.annotators.studies.sweep import StageForms, Sweep, run_sweep
from fxmeter.models.stage_cost import StageCost
from fxmeter.tracer.load.vision import load_vision

MODEL = "deepseek-ocr"
AXES = Axes(crops=tuple((h, w) for h in range(1, 11) for w in range(1, 21)), steps=(100,))
TIMES = 100


def swept() -> tuple[Sweep, float, float]:
    """A sweep, the seconds until it was on the disk, and those of a second one with the closed forms at hand."""
    forms = StageForms.of_model(load_model(MODEL), tower=load_vision(MODEL))
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        sweep = run_sweep(forms, AXES)
        write(sweep, prepare(folder))
        first = time.process_time() - started
        started = time.process_time()
        write(run_sweep(forms, AXES), prepare(folder))
        return sweep, first, time.process_time() - started


def annotated(point: SweepPoint, generate: Callable[..., AnnotatedStage]) -> tuple[list[StageCost], float]:
    """The costs of a point's six stages, and the seconds that they took; ``generate`` is for the decode stages."""
    assert point.crops is not None and point.prefill is not None and point.decode is not None
    model, tower = load_model(MODEL), load_vision(MODEL)
    passes = [
        (annotate, tower, vision(crops=point.crops)),
        (annotate, model, prefill(point.prefill)),
        (generate, model, generation(point.decode, steps=point.steps)),
    ]
    started = time.process_time()
    costs = [
        run(module, scenario, attention=attention).cost
        for run, module, scenario in passes
        for attention in ("eager", "flash")
    ]
    return costs, time.process_time() - started


def main() -> int:
    """Time both, print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warm = SweepPoint(batch=1, crops=(1, 1), prefill=100, decode=100, steps=2)
    annotated(warm, annotate_steps)  # what is loaded on first use
    sweep, first, again = swept()
    count = len(sweep.points)
    print(f"{count} points, {6 * count} stage costs; sweep {first:.2f} s, with the forms at hand {again:.2f} s")
    ratios = []
    for name, generate in (("every pass recorded", annotate_steps), ("annotate", annotate)):
        seconds = []
        for index in random.Random(arguments.seed).sample(range(count), arguments.sample):
            costs, taken = annotated(sweep.points[index], generate)
            assert costs == [figures.cost for figures in sweep.figures[index]], sweep.points[index]
            seconds.append(taken)
        each = sum(seconds) / len(seconds)
        ratios.append(each * count / first)
        print(f"{name}: {each:.2f} s a point, equal; the sweep is {ratios[-1]:.0f} times faster,", end=" ")
        print(f"{each * count / again:.0f} with the forms at hand")
    return 0 if ratios[0] >= TIMES else 1


if __name__ == "__main__":
    sys.exit(main())
