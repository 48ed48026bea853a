"""From a priced graph to totals: the module tree, the ops, the cache. Every total is a sum over the same nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from operator import itemgetter
from pathlib import Path

import networkx as nx
from torch import fx

from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.pricing.fusion import FusionGroup, fusion_groups
from fxmeter.annotators.pricing.graph import PricedNode, PricedPass, priced_nodes
from fxmeter.annotators.pricing.price import price
from fxmeter.annotators.sheets.piece import UncostedOp, uncosted_at
from fxmeter.annotators.sheets.region import NO_SIZES
from fxmeter.annotators.sheets.tables import (
    AtPeak,
    CacheLayer,
    Executions,
    ModuleCosts,
    ReportedStage,
    StageTables,
    op_costs,
)
from fxmeter.annotators.stages.containment import contained, op_totals, summed
from fxmeter.annotators.stages.peak import Peak, at_peak, find_peak
from fxmeter.annotators.timing.kernels import kernels_of
from fxmeter.annotators.timing.stage_time import StageTime, stage_time
from fxmeter.models.devices import device as device_named
from fxmeter.models.devices.device import Device
from fxmeter.models.mixed_step import MixedStep
from fxmeter.models.scenario import Scenario, VisionScenario
from fxmeter.models.stage_cost import ZERO, Cost, Size
from fxmeter.tracer.capture.recording import Recording
from fxmeter.tracer.run.patches.attention import Attention


@dataclass(frozen=True, slots=True)
class AnnotatedStage(StageTables):
    """One pass, or the steps of a generation, priced.

    Beside its tables, ``recording`` is what was recorded; of a generation its last step, whose stage by itself is
    ``last_step``. ``fullest_step`` is the step that has the largest peak, ``steps_time`` takes a device and gives the
    time of all steps; the three are None for a single pass. ``graph_once`` makes the graph when it is asked for.
    """

    graph_once: Callable[[], nx.DiGraph] = field(repr=False)
    recording: Recording = field(repr=False)
    last_step: AnnotatedStage | None = field(default=None, repr=False)
    fullest_step: AnnotatedStage | None = field(default=None, repr=False)
    steps_time: Callable[[Device], StageTime] | None = field(default=None, repr=False)

    @property
    def graph(self) -> nx.DiGraph:
        """The ops and what flows between them, as :mod:`fxmeter.annotators.pricing.graph` documents: what its nodes
        cost adds up to ``cost``. That of a generation has the nodes of all steps."""
        return self.graph_once()

    @property
    def fx_graph(self) -> fx.Graph:
        """The recorded ``torch.fx`` graph."""
        return self.recording.graph

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the recording took for granted, in words: of data that nobody has, of the mode that modules are in."""
        training = ("modules are in training mode",) if self.recording.training else ()
        return (*self.recording.assumptions, *training)

    @property
    def module_graph(self) -> nx.DiGraph:
        """Stage → modules → ops, with multiplicities: the tree that :mod:`fxmeter.annotators.stages.containment`
        documents, and that the costs of the modules were summed over."""
        return contained(self.recording, self.modules.recorded, priced_nodes(self.graph))

    @property
    def fusion_groups(self) -> tuple[FusionGroup, ...]:
        """Ops that run as one kernel in ``fused_io_bytes``, where there is more than one."""
        return fusion_groups(self.graph)

    def time(self, device: str | Path | Device, *, fused: bool = True) -> StageTime:
        """How long the pass takes on ``device``: a name or alias of ``fxmeter devices``, or the path of a device file.

        Args:
            device: for example "h100-sxm5-80g", "a100" or "my-machine.json".
            fused: chains of ops as one kernel each, as compilers and engines run them; False is op by op.

        Returns:
            :class:`fxmeter.annotators.timing.stage_time.StageTime`: ``bound_s``, ``estimate_s``, ``launch_s`` and
            ``bound_by``, of the pass, of each module and of each kernel. A fused attention core computes the pairs
            that its mask lets through, whatever convention the counts follow (op by op, all of a window's: PyTorch's
            own is given it as a mask). The time of a generation is that of all its steps.

        Raises:
            DeviceError: no such device.
        """
        if self.steps_time is not None:
            return self.steps_time(device_named(device))
        exact, full = (replace(self.conventions, causal=causal) for causal in ("exact", "full"))
        graph = self.graph if exact == self.conventions else price(self.recording, exact).graph
        whole = None if fused else self.graph if full == self.conventions else price(self.recording, full).graph
        times = {path: module.times for path, module in self.modules.items()}
        scenario = None if isinstance(self.scenario, MixedStep) else self.scenario
        return stage_time(kernels_of(self.recording, graph, fused=fused, full=whole), device, times, scenario, fused)

    @property
    def peak(self) -> Peak | None:
        """Where most activation memory is in use, and by what; None for a pass that makes nothing."""
        return find_peak(self.recording if self.fullest_step is None else self.fullest_step.recording)

    @property
    def at_peak(self) -> AtPeak | None:
        """The same as rows, tensors alike on one of them; of a generation, in the step that has the largest."""
        step = None if self.fullest_step is None else self.fullest_step.scenario
        return at_peak(self.peak, step.past_len if isinstance(step, Scenario) else None)

    @property
    def executed(self) -> tuple[Executions, ...]:
        """The ops that cost anything, by module and by the shapes that they read."""
        groups: dict[tuple[str, str, str], list[PricedNode]] = {}
        for node in priced_nodes(self.graph):
            if node.cost is not ZERO:
                groups.setdefault((node.op, node.module, node.inputs), []).append(node)
        return tuple(
            Executions(*key, sum(n.executions for n in nodes), Cost.weighted((n.cost, n.times) for n in nodes))
            for key, nodes in groups.items()
        )

    def reported(self) -> ReportedStage:
        """What a report shows of it, as plain data, without what was recorded."""
        tables = {each.name: getattr(self, each.name) for each in fields(ReportedStage)}
        return ReportedStage(**tables)


@dataclass(frozen=True, slots=True)
class Totals:
    """A priced pass added up.

    Attributes:
        modules: path → cost of every recorded module; "" is the whole pass.
        ops: op → executions, and what they cost together.
        uncosted: executions of ops that no rule knows.
        floor_io_bytes: the least traffic of any implementation.
    """

    modules: ModuleCosts
    ops: Mapping[str, tuple[int, Cost]]
    uncosted: tuple[UncostedOp, ...]
    floor_io_bytes: Size


def totals_of(recording: Recording, priced: PricedPass) -> Totals:
    """Add a priced pass up by module and by op.

    Args:
        recording: the pass; its sizes may be whole numbers or polynomials.
        priced: its ops, priced.
    """
    nodes = priced.nodes.values()
    modules = summed(recording, nodes)
    return Totals(
        ModuleCosts(modules, recording.folds(), recording.aliases),
        op_totals(nodes, modules[""].cost),
        _uncosted(nodes),
        priced.floor_io_bytes,
    )


def roll_up(
    recording: Recording,
    priced: PricedPass,
    conventions: Conventions,
    *,
    attention: Attention,
    scenario: Scenario | VisionScenario | None = None,
) -> AnnotatedStage:
    """A priced pass as a stage."""
    totals = totals_of(recording, priced)
    return AnnotatedStage(
        scenario=scenario,
        attention=attention,
        conventions=conventions,
        cost=totals.modules[""].cost,
        modules=totals.modules,
        ops=op_costs(totals.ops),
        kv_cache=cache_layers(recording),
        uncosted=uncosted_at(totals.uncosted, NO_SIZES),
        floor_io_bytes=totals.floor_io_bytes,
        graph_once=lambda: priced.graph,
        recording=recording,
    )


def cache_layers(recording: Recording) -> tuple[CacheLayer, ...]:
    """What each layer keeps in the cache after the pass."""
    shapes: dict[tuple[int, str], list[tuple[int, ...]]] = {}
    sizes: dict[tuple[int, str], int] = {}
    names: dict[tuple[int, str], list[str]] = {}
    for entry in recording.cache:
        for layer in entry.layers:
            key = (layer, entry.kind)
            shapes.setdefault(key, []).append(tuple(entry.spec.shape))
            names.setdefault(key, []).append(entry.name)
            sizes[key] = sizes.get(key, 0) + entry.nbytes
    order = sorted(sizes, key=itemgetter(0))
    return tuple(CacheLayer(*key, tuple(shapes[key]), sizes[key], tuple(names[key])) for key in order)


def _uncosted(priced: Iterable[PricedNode]) -> tuple[UncostedOp, ...]:
    return tuple(
        UncostedOp(node.op, node.times, node.module, tuple((spec.dtype_name, spec.shape) for spec in node.operands))
        for node in priced
        if not node.costed
    )
