"""From a priced graph to totals: the module tree, the ops, the cache. Every total is a sum over the same nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from operator import itemgetter
from pathlib import Path

import networkx as nx
from torch import fx

from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.pricing.fusion import FusionGroup, fusion_groups
from fxmeter.annotators.pricing.graph import priced_nodes
from fxmeter.annotators.pricing.price import price
from fxmeter.annotators.stages.containment import PART, ModuleCost, contained, op_totals
from fxmeter.annotators.stages.peak import AtPeak, Peak, at_peak, find_peak
from fxmeter.annotators.timing.kernels import kernels_of
from fxmeter.annotators.timing.stage_time import StageTime, stage_time
from fxmeter.models.devices import device as device_named
from fxmeter.models.devices.device import Device
from fxmeter.models.figures import PassFigures
from fxmeter.models.mixed_step import MixedStep
from fxmeter.models.scenario import Scenario, VisionScenario
from fxmeter.models.stage_cost import Cost, Size, StageCost
from fxmeter.tracer.capture.recording import Recording
from fxmeter.tracer.run.attention import Attention


@dataclass(frozen=True, slots=True)
class OpCost:
    """All executions of one op: how many, and what they cost together."""

    op: str
    count: int
    cost: StageCost


@dataclass(frozen=True, slots=True)
class Uncosted:
    """Executions of an op that no rule knows, by module and shapes."""

    op: str
    count: int
    module: str
    shapes: str


@dataclass(frozen=True, slots=True)
class CacheLayer:
    """What one layer keeps in the cache after the pass: the class that keeps it, and its tensors with their names."""

    layer: int
    kind: str
    shapes: tuple[tuple[int, ...], ...]
    bytes: int
    names: tuple[str, ...] = ()


class ModuleCosts(Mapping[str, ModuleCost]):
    """Module path → cost. Iterates over what was recorded; a folded layer's path finds its stand-in."""

    def __init__(self, recorded: Mapping[str, ModuleCost], folds: Mapping[str, str]) -> None:
        self._recorded = recorded
        self._folds = folds

    def __getitem__(self, path: str) -> ModuleCost:
        return self._recorded[self._stand_in(path)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._recorded)

    def __len__(self) -> int:
        return len(self._recorded)

    def _stand_in(self, path: str) -> str:
        seen: set[str] = set()
        while path not in self._recorded and path not in seen:
            seen.add(path)
            parts = path.split(".")
            for end in range(len(parts), 0, -1):
                head = ".".join(parts[:end])
                if head in self._folds:
                    path = ".".join([self._folds[head], *parts[end:]])
                    break
        return path


@dataclass(frozen=True, slots=True)
class AnnotatedStage(PassFigures):
    """One pass, or the steps of a generation, priced.

    Beside its ``cost`` it has the figures that only a whole pass has: ``floor_io_bytes``. ``recording`` is what was
    recorded; of a generation its last step, whose stage by itself is ``last_step``. ``fullest_step`` is the step that
    has the largest peak, ``steps_time`` takes a device and gives the time of all steps; the three are None for a single
    pass. ``graph_once`` makes the graph when it is asked for.
    """

    scenario: Scenario | MixedStep | VisionScenario | None
    attention: Attention
    conventions: Conventions
    cost: StageCost
    modules: ModuleCosts
    ops: tuple[OpCost, ...]
    kv_cache: tuple[CacheLayer, ...]
    uncosted: tuple[Uncosted, ...]
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
        return contained(self.recording, self.graph)

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
            that its mask lets through, whatever convention the counts follow. The time of a generation is that of
            all its steps.

        Raises:
            DeviceError: no such device.
        """
        if self.steps_time is not None:
            return self.steps_time(device_named(device))
        exact = replace(self.conventions, causal="exact")
        graph = self.graph if exact == self.conventions else price(self.recording, exact)
        times = {path: module.times for path, module in self.modules.items()}
        scenario = None if isinstance(self.scenario, MixedStep) else self.scenario
        return stage_time(kernels_of(self.recording, graph, fused=fused), device, times, scenario)

    @property
    def peak(self) -> Peak | None:
        """Where most activation memory is in use, and by what; None for a pass that makes nothing."""
        return find_peak(self.recording if self.fullest_step is None else self.fullest_step.recording)

    @property
    def at_peak(self) -> AtPeak | None:
        """The same as rows, tensors alike on one of them; of a generation, in the step that has the largest."""
        step = None if self.fullest_step is None else self.fullest_step.scenario
        return at_peak(self.peak, step.past_len if isinstance(step, Scenario) else None)


@dataclass(frozen=True, slots=True)
class Totals:
    """A priced graph added up.

    Attributes:
        modules: path → cost of every recorded module; "" is the whole pass.
        ops: op → executions, and what they cost together.
        uncosted: executions of ops that no rule knows.
        floor_io_bytes: the least traffic of any implementation.
    """

    modules: ModuleCosts
    ops: Mapping[str, tuple[int, Cost]]
    uncosted: tuple[Uncosted, ...]
    floor_io_bytes: Size


def totals_of(recording: Recording, graph: nx.DiGraph) -> Totals:
    """Add a priced graph up by module and by op, over one containment graph.

    Args:
        recording: the pass; its sizes may be whole numbers or polynomials.
        graph: its ops, priced.
    """
    tree = contained(recording, graph)
    parts = (part for _, part in tree.nodes(data=PART))
    modules = {part.path: part for part in parts if isinstance(part, ModuleCost)}
    return Totals(
        ModuleCosts(modules, recording.stand_ins()), op_totals(tree), _uncosted(graph), graph.graph["floor_io_bytes"]
    )


def roll_up(
    recording: Recording,
    graph: nx.DiGraph,
    conventions: Conventions,
    *,
    attention: Attention,
    scenario: Scenario | VisionScenario | None = None,
) -> AnnotatedStage:
    """A priced graph as a stage."""
    totals = totals_of(recording, graph)
    return AnnotatedStage(
        scenario=scenario,
        attention=attention,
        conventions=conventions,
        cost=totals.modules[""].cost,
        modules=totals.modules,
        ops=op_costs(totals.ops),
        kv_cache=_cache_layers(recording),
        uncosted=totals.uncosted,
        floor_io_bytes=totals.floor_io_bytes,
        graph_once=lambda: graph,
        recording=recording,
    )


def op_costs(totals: Mapping[str, tuple[int, StageCost]]) -> tuple[OpCost, ...]:
    """By op, most FLOPs first, then most bytes."""
    order = sorted(totals, key=lambda op: (-totals[op][1].flops, -totals[op][1].io_bytes, op))
    return tuple(OpCost(op, *totals[op]) for op in order)


def _cache_layers(recording: Recording) -> tuple[CacheLayer, ...]:
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


def _uncosted(graph: nx.DiGraph) -> tuple[Uncosted, ...]:
    counts: dict[tuple[str, str, str], int] = {}
    for node in priced_nodes(graph):
        if not node.costed:
            key = (node.op, node.module, node.inputs)
            counts[key] = counts.get(key, 0) + node.times
    return tuple(Uncosted(op, count, module, shapes) for (op, module, shapes), count in counts.items())
