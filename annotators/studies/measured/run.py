"""Measuring a model where it runs: ``with measured(model) as run: model(...)``, then ``run.compare()``."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from fxmeter.annotators.api import annotate
from fxmeter.annotators.studies.measured.comparison import Comparison
from fxmeter.annotators.studies.measured.laid_over import lay_over
from fxmeter.annotators.studies.measured.traces.ranges import ranges_around, sizes_of, the_only
from fxmeter.annotators.studies.measured.traces.reading import read_trace
from fxmeter.models.devices.device import Device
from fxmeter.models.errors import ScenarioError
from fxmeter.models.scenario import Scenario


@dataclass(slots=True)
class MeasuredRun:
    """What ran inside of :func:`measured`, once the block is over."""

    model: nn.Module = field(repr=False)
    _trace: bytes = field(default=b"", repr=False)

    def save(self, path: str | Path) -> None:
        """Write the trace, which ``fxmeter compare MODEL --trace PATH``, ui.perfetto.dev and chrome://tracing read.
        Compressed where ``path`` ends in .gz."""
        if not self._trace:
            raise ScenarioError("the run is not over: save and compare it after the `with` block")
        text = self._trace if str(path).endswith(".gz") else gzip.decompress(self._trace)
        Path(path).write_bytes(text)

    def compare(
        self, scenario: Scenario | None = None, *, device: str | Path | Device | None = None, **options: Any
    ) -> Comparison:
        """What was measured, laid over the prediction.

        Args:
            scenario: the passes to compare, where there were several kinds; None for the only one.
            device: where it ran, a name of ``fxmeter devices`` or a device file.
            **options: of :func:`fxmeter.annotate`; attention is what the model ran, unless given.

        Raises:
            ScenarioError: passes of several sizes and no ``scenario``.
            TraceFileError: no pass of ``scenario``.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.json.gz"
            self.save(path)
            trace = read_trace(path)
        sizes = sizes_of(trace)
        if scenario is None:
            scenario = the_only(sizes).scenario
        attention = next((one.priced_as for one in sizes if one.are_of(scenario)), "flash")
        stage = annotate(self.model, scenario, **{"attention": attention, **options}, fold=False)
        return lay_over(stage, trace, device)


@contextmanager
def measured(model: nn.Module) -> Iterator[MeasuredRun]:
    """Profile what runs inside of the block, with a range around every call of a module of ``model``.

    Call the model once before, so that what happens only once is not measured. On the CPU times are those of ops, where
    there is a GPU those of its kernels.

        with torch.no_grad(), fxmeter.measured(model) as run:
            model(input_ids=tokens, use_cache=True)
        run.compare(device="my-machine.json").matched_share

    Args:
        model: with weights, where it is to run.

    Returns:
        A context; inside of the block it is a :class:`MeasuredRun`, which after the block compares the run with its
        prediction, and saves it.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    run = MeasuredRun(model)
    profiler = profile(activities=activities, record_shapes=True, profile_memory=True)
    with ranges_around(model), profiler:
        yield run
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "trace.json.gz"
        profiler.export_chrome_trace(str(written))
        run._trace = written.read_bytes()
