"""A pass as pipeline stages: a partition of its priced ops by layer, with what each stage sends to the next.

    everything before the first layer ─┐                              ┌─ everything after the last one
                        layers 0 … a-1 │ layers a … b-1 │ …  layers z… │
                        ───── stage 0 ─┴──── stage 1 ───┴──── last stage ─

A stage computes what the whole does in its layers, so the stages add up to the whole. What layers leave for those
after them, their hidden states, is sent. Tables that all layers read (rotary embeddings, masks) belong to the first
stage; an engine makes them again in each.
"""

from __future__ import annotations

from collections.abc import Iterable

from fxmeter.annotators.pricing.graph import PricedNode, priced_nodes
from fxmeter.annotators.sheets.tables import PipelineStage, within
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.annotators.timing.stage_time import ZERO, StageTime, Time
from fxmeter.models.errors import DeploymentError
from fxmeter.models.stage_cost import StageCost
from fxmeter.tracer.graph.nodes import executed, meta_of, specs_of


def split_layers(layers: int, stages: int) -> tuple[int, ...]:
    """How many layers each stage has: as evenly as they go, those left over one each to the stages before the last,
    which has the output head to compute (as vLLM deals them out)."""
    counts = [layers // stages] * stages
    for place in range(layers % stages):
        counts[stages - 2 - place] += 1
    return tuple(counts)


def pipeline(stage: AnnotatedStage, stages: int) -> tuple[PipelineStage, ...]:
    """The pipeline stages of one pass.

    Args:
        stage: a pass of a language model, or a prompt in chunks; of several decode steps the last one.
        stages: how many devices (or groups of ranks) share its layers.

    Raises:
        DeploymentError: fewer layers than stages.
    """
    stage = shown(stage)
    layers = layer_paths(stage)
    if len(layers) < stages:
        raise DeploymentError(f"pp={stages}: a pass with {len(layers)} layers has no work for so many stages")
    before, after = _around(stage, layers)
    found, first = [], 0
    for place, count in enumerate(split_layers(len(layers), stages)):
        own = [stage.modules[path].cost for path in layers[first : first + count]]
        own += ([before] if place == 0 else []) + ([after] if place == stages - 1 else [])
        last = first + count - 1
        sent = 0 if place == stages - 1 else _left(stage, layers[last])
        found.append(PipelineStage(first, last, StageCost.total(own), sent))
        first += count
    return tuple(found)


def layer_paths(stage: AnnotatedStage) -> list[str]:
    """Paths of the layers that a pass runs one after another: the members of the list that does most."""
    members: dict[str, set[int]] = {}
    for path in stage.recording.classes:
        in_list, _, index = path.rpartition(".")
        if index.isdigit() and not any(part.isdigit() for part in in_list.split(".")):
            members.setdefault(in_list, set()).add(int(index))
    weight = {
        in_list: sum(stage.modules[path].cost.io_bytes for i in found if (path := f"{in_list}.{i}") in stage.modules)
        for in_list, found in members.items()
    }
    chosen = max(weight, key=lambda in_list: weight[in_list], default=None)
    return [] if chosen is None else [f"{chosen}.{index}" for index in sorted(members[chosen])]


def shown(stage: AnnotatedStage) -> AnnotatedStage:
    """What is shown of several passes: all chunks of a prompt, of a generation its last step."""
    in_chunks = getattr(stage.scenario, "chunk", None) is not None
    return stage if in_chunks or stage.last_step is None else stage.last_step


def _runs_before(stage: AnnotatedStage, layers: list[str]) -> set[str]:
    """Ops that run before the first layer, by their names in one pass."""
    in_list = layers[0].rpartition(".")[0]
    nodes = list(priced_nodes((stage.last_step or stage).graph))
    began = min(node.order for node in nodes if within(node.module, in_list))
    return {node.name for node in nodes if node.order < began}


def _around(stage: AnnotatedStage, layers: list[str]) -> tuple[StageCost, StageCost]:
    """What runs outside of the layers: before the first of them began, and after."""
    before, in_list = _runs_before(stage, layers), layers[0].rpartition(".")[0]
    outside = [node for node in priced_nodes(stage.graph) if not within(node.module, in_list)]
    places = [node.name.partition("@")[0] in before for node in outside]  # "mm_3@2" is "mm_3" of a later pass
    return (
        _summed(node for node, first in zip(outside, places, strict=True) if first),
        _summed(node for node, first in zip(outside, places, strict=True) if not first),
    )


def _summed(nodes: Iterable[PricedNode]) -> StageCost:
    return StageCost.weighted((node.cost, node.times) for node in nodes)


def _left(stage: AnnotatedStage, layer: str) -> int:
    """Bytes of the activations of a layer, or of the one that stands for it, that are read outside of it."""
    stand_in = stage.modules.stand_in(layer)
    sent: dict[int, int] = {}
    for node in executed(stage.fx_graph):
        if within(meta_of(node).module, stand_in) and any(not within(meta_of(u).module, stand_in) for u in node.users):
            sent |= {spec.storage.id: spec.nbytes for spec in specs_of(node) if spec.role == "activation"}
    recorded, whole = (getattr(one.scenario, "query_len", 1) for one in (stage.last_step or stage, stage))
    return sum(sent.values()) * whole // recorded  # hidden states are as many as tokens, in each chunk of a prompt


def times_of(stage: AnnotatedStage, time: StageTime, parts: Iterable[PipelineStage]) -> list[Time]:
    """The time of the kernels of each pipeline stage, without what it takes to send, or a host's part of a pass."""
    layers = layer_paths(stage)
    first, in_list = _runs_before(stage, layers), layers[0].rpartition(".")[0]
    outside = [item for item in time.kernels if not within(item.kernel.module, in_list)]
    before = sum((item.all for item in outside if item.kernel.name in first), ZERO)
    after = sum((item.all for item in outside if item.kernel.name not in first), ZERO)
    found = [
        sum((time.modules[stage.modules.stand_in(path)] for path in layers[part.first : part.last + 1]), ZERO)
        for part in parts
    ]
    found[0], found[-1] = found[0] + before, found[-1] + after
    return found
