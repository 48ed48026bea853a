"""A sweep with more points along its axis, for curves that are smooth where the points are few."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fxmeter.annotators.studies.axes import MOST_POINTS, Axes
from fxmeter.annotators.studies.curves import spread
from fxmeter.annotators.studies.sweep import StageForms, Sweep, run_sweep

POINTS = 48
"""Along an axis."""


def smooth(forms: StageForms, sweep: Sweep) -> Sweep:
    """The same sweep from closed forms at many points of its axis: contexts, or batches. Itself where it is one of
    pages, or where a stage has no closed form and every point would have to be recorded."""
    denser = _denser(sweep.axes)
    if sweep.recorded or denser is None or len(denser) > MOST_POINTS:
        return sweep
    return run_sweep(forms, denser, attentions=sweep.attentions)


def _denser(axes: Axes) -> Axes | None:
    if axes.crops:
        return None
    if len(axes.decode) > 1 or len(axes.prefill) > 1:
        name = "decode" if len(axes.decode) > 1 else "prefill"
    elif len(axes.batch) > 1:
        name = "batch"
    else:
        return None
    values = sorted(getattr(axes, name))
    between = [int(value) for value in spread(values[0], values[-1], POINTS)]
    changed: dict[str, Any] = {name: tuple(sorted({*values, *between}))}
    return replace(axes, **changed)
