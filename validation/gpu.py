"""Memory, DRAM traffic and decode time on a GPU against what was predicted. Without CUDA it says so and exits 0.

    python -m validation.gpu [--no-write] [--model NAME] [--without-ncu]

DRAM traffic needs Nsight Compute (``ncu``) on PATH and the right to read performance counters.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import replace

import torch

from fxmeter.tracer.load.loading import load_config
from validation.gpu_plan import MODELS, Cell, Measurement, plan, predict, section, that_fit, unrecorded
from validation.gpu_runs import copy_bandwidth, machine, measure, profiled_alone, random_model, under_ncu
from validation.page import PAGE, progress, quiet, recorded, this_machine, write

NEEDS_CUDA = "validate_gpu needs a GPU: torch {version} finds no CUDA device; nothing was measured"


def main() -> int:
    """Measure what fits, write the page, print what it comes to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-write", action="store_true", help="leave docs/validation.md as it is")
    parser.add_argument("--model", choices=MODELS, action="append", help="only this one (may be repeated)")
    parser.add_argument("--without-ncu", action="store_true", help="no DRAM traffic, even if ncu is there")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print(NEEDS_CUDA.format(version=torch.__version__))
        if not given.no_write and not recorded("gpu", PAGE):
            write(unrecorded(), machine=this_machine())
        return 0
    quiet()
    if given.one:
        profiled_alone(Cell(**json.loads(given.one)))
        return 0
    with_ncu = shutil.which("ncu") is not None and not given.without_ncu
    predictions = predict(cell for cell in plan() if cell.model in (given.model or MODELS))
    fits = that_fit(predictions, torch.cuda.get_device_properties(0).total_memory)
    bandwidth = copy_bandwidth()
    torch.cuda.empty_cache()
    measured: dict[Cell, Measurement] = {}
    for name in dict.fromkeys(cell.model for cell in fits):
        model = random_model(load_config(name), "cuda")
        for cell in (cell for cell in fits if cell.model == name):
            measured[cell] = measure(model, cell)
            progress(f"{cell.name}: {measured[cell]}")
        del model
        torch.cuda.empty_cache()
    for cell in fits if with_ncu else ():
        measured[cell] = replace(measured[cell], dram=under_ncu(cell))
        progress(f"{cell.name}: {measured[cell].dram:,} bytes of DRAM traffic")
    result = section(predictions, measured, bandwidth, len(predictions) - len(fits))
    if not given.no_write:
        write(result, machine=f"{this_machine()}; {machine()}")
    print(result.verdict)
    return 0


if __name__ == "__main__":
    sys.exit(main())
