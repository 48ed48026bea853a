"""Time on this machine: real models with real weights, predicted from a calibration that is interleaved with them.

    python -m validation.time_cpu [--only NAME ...] [--seconds N] [--threads N] [--page]

Each case is a model with random weights, run by PyTorch op by op, so the prediction is the estimate without fusion.
Calibration is repeated before each model, since a shared machine drifts; a model is predicted with its own, which
sees microbenchmarks only. With one thread, the default, passes and microbenchmarks are timed by the thread's own share
of the processor. Errors are signed, predicted less measured, against the least of the repeats; the spread of the
repeats is beside each. What was measured is kept in validation/time_cpu.json, model by model (``--only`` measures
some of them, ``--page`` none), and the page is written from that file. A pass that takes longer than 2.5 s is left
out, and so is what comes after it of the same stage.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from fxmeter import annotate
from fxmeter.annotators.timing.calibrate import calibrate
from fxmeter.models.devices.device import Device, device_from
from fxmeter.tracer.run.patches import scan_hooks
from validation.cpu_models import DTYPES, MODELS, SCENARIOS, States, attentions, measured, real, run_as
from validation.page import progress, quiet

PAGE = Path(__file__).parent.parent / "docs" / "validation_time_cpu.md"
KEPT = Path(__file__).parent / "time_cpu.json"
TERMS = """Terms that a calibration measures, since passes missed them: what products reach by rows, width, layout and
dtype; attention cores up to the diagonal and under a mask; elementwise kernels by dtype and bytes; pages of large
results; and the host's work around an op, which rises fivefold with the bytes that the pass moves for each op, since
they push out of the processor's caches what the host's work needs."""
LIMITS = """What no term has: PyTorch's fused core takes no keys of one head for queries of several, as Falcon's code
passes them: it runs products and a softmax instead, several times as long, and a core is predicted. oneDNN, which
multiplies in bfloat16, prepares a product of a new shape for half a millisecond: with eager attention two in each
decode step, since each has one token more. Results of 4 to 32 MiB get fresh pages or not by what the process has freed
before (eager attention of 1,024 tokens). Vector arithmetic has one rate for all functions. A convolution over the last
tokens (state space) is predicted by its FLOPs and bytes, and runs channel by channel; the scan of such a model is
predicted as the reference code that transformers runs here, its einsums as the products and copies in them."""
CALIBRATION_S = 8.0
"""Seconds for the calibration before a model, about a half of what it takes with all that it prepares."""
WORST = 1.5
"""The factor beyond which a miss is named."""


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
    def title(self) -> str:
        """In words."""
        return f"{self.model}, {self.dtype}, {self.attention}, {self.scenario}"

    @property
    def stage(self) -> str:
        """Prefill or decode."""
        return SCENARIOS[self.scenario].stage

    @property
    def batch(self) -> str:
        """Sequences at once."""
        return f"B = {SCENARIOS[self.scenario].batch}"

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
    model = real(MODELS[name], torch.float32, attentions(name)[-1])
    states = States(model, {scenario.past_len for scenario in SCENARIOS.values() if scenario.past_len})
    for dtype in DTYPES:
        for attention in attentions(name):
            run_as(model, attention, DTYPES[dtype])
            slow: set[str] = set()
            for label, scenario in SCENARIOS.items():
                if scenario.stage in slow:
                    continue
                progress(f"{name}, {dtype}, {attention}, {label}")
                state = states.of(scenario.past_len, scenario.batch, DTYPES[dtype])
                found = measured(model, scenario, seconds, state)
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
    kind = "eager" if attention == "eager" else "flash"
    with reference_scans():
        return (
            annotate(on_meta(name, dtype, attention), SCENARIOS[label], attention=kind)
            .time(device, fused=False)
            .estimate_s
        )


@cache
def on_meta(name: str, dtype: str, attention: str) -> nn.Module:
    """A model as it is priced."""
    with torch.device("meta"):
        return real(MODELS[name], DTYPES[dtype], attention)


@contextmanager
def reference_scans() -> Iterator[None]:
    """Inside the block scans are recorded as the code that transformers runs without the packages that have them."""
    with patch.dict(scan_hooks.KERNELS, clear=True):
        scan_hooks._scans_of.cache_clear()
        yield
    scan_hooks._scans_of.cache_clear()


def page(found: list[Case]) -> str:
    """The document."""
    errors = sorted(abs(case.error) for case in found)
    beyond = [case for case in found if not 1 / WORST <= 1 + case.error <= WORST]
    lines = [
        "# Time on a CPU",
        "",
        "Written by `python -m validation.time_cpu`. " + " ".join(str(__doc__).split("\n\n")[2].split()),
        "",
        f"{len({case.model for case in found})} of {len(MODELS)} models are measured. {len(found)} passes: median "
        f"absolute error {statistics.median(errors):.0%} (asked: 15%), nine in ten within "
        f"{errors[int(0.9 * len(errors))]:.0%}, worst {errors[-1]:.0%}; {len(beyond)} beyond a factor of {WORST} "
        f"(asked: none that is not explained). Kendall's τ of the ranking: {kendall(found):.2f} (asked: .9).",
        "",
        " ".join(TERMS.split()),
        "",
        " ".join(LIMITS.split()),
        "",
        f"Beyond a factor of {WORST}: "
        + ("; ".join(f"{case.title} {case.error:+.0%}" for case in beyond) or "none")
        + ".",
        "",
        "| by | passes | median absolute error | median error |",
        "|---|---:|---:|---:|",
        *(line for field in ("stage", "batch", "scenario", "dtype", "attention", "model") for line in by(found, field)),
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
    parser.add_argument("--seconds", type=float, default=0.4, help="for the repeats of each pass")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
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
