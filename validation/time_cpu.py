"""Time on this machine: real models with real weights, predicted from a calibration that is interleaved with them.

    python -m validation.time_cpu [--only NAME ...] [--seconds N] [--threads N] [--page]

Each case is a model with random weights, run by PyTorch op by op, so the prediction is the estimate without fusion.
Calibration is repeated before each model, since a shared machine drifts; a model is predicted with its own, which
sees microbenchmarks only. Errors are signed, predicted less measured, against the least of the repeats; the spread of
the repeats is beside each. What was measured is kept in validation/time_cpu.json, model by model (``--only`` measures
some of them, ``--page`` none), and the page is written from that file. A pass that takes longer than 0.8 s is left
out, and so is what comes after it of the same stage.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fxmeter import annotate
from fxmeter.annotators.timing.calibrate import calibrate
from fxmeter.models.devices.device import Device, device_from
from validation.cpu_models import DTYPES, MODELS, SCENARIOS, States, attentions, measured, real
from validation.page import progress, quiet

PAGE = Path(__file__).parent.parent / "docs" / "validation_time_cpu.md"
KEPT = Path(__file__).parent / "time_cpu.json"
LIMITS = """Where it is low: the state space model, whose convolution over the last tokens runs channel by channel
in bfloat16 (13,824 calls of `aten::_slow_conv2d_forward` with their slices in a step of 12 layers, nine tenths of its
time), where one kernel is predicted. Products with narrow weights, since `aten.mm` is calibrated at a width of 768: one
row by weights of 384 by 384 reached 7 GB/s here, of 768 by 768 10, of 2,048 by 2,048 12. In batched decode `aten.bmm`
by keys and values and `aten.cat`, with which a cache grows. And what a neighbour on a shared machine takes for seconds
is in the passes and not in the calibration, which keeps the faster repeats; the spread of the repeats does not show it.
Where it is high: the model with one key head in bfloat16, whose fused attention core is taken for one with as many key
heads as query heads, which is what is calibrated. Two models, of 500 M and 1 B parameters, were not measured to the
end."""
CALIBRATION_S = 8.0
"""Seconds for the calibration before a model."""


@dataclass(frozen=True, slots=True)
class Case:
    """One measured pass beside its prediction, in seconds."""

    model: str
    dtype: str
    attention: str
    scenario: str
    predicted_s: float
    least_s: float
    median_s: float

    @property
    def error(self) -> float:
        """Predicted less measured, as a share of the least."""
        return self.predicted_s / self.least_s - 1


def measure(name: str, seconds: float) -> dict[str, Any]:
    """The calibration and the passes of a model: {"device": a device file, "passes": [[dtype, attention, pass, least,
    median], ...]}."""
    progress(f"{name}: calibration")
    device = calibrate("cpu", seconds=CALIBRATION_S)
    device["measured"].pop("spread")
    passes = []
    states = States(real(MODELS[name], torch.float32, attentions(name)[-1]))
    for dtype in DTYPES:
        for attention in attentions(name):
            model = real(MODELS[name], DTYPES[dtype], attention)
            slow: set[str] = set()
            for label, scenario in SCENARIOS.items():
                if scenario.stage in slow:
                    continue
                progress(f"{name}, {dtype}, {attention}, {label}")
                found = measured(model, scenario, seconds, states)
                if found is None:
                    slow.add(scenario.stage)
                else:
                    passes.append([dtype, attention, label, *found])
    return {"device": device, "passes": passes}


def cases(kept: dict[str, Any]) -> Iterable[Case]:
    """Every measured pass beside what the calibration before it predicts."""
    for name in MODELS:
        if name not in kept:
            continue
        device = device_from("here", kept[name]["device"])
        for dtype, attention, label, least, median in kept[name]["passes"]:
            yield Case(name, dtype, attention, label, predicted(name, dtype, attention, label, device), least, median)


def predicted(name: str, dtype: str, attention: str, label: str, device: Device) -> float:
    """Seconds that a pass should take, op by op."""
    with torch.device("meta"):
        model = real(MODELS[name], DTYPES[dtype], attention)
    kind = "eager" if attention == "eager" else "flash"
    return annotate(model, SCENARIOS[label], attention=kind).time(device, fused=False).estimate_s


def page(found: list[Case]) -> str:
    """The document."""
    errors = [abs(case.error) for case in found]
    lines = [
        "# Time on a CPU",
        "",
        "Written by `python -m validation.time_cpu`. " + " ".join(str(__doc__).split("\n\n")[2].split()),
        "",
        f"{len({case.model for case in found})} of {len(MODELS)} models are measured. {len(found)} passes: median "
        f"absolute error {statistics.median(errors):.0%}, nine in ten within "
        f"{sorted(errors)[int(0.9 * len(errors))]:.0%}, worst {max(errors):.0%}. "
        f"Kendall's τ of the ranking: {kendall(found):.2f}.",
        "",
        " ".join(LIMITS.split()),
        "",
        "| by | passes | median absolute error | median error |",
        "|---|---:|---:|---:|",
        *(line for field in ("scenario", "dtype", "attention") for line in by(found, field)),
        "",
        "| model | dtype | attention | pass | predicted | measured, least | spread | error |",
        "|---|---|---|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {case.model} | {case.dtype} | {case.attention} | {case.scenario} | {case.predicted_s * 1e3:.2f} ms "
        f"| {case.least_s * 1e3:.2f} ms | {case.median_s / case.least_s - 1:.0%} | {case.error:+.0%} |"
        for case in found
    ]
    return "\n".join(lines) + "\n"


def by(found: list[Case], field: str) -> list[str]:
    """Rows of the errors of the cases that have one value of a field each."""
    groups = {
        value: [c.error for c in found if getattr(c, field) == value] for value in (getattr(c, field) for c in found)
    }
    return [
        f"| {value} | {len(errors)} | {statistics.median(map(abs, errors)):.0%} | {statistics.median(errors):+.0%} |"
        for value, errors in groups.items()
    ]


def kendall(found: list[Case]) -> float:
    """Kendall's τ between predicted and measured times: concordant less discordant pairs, as a share of all."""
    pairs = [(a, b) for i, a in enumerate(found) for b in found[:i]]
    signs = [(a.predicted_s - b.predicted_s) * (a.least_s - b.least_s) for a, b in pairs]
    return sum(1 if sign > 0 else -1 for sign in signs) / len(signs)


def main() -> None:
    """Measure, print, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(MODELS), default=list(MODELS), help="models to measure")
    parser.add_argument("--seconds", type=float, default=0.5, help="for the repeats of each pass")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="as many as PyTorch takes")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page from what is kept")
    given = parser.parse_args()
    quiet()
    torch.set_num_threads(given.threads)
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    for name in () if given.page else given.only:
        kept[name] = measure(name, given.seconds)
        lines = (f"{json.dumps(each)}: {json.dumps(kept[each])}" for each in MODELS if each in kept)
        KEPT.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    text = page(list(cases(kept)))
    print(text)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
