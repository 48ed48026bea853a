"""Active parameters: those that one token of one sequence makes a model read."""

from __future__ import annotations

import math
from fractions import Fraction

import networkx as nx
import torch
from torch import fx, nn

from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.pricing.graph import priced_edge
from fxmeter.annotators.stages.one_pass import annotate_pass
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.models.deployment import deploy
from fxmeter.models.errors import ScenarioError, TraceError
from fxmeter.models.scenario import decode
from fxmeter.models.stage_cost import Size
from fxmeter.tracer.graph.nodes import specs_of
from fxmeter.tracer.run.encoder import fixed_positions, has_encoder

_IN_16_BITS = deploy(weights="bfloat16")
"""Parameters are counted, whatever they are stored in."""
_LOOK_UP = torch.ops.aten.embedding.default


def active_parameters(model: nn.Module) -> int | None:
    """Parameters read to decode one token: of routed experts the chosen ones; the output head, but no table of rows.

    Read off a recorded decode step at batch 1. A tied table counts as the head that it also is. None where the model
    cannot decode.
    """
    try:
        scenario = decode(1, encoder_len=(fixed_positions(model) or 1) if has_encoder(model) else None)
        return _read(annotate_pass(model, scenario, Conventions(), deployment=_IN_16_BITS))
    except (ScenarioError, TraceError):
        return None


def _read(stage: AnnotatedStage) -> int:
    nodes = {weight.path: weight for weight in stage.recording.weights if weight.numel}
    multiplicity = stage.recording.multiplicity()
    total = 0
    for node in stage.fx_graph.nodes:
        if node.op == "get_attr" and str(node.target) in nodes:
            weight = nodes[str(node.target)]
            read = min(weight.numel, math.ceil(Fraction(_bytes(node, stage.graph) * weight.numel, weight.nbytes)))
            total += read * multiplicity.of(weight.path.rpartition(".")[0])
    return total


def _bytes(node: fx.Node, graph: nx.DiGraph) -> Size:
    """Bytes that ops read of a tensor, looking through views; looking rows up does not count."""
    storage = specs_of(node)[0].storage
    nbytes: Size = 0
    for user in node.users:
        if user.op != "call_function":
            continue
        if {spec.storage for spec in specs_of(user)} == {storage}:  # a view, or several
            nbytes += _bytes(user, graph)
        elif user.target is not _LOOK_UP:
            nbytes += priced_edge(graph, node.name, user.name).bytes
    return nbytes
