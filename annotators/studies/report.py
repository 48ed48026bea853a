"""A report as data: what was priced, by which conventions and versions, stage by stage. No formatting here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.sheets import steps
from fxmeter.annotators.sheets.steps import per_step
from fxmeter.annotators.sheets.tables import OfPass, ReportedStage
from fxmeter.annotators.sheets.titles import title
from fxmeter.annotators.studies.comparing.compared import Pipelined, Served, Shared
from fxmeter.annotators.studies.times import StageTiming
from fxmeter.annotators.timing.stage_time import StageTime
from fxmeter.annotators.units import quantity
from fxmeter.models.devices import Device
from fxmeter.models.figures import Figure, PassFigures
from fxmeter.models.mixed_step import MixedStep
from fxmeter.models.model_info import ModelInfo
from fxmeter.models.scenario import Scenario
from fxmeter.models.stage_cost import PASS_FIGURES, StageCost

if TYPE_CHECKING:
    from fxmeter.annotators.stages.rollup import AnnotatedStage


@dataclass(frozen=True, slots=True)
class Column(PassFigures):
    """One column of the table of stages: a stage, the mean of its steps, or the whole request."""

    title: str
    attention: str
    cost: StageCost

    def value(self, figure: Figure) -> float:
        """What the column has of a figure."""
        return getattr(self if figure.name in PASS_FIGURES else self.cost, figure.name)

    def says_no_more(self, figure: Figure) -> bool:
        """Whether a figure is the same as the one it is under."""
        return self.value(figure) == getattr(self.cost, figure.under or "", None)

    def share(self, figure: Figure) -> float:
        """How much that is of the whole that the figure is a share of: of the traffic, what is left when chains are
        fused, or what no implementation can avoid."""
        return self.value(figure) / (getattr(self.cost, figure.share_of or "") or 1)


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a reader needs to trust, or to redo, the numbers. ``totals`` has attention → the whole request,
    ``times`` of each stage those on the devices asked for, ``served`` what serving kernels would change much,
    ``shared`` each stage of a rank beside one device, ``pipelines`` each pass as pipeline stages."""

    model: ModelInfo
    conventions: Conventions
    stages: tuple[ReportedStage, ...]
    totals: Mapping[str, StageCost] = field(default_factory=dict)
    times: tuple[tuple[StageTime, ...], ...] = ()
    served: tuple[Served, ...] = ()
    shared: tuple[Shared, ...] = ()
    pipelines: tuple[Pipelined, ...] = ()

    @property
    def timings(self) -> tuple[StageTiming, ...]:
        """Each stage on each device."""
        pairs = zip(self.stages, self.times, strict=False)
        groups = self.model.sharding.get("dp", 1)
        return tuple(StageTiming(stage, time, groups) for stage, times in pairs for time in times)

    def timings_of(self, stage: ReportedStage) -> tuple[StageTiming, ...]:
        """One stage on each device."""
        return tuple(timing for timing in self.timings if timing.stage is stage)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The stages, each generation with its mean per token beside it, then the totals. What is the same for both
        attentions, as of a model that has none, is there once."""
        found = []
        for stage in self.stages:
            found.append(Column(title_of(stage), stage.attention, stage.cost, floor_io_bytes=stage.floor_io_bytes))
            count = getattr(stage.scenario, "steps", 1)
            if count > 1:
                mean = stage.floor_io_bytes / count
                cost = per_step(stage.cost, count)
                found.append(Column("decode per token", stage.attention, cost, floor_io_bytes=mean))
        for attention, cost in self.totals.items():
            floor = sum(stage.floor_io_bytes for stage in self.stages if stage.attention == attention)
            found.append(Column("end to end", attention, cost, floor_io_bytes=floor))
        return _once(found)

    @property
    def fullest_stages(self) -> Mapping[str, ReportedStage]:
        """Attention → the stage of the whole request that has the largest peak."""
        return {
            attention: max(
                (stage for stage in self.stages if stage.attention == attention),
                key=lambda stage: stage.cost.peak_activation_bytes,
            )
            for attention in self.totals
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader should know before trusting the numbers: lengths that the model is not made for, devices that a
        stage does not fit in."""
        passes = [one for stage in self.stages for one in _passes(stage)]
        tokens = max((one.final_kv_len for one in passes if one.stage != "encode"), default=0)
        positions = max((one.encoder_positions or 0 for one in passes), default=0)
        return (*self.model.warnings(tokens, positions), *filter(None, map(_overfull, self.timings)))

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the recordings took for granted, each once."""
        return tuple(dict.fromkeys(assumed for stage in self.stages for assumed in stage.assumptions))

    @property
    def one_per_scenario(self) -> tuple[ReportedStage, ...]:
        """A stage for each scenario: flash where there is a choice."""
        chosen: dict[object, ReportedStage] = {}
        for stage in self.stages:
            if stage.scenario not in chosen or stage.attention == "flash":
                chosen[stage.scenario] = stage
        return tuple(chosen.values())

    @property
    def executions(self) -> int:
        """Executions of ops, over all stages."""
        return sum(op.count for stage in self.stages for op in stage.ops if not op.op.startswith("("))

    @property
    def uncosted(self) -> int:
        """Executions of ops that no rule knows, over all stages."""
        return sum(item.count for stage in self.stages for item in stage.uncosted)


def build_report(
    model: ModelInfo,
    priced: Iterable[AnnotatedStage],
    *,
    end_to_end: bool = False,
    devices: Sequence[Device] = (),
    served: tuple[Served, ...] = (),
    shared: tuple[Shared, ...] = (),
    pipelines: tuple[Pipelined, ...] = (),
) -> Report:
    """A report on stages of one model, all priced by the same conventions.

    ``end_to_end`` adds the whole request for each attention: vision (where there is one), prefill and decode.
    ``devices`` to time every stage on. ``served`` is what
    :func:`fxmeter.annotators.studies.comparing.served.where_serving_differs` found, ``shared`` what
    :func:`fxmeter.annotators.studies.comparing.shared.shared_by_ranks` did, ``pipelines`` what
    :func:`fxmeter.annotators.studies.comparing.shared.pipelined` did.
    """
    priced = tuple(priced)
    stages = tuple(stage.reported() for stage in priced)
    totals: dict[str, StageCost] = {}
    for attention in dict.fromkeys(stage.attention for stage in stages) if end_to_end else ():
        costs = {s.scenario.stage: s.cost for s in stages if s.attention == attention and s.scenario is not None}
        totals[attention] = steps.end_to_end(costs.get("vision"), costs["prefill"], costs["decode"])
    times = tuple(tuple(stage.time(device) for device in devices) for stage in priced)
    return Report(model, stages[0].conventions, stages, totals, times, served, shared, pipelines)


def _once(columns: Iterable[Column]) -> tuple[Column, ...]:
    """Columns that differ in nothing but their attention as one: "eager and flash"."""
    alike: dict[object, list[Column]] = {}
    for column in columns:
        alike.setdefault((column.title, column.cost, column.floor_io_bytes), []).append(column)
    return tuple(
        replace(first, attention=" and ".join(dict.fromkeys([first.attention, *(each.attention for each in rest)])))
        for first, *rest in alike.values()
    )


def _overfull(timing: StageTiming) -> str:
    """That a stage does not fit in its device, where it does not."""
    cost, device = timing.stage.cost, timing.time.device
    needed = cost.weight_bytes + cost.kv_bytes + cost.peak_activation_bytes
    if needed <= device.memory_bytes:
        return ""
    has, takes = quantity(device.memory_bytes, "memory"), quantity(needed, "memory")
    return f"{title_of(timing.stage)} takes {takes}, more than the {has} of {device.name}: its time is of a larger one"


def _passes(stage: OfPass) -> tuple[Scenario, ...]:
    scenario = stage.scenario
    if isinstance(scenario, MixedStep):
        return scenario.parts
    return (scenario,) if isinstance(scenario, Scenario) else ()


def title_of(stage: OfPass) -> str:
    """ "prefill S=2048", "decode C=2048, B=8": a stage's scenario in a few words."""
    return "module" if stage.scenario is None else title(stage.scenario)
