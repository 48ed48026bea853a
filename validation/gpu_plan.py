"""What is measured on a GPU, what is predicted of it, and the tables that come of both. Needs no GPU."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fxmeter import annotate, decode, load_model, prefill
from fxmeter.models import Scenario
from fxmeter.tracer.run.patches.attention import ATTENTIONS, Attention
from validation.page import Row, Section, Table

MODELS = ("deepseek-ocr", "deepseek-v2-lite")
CONTEXTS, BATCHES = (512, 2048, 8192), (1, 8)
READ, WRITTEN = "dram__bytes_read.sum", "dram__bytes_write.sum"


@dataclass(frozen=True, slots=True)
class Cell:
    """One pass: ``context`` tokens of a prompt, or one token behind as many."""

    model: str
    stage: str
    context: int
    batch: int
    attention: Attention

    @property
    def name(self) -> str:
        """For a table."""
        return f"{self.model}, {self.stage} {self.context:,}, batch {self.batch}, {self.attention}"

    @property
    def scenario(self) -> Scenario:
        """For fxmeter."""
        constructor = prefill if self.stage == "prefill" else decode
        return constructor(self.context, batch=self.batch)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What fxmeter says of a cell, in bytes. ``layer_kv`` is the cache of the layer that holds most."""

    weights: int
    kv: int
    peak: int
    io: int
    fused_io: int
    floor: int
    layer_kv: int

    @property
    def memory(self) -> int:
        """Weights, cache after the pass, and activations at their peak."""
        return self.weights + self.kv + self.peak


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a GPU says of it: bytes allocated at most, seconds from first launch to last kernel's end, seconds in
    kernels, and bytes of DRAM traffic (None without Nsight Compute)."""

    allocated: int
    seconds: float
    kernel_seconds: float
    dram: int | None = None


def plan() -> list[Cell]:
    """Every cell, the smaller first."""
    return [
        Cell(model, stage, context, batch, attention)
        for model in MODELS
        for stage in ("prefill", "decode")
        for batch in BATCHES
        for context in CONTEXTS
        for attention in ATTENTIONS
    ]


def predict(cells: Iterable[Cell]) -> dict[Cell, Prediction]:
    """From the configs alone; each model is built once."""
    models = {}
    found = {}
    for cell in cells:
        if cell.model not in models:
            models[cell.model] = load_model(cell.model, dtype="bfloat16")
        stage = annotate(models[cell.model], cell.scenario, attention=cell.attention)
        cost = stage.cost
        found[cell] = Prediction(
            weights=cost.weight_bytes,
            kv=cost.kv_bytes,
            peak=cost.peak_activation_bytes,
            io=cost.io_bytes,
            fused_io=cost.fused_io_bytes,
            floor=stage.graph.graph["floor_io_bytes"],
            layer_kv=max((layer.bytes for layer in stage.kv_cache), default=0),
        )
    return found


def that_fit(predictions: Mapping[Cell, Prediction], memory: int) -> list[Cell]:
    """The cells that need at most nine tenths of a device's memory, what ``cat`` holds twice included."""
    return [cell for cell, p in predictions.items() if 10 * (p.memory + p.layer_kv) <= 9 * memory]


def dram_bytes(report: str) -> int:
    """Bytes read and written over all kernels of ``ncu --csv --page raw --print-units base``."""
    lines = [line for line in report.splitlines() if line.startswith('"')]
    rows = list(csv.DictReader(lines))
    if not rows or READ not in rows[0] or WRITTEN not in rows[0]:
        raise ValueError(f"the report of ncu has no {READ} and {WRITTEN}: {report[:200]!r}")
    units, *kernels = rows
    if {units[READ], units[WRITTEN]} != {"byte"}:
        raise ValueError(f"ncu reports in {units[READ]} and {units[WRITTEN]}, not in byte")
    return sum(int(float(kernel[name].replace(",", ""))) for kernel in kernels for name in (READ, WRITTEN))


def section(
    predictions: Mapping[Cell, Prediction], measured: Mapping[Cell, Measurement], bandwidth: float, skipped: int
) -> Section:
    """The page's section; ``bandwidth`` in bytes per second."""
    cells = [cell for cell in predictions if cell in measured]
    with_dram = [cell for cell in cells if measured[cell].dram is not None]
    tables = [
        Table("Memory: weights, KV and peak activations", [memory_row(c, predictions[c], measured[c]) for c in cells])
    ]
    if with_dram:
        tables.append(Table("DRAM traffic", [dram_row(c, predictions[c], measured[c]) for c in with_dram]))
    times = [time_row(c, predictions[c], measured[c], bandwidth) for c in cells if c.stage == "decode"]
    tables.append(Table("Decode: bytes over bandwidth against time in kernels", times, "microseconds"))
    return Section("gpu", "On a GPU", method(bandwidth, bool(with_dram), skipped), tables, verdict(times))


def memory_row(cell: Cell, predicted: Prediction, measured: Measurement) -> Row:
    """Against ``torch.cuda.max_memory_allocated``."""
    twice = f"; while `cat` copies a layer's cache, up to {predicted.layer_kv:,} more" if cell.stage == "decode" else ""
    parts = f"weights {predicted.weights:,}, KV {predicted.kv:,}, peak {predicted.peak:,}"
    return Row(cell.name, predicted.memory, measured.allocated, parts + twice)


def dram_row(cell: Cell, predicted: Prediction, measured: Measurement) -> Row:
    """Against Nsight Compute."""
    return Row(cell.name, predicted.io, measured.dram or 0, f"fused {predicted.fused_io:,}; floor {predicted.floor:,}")


def time_row(cell: Cell, predicted: Prediction, measured: Measurement, bandwidth: float) -> Row:
    """Predicted traffic at the bandwidth of a copy, against the time that kernels ran."""
    fused, floor = (microseconds(amount / bandwidth) for amount in (predicted.fused_io, predicted.floor))
    wall = microseconds(measured.seconds)
    text = f"if fused {fused:,}; floor {floor:,}; wall clock {wall:,}, launches included"
    return Row(cell.name, microseconds(predicted.io / bandwidth), microseconds(measured.kernel_seconds), text)


def microseconds(seconds: float) -> int:
    """Rounded."""
    return round(seconds * 1e6)


def method(bandwidth: float, with_dram: bool, skipped: int) -> str:
    """How the section came about."""
    ncu = (
        "DRAM traffic is that of Nsight Compute over one pass."
        if with_dram
        else "`ncu` is not on PATH: no DRAM traffic."
    )
    left = f" {skipped} passes that do not fit into its memory are left out." if skipped else ""
    return (
        f"Random bfloat16 weights, random tokens. Memory is `torch.cuda.max_memory_allocated` over one pass, the cache "
        f"filled before. A copy moves {bandwidth / 1e9:,.0f} GB/s here; times are medians. {ncu}{left}"
    )


def verdict(times: Sequence[Row]) -> str:
    """What a reader will look for."""
    ratios = sorted(row.predicted / row.measured for row in times if row.measured)
    if not ratios:
        return "No decode step was measured."
    return (
        f"Predicted bytes over measured bandwidth is {ratios[0]:.2f} to {ratios[-1]:.2f} (median "
        f"{statistics.median(ratios):.2f}) of the time in kernels over {len(ratios)} decode steps."
    )


def unrecorded() -> Section:
    """What the page says until a GPU has been at hand."""
    cells = plan()
    return Section(
        "gpu",
        "On a GPU",
        f"`validation/gpu.py` measures {', '.join(MODELS)} with random weights, prefill and decode, eager and "
        f"flash, contexts {', '.join(f'{c:,}' for c in CONTEXTS)}, batches {', '.join(map(str, BATCHES))} "
        f"({len(cells)} passes): memory allocated at most against weights, KV and peak; DRAM bytes by Nsight Compute; "
        "and predicted bytes over the bandwidth of a copy against the time of a decode step.",
        [],
        "**No GPU result has been recorded yet.** Run the script on a machine with CUDA; it puts its tables here.",
    )
