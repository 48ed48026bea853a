"""A pass as pipeline stages: a partition of its priced ops by layer, with what each stage sends to the next.

    everything before the first layer ─┐                              ┌─ everything after the last one
                        layers 0 … a-1 │ layers a … b-1 │ …  layers z… │
                        ───── stage 0 ─┴──── stage 1 ───┴──── last stage ─

A stage computes what the whole does in its layers, so the stages add up to the whole. What layers leave for those
after them, their hidden states, is sent. Tables that all layers read (rotary embeddings, masks) belong to the first
stage; an engine makes them again in each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import networkx as nx

from fxmeter.annotators.pricing.graph import PricedNode, priced_nodes
from fxmeter.annotators.sheets.tables import ModuleCosts, PipelineStage, within
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.annotators.timing.kernel import Kernel
from fxmeter.annotators.timing.roofline import kernel_time
from fxmeter.annotators.timing.stage_time import ZERO, StageTime, Time
from fxmeter.models.errors import DeploymentError
from fxmeter.models.stage_cost import Size, StageCost
from fxmeter.tracer.capture.recording import Recording
from fxmeter.tracer.graph.nodes import executed, meta_of, specs_of


def split_layers(layers: int, stages: int) -> tuple[int, ...]:
    """How many layers each stage has: as evenly as they go, those left over one each to the stages before the last,
    which has the output head to compute (as vLLM deals them out)."""
    counts = [layers // stages] * stages
    for place in range(layers % stages):
        counts[stages - 2 - place] += 1
    return tuple(counts)


def pipeline(stage: AnnotatedStage, stages: int, ranks: int = 1) -> tuple[PipelineStage, ...]:
    """The pipeline stages of one pass.

    Args:
        stage: a pass of a language model, or a prompt in chunks; of several decode steps the last one.
        stages: how many devices (or groups of ranks) share its layers.
        ranks: devices of such a group, of which each sends to its like in the next.

    Raises:
        DeploymentError: fewer layers than stages.
    """
    stage = shown(stage)
    one = stage.last_step or stage
    recorded, whole = (getattr(each.scenario, "query_len", 1) for each in (one, stage))
    dealt = Dealt.of(stage.recording, one.graph, stage.modules, stages)
    parts = dealt.parts(stage.graph, stage.modules, ranks)
    return tuple(_of_tokens(part, whole, recorded) for part in parts)


@dataclass(frozen=True, slots=True)
class Dealt:
    """How the ops of a pass are dealt out to pipeline stages.

    Attributes:
        recording: the pass; its sizes may be polynomials.
        layers: paths of its layers, in their order.
        counts: how many of them each stage has.
        before: ops that run before the first layer.
    """

    recording: Recording
    layers: tuple[str, ...]
    counts: tuple[int, ...]
    before: frozenset[str]

    @classmethod
    def of(
        cls,
        recording: Recording,
        graph: nx.DiGraph,
        modules: ModuleCosts,
        stages: int,
        number: Callable[[Size], int] = int,
    ) -> Dealt:
        """The layers of a pass for so many stages. ``number`` gives what a size is at the point in question.

        Raises:
            DeploymentError: fewer layers than stages.
        """
        layers = _layer_paths(recording, modules, number)
        if len(layers) < stages:
            raise DeploymentError(f"pp={stages}: a pass with {len(layers)} layers has no work for so many stages")
        in_list, nodes = layers[0].rpartition(".")[0], list(priced_nodes(graph))
        began = min(node.order for node in nodes if within(node.module, in_list))
        before = frozenset(node.name for node in nodes if node.order < began)
        return cls(recording, layers, split_layers(len(layers), stages), before)

    def parts(
        self, graph: nx.DiGraph, modules: ModuleCosts, ranks: int, kernels: Sequence[Kernel] = ()
    ) -> tuple[PipelineStage, ...]:
        """Each stage: its cost, what it sends, and which of ``kernels`` it launches."""
        outside: tuple[list[PricedNode], list[PricedNode]] = ([], [])
        for node in priced_nodes(graph):
            if not within(node.module, self._list):
                outside[not self._is_before(node.name)].append(node)
        found, first, final = [], 0, len(self.counts) - 1
        for place, (count, of_layers) in enumerate(zip(self.counts, self._stand_ins(modules), strict=True)):
            own = [(modules[path].cost, times) for path, times in of_layers.items()]
            for nodes in (outside[0] if place == 0 else [], outside[1] if place == final else []):
                own += [(node.cost, node.times) for node in nodes]
            last = first + count - 1
            send = None if place == final else _send(self._left(modules, self.layers[last]), place, ranks)
            found.append(PipelineStage(first, last, StageCost.weighted(own), send))
            first += count
        launches = zip(*(self.launches(kernel, modules) for kernel in kernels), strict=True) if kernels else None
        return tuple(found if launches is None else map(_with_launches, found, launches))

    def launches(self, kernel: Kernel, modules: ModuleCosts) -> tuple[int, ...]:
        """How often each stage launches a kernel."""
        if not within(kernel.module, self._list):
            place = 0 if self._is_before(kernel.name) else len(self.counts) - 1
            return tuple(kernel.times if place == each else 0 for each in range(len(self.counts)))
        layer = kernel.module[: (kernel.module + ".").index(".", len(self._list) + 1)]
        of_one = kernel.times // modules[layer].times
        return tuple(of_one * of_layers.get(layer, 0) for of_layers in self._stand_ins(modules))

    @property
    def _list(self) -> str:
        return self.layers[0].rpartition(".")[0]

    def _is_before(self, name: str) -> bool:
        return name.partition("@")[0] in self.before  # "mm_3@2" is "mm_3" of a later pass

    def _stand_ins(self, modules: ModuleCosts) -> list[Mapping[str, int]]:
        """Of each stage, the layers that stand for its own, and for how many."""
        paths = iter(map(modules.stand_in, self.layers))
        return [Counter(next(paths) for _ in range(count)) for count in self.counts]

    def _left(self, modules: ModuleCosts, layer: str) -> Size:
        """Bytes of the activations of a layer, or of the one that stands for it, that are read outside of it."""
        stand_in = modules.stand_in(layer)
        sent: dict[int, Size] = {}
        for node in executed(self.recording.graph):
            if within(meta_of(node).module, stand_in) and any(
                not within(meta_of(user).module, stand_in) for user in node.users
            ):
                sent |= {spec.storage.id: spec.nbytes for spec in specs_of(node) if spec.role == "activation"}
        return sum(sent.values())


def _layer_paths(recording: Recording, modules: ModuleCosts, number: Callable[[Size], int]) -> tuple[str, ...]:
    """Paths of the layers that a pass runs one after another: the members of the list that does most."""
    members: dict[str, set[int]] = {}
    for path in recording.classes:
        in_list, _, index = path.rpartition(".")
        if index.isdigit() and not any(part.isdigit() for part in in_list.split(".")):
            members.setdefault(in_list, set()).add(int(index))
    moved = {
        in_list: sum(number(modules[path].cost.io_bytes) for i in found if (path := f"{in_list}.{i}") in modules)
        for in_list, found in members.items()
    }
    chosen = max(moved, key=lambda in_list: moved[in_list], default=None)
    return () if chosen is None else tuple(f"{chosen}.{index}" for index in sorted(members[chosen]))


def _send(nbytes: Size, place: int, ranks: int) -> Kernel:
    """What hands the output of a stage on, from its first rank to that of the next stage."""
    ends = place * ranks, (place + 1) * ranks
    return Kernel("send", "pipeline.send", "", 1, "collective", "fp32", 0, 0, 0, network_bytes=nbytes, ranks=ends)


def _of_tokens(part: PipelineStage, whole: int, recorded: int) -> PipelineStage:
    """Hidden states are as many as tokens, in each chunk of a prompt."""
    if part.send is None or whole == recorded:
        return part
    return replace(part, send=replace(part.send, network_bytes=part.sent_bytes * whole // recorded))


def _with_launches(part: PipelineStage, launches: tuple[int, ...]) -> PipelineStage:
    return replace(part, launches=launches)


def shown(stage: AnnotatedStage) -> AnnotatedStage:
    """What is shown of several passes: all chunks of a prompt, of a generation its last step."""
    in_chunks = getattr(stage.scenario, "chunk", None) is not None
    return stage if in_chunks or stage.last_step is None else stage.last_step


def times_of(stage: AnnotatedStage, time: StageTime, parts: Iterable[PipelineStage]) -> list[Time]:
    """The time of the kernels of each pipeline stage and of what it sends, without a host's part of a pass."""
    parts = list(parts)
    one = stage.last_step or stage
    dealt = Dealt.of(stage.recording, one.graph, stage.modules, len(parts))
    found = [ZERO if part.send is None else Time.of(kernel_time(part.send, time.device)) for part in parts]
    for item in time.kernels:
        launches = dealt.launches(item.kernel, stage.modules)
        found = [sum_ + item.all * (n / item.kernel.times) for sum_, n in zip(found, launches, strict=True)]
    return found
