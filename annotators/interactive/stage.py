"""A stage that shows itself, and answers questions in Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

from fxmeter.annotators import api
from fxmeter.annotators.interactive.difference import ShownDifference, diff
from fxmeter.annotators.interactive.frames import Table, frame_of
from fxmeter.annotators.interactive.shown import Shown, Words
from fxmeter.annotators.interactive.tree import tree_html
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.annotators.studies.breakdown import HeavyOp, TreeRow, heaviest_ops, module_tree
from fxmeter.annotators.studies.times import StageTiming, TimedOp, longest_ops
from fxmeter.annotators.views.reports.report import heaviest_grid, tree_grid, usual_order
from fxmeter.annotators.views.reports.summary import figure_lines, summary_text
from fxmeter.annotators.views.reports.times import timed_ops
from fxmeter.annotators.views.terms import term_text
from fxmeter.models.choices import OpsBy
from fxmeter.models.devices.device import Device
from fxmeter.models.errors import FxmeterError
from fxmeter.models.figures import shown
from fxmeter.models.stage_cost import FIGURES, PASS_FIGURES
from fxmeter.models.terms import term as term_named

if TYPE_CHECKING:
    import pandas as pd

Given = ParamSpec("Given")


class Stage(AnnotatedStage):
    """What ``annotate`` returns: an :class:`fxmeter.annotators.AnnotatedStage` for a prompt and a notebook.

    It shows itself as a short table, in a notebook with its modules below, which fold. ``stage - other`` is what
    :func:`fxmeter.diff` finds between ``other``, before, and ``stage``, after; ``stage / other`` the ratios by figure.
    """

    __slots__ = ()

    @classmethod
    def of(cls, stage: AnnotatedStage) -> Stage:
        """The same stage, and the steps that it has."""
        parts = {each.name: getattr(stage, each.name) for each in fields(stage)}
        steps = {name: cls.of(parts[name]) for name in ("last_step", "fullest_step") if parts[name] is not None}
        return cls(**{**parts, **steps})

    def __repr__(self) -> str:
        return summary_text(self)

    def _repr_html_(self) -> str:
        return tree_html(self)

    def __sub__(self, other: AnnotatedStage) -> ShownDifference:
        if not isinstance(other, AnnotatedStage):
            return NotImplemented
        return diff(other, self)

    def __truediv__(self, other: AnnotatedStage) -> dict[str, float | None]:
        if not isinstance(other, AnnotatedStage):
            return NotImplemented
        pairs = {figure.name: (self.value(figure.name), other.value(figure.name)) for figure in _SHOWN}
        return {name: one / by if by else None for name, (one, by) in pairs.items()}

    def to_frame(self, table: Table = "figures") -> pd.DataFrame:
        """A table of the stage as a pandas DataFrame.

        Args:
            table: "figures"; "modules", a row for each that was recorded, with the cost of one instance and how many
                there are; "ops", a row for each op; "kv", a row for each tensor of the cache.

        Raises:
            FxmeterError: no such table, or pandas is not installed.
        """
        return frame_of(self, table)

    def heaviest(
        self, count: int = 10, *, by: OpsBy | None = None, device: str | Path | Device | None = None
    ) -> Shown[HeavyOp] | Shown[TimedOp]:
        """The ops that cost most, all executions on the same shapes together.

        Args:
            count: how many.
            by: "flops", "bytes", or "time" on ``device``. None: time where there is a device, bytes in decode, FLOPs
                else.
            device: as for :meth:`time`.
        """
        if by not in (None, "time", "flops", "bytes"):
            raise FxmeterError(f"the heaviest ops are by 'time', 'flops' or 'bytes', not {by!r}")
        if by == "time" and device is None:
            raise FxmeterError("the heaviest ops by time need a device, such as device='h100-sxm5-80g'")
        if device is not None and by in (None, "time"):
            timing = StageTiming(self, self.time(device))
            return Shown(tuple(longest_ops(timing, count)), timed_ops(timing, count))
        figure = usual_order(self, by)
        reported = self.reported()
        return Shown(tuple(heaviest_ops(reported, count, figure)), heaviest_grid(reported, count, by))

    def tree(self, depth: int = 3) -> Shown[TreeRow]:
        """The module tree down to ``depth`` levels, as the report has it."""
        return Shown(tuple(module_tree(self, depth)), tree_grid(self, depth))

    def explain(self, term: str) -> str:
        """What a word of a report means; of a figure also what this stage has of it, and the modules that have most.

        Args:
            term: "matmul_flops", "I/O floor", "routing": a word of docs/terms.md, or a figure's attribute.

        Raises:
            FxmeterError: no such term.
        """
        found = term_named(term)
        name = found.also[0] if found.group == "Figures" else None
        return Words("\n".join([term_text(found), *([] if name is None else figure_lines(self, name))]))


def faced(verb: Callable[Given, AnnotatedStage]) -> Callable[Given, Stage]:
    """The verb, its stages for people."""

    @wraps(verb)
    def call(*args: Given.args, **kwargs: Given.kwargs) -> Stage:
        return Stage.of(verb(*args, **kwargs))

    return call


annotate = faced(api.annotate)
annotate_module = faced(api.annotate_module)
_SHOWN = shown(FIGURES, PASS_FIGURES)
