"""Draws the pictures in docs/images/: sweeps of DeepSeek-OCR over page grids, of Llama 3.1 8B over contexts."""

from __future__ import annotations

from pathlib import Path

from fxmeter import load_model
from fxmeter.annotators.plots.sweep import draw
from fxmeter.annotators.studies.axes import Axes
from fxmeter.annotators.studies.sweep import StageForms, run_sweep
from fxmeter.annotators.units import read_sizes
from fxmeter.tracer.load.vision import load_vision

IMAGES = Path(__file__).parent / "images"
PAGES = Axes(crops=tuple((h, w) for h in range(1, 11) for w in range(1, 21)), steps=(100,))
CONTEXTS = Axes(prefill=read_sizes("1k:128k:*2", 1), steps=(100,))
CHOSEN = {
    "deepseek-ocr": (PAGES, ("activations", "flops")),
    "llama-3.1-8b": (CONTEXTS, ("activations", "io")),
}


def main() -> None:
    """Write MODEL-PLOT.svg for every chosen plot."""
    IMAGES.mkdir(exist_ok=True)
    for name, (axes, plots) in CHOSEN.items():
        tower = load_vision(name) if axes.crops else None
        drawn = draw(run_sweep(StageForms.of_model(load_model(name), tower=tower), axes))
        for plot in plots:
            (IMAGES / f"{name}-{plot}.svg").write_bytes(drawn[f"plots/{plot}.svg"])


if __name__ == "__main__":
    main()
