"""A generation's graph, ops and modules add up to what it costs: for a few recorded steps and for a closed form."""

from __future__ import annotations

import networkx as nx
import pytest

from fxmeter.annotators import annotate
from fxmeter.annotators.pricing.graph import priced_edge, priced_node, priced_nodes
from fxmeter.annotators.stages.containment import UNREAD
from fxmeter.annotators.studies.breakdown import heaviest_ops
from fxmeter.models import decode, generation
from fxmeter.models.stage_cost import ADDITIVE, StageCost
from fxmeter.tracer import load_model
from tests.tracer.tiny import DEEPSEEK, GEMMA3, GPT_OSS, LLAMA, config
from validation.small_configs import small_config

MODELS = {"llama": LLAMA, "deepseek": DEEPSEEK, "gemma3": GEMMA3, "gpt-oss": GPT_OSS}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return load_model(config(MODELS[request.param]))


@pytest.fixture(scope="module")
def compressing():
    """A cache that is compressed in blocks: every eighth step does more, and its ops are others."""
    return load_model(small_config("deepseek_v4"))


def adds_up(stage):
    total = StageCost.total(node.cost * node.times for node in priced_nodes(stage.graph))
    for name in ADDITIVE:
        assert getattr(total, name) == getattr(stage.cost, name), name
    assert total == stage.cost == StageCost.total(module.own * module.times for module in stage.modules.values())
    assert stage.cost == StageCost.total(op.cost for op in stage.ops)
    counts = {}
    for node in priced_nodes(stage.graph):
        if node.executed:
            counts[node.op] = counts.get(node.op, 0) + node.executions
    assert counts == {op.op: op.count for op in stage.ops}
    assert stage.graph.graph["floor_io_bytes"] == stage.floor_io_bytes
    assert stage.module_graph.nodes[""]["part"].cost == stage.cost
    assert stage.graph is stage.graph


@pytest.mark.parametrize("steps", [4, 12])  # recorded one by one, and from a closed form; past Gemma's window of 8
def test_a_generation_adds_up(model, steps):
    stage = annotate(model, generation(3, steps=steps, batch=2))
    adds_up(stage)
    flops = [op.share for op in heaviest_ops(stage, 1000, "flops")]
    assert sum(flops) == pytest.approx(1, abs=1e-9)
    assert nx.is_directed_acyclic_graph(stage.graph)


def test_a_node_of_it_has_what_its_steps_cost(model):
    one, two = (annotate(model, decode(c, batch=2)) for c in (20, 21))
    both = annotate(model, generation(20, steps=2, batch=2))
    node = next(n for n in priced_nodes(both.graph) if n.op == "fxmeter.flash_attention.default")
    first, second = (priced_node(stage.graph, node.name) for stage in (one, two))
    assert node.cost.flops == first.cost.flops + second.cost.flops
    assert node.cost.peak_activation_bytes == max(n.cost.peak_activation_bytes for n in (first, second))
    assert (node.steps, node.times, node.inputs) == (2, second.times, second.inputs)
    source, target = next(iter(both.graph.in_edges(node.name)))
    reads = [priced_edge(stage.graph, source, target).bytes for stage in (one, two)]
    assert priced_edge(both.graph, source, target).bytes == sum(reads) > 0


def test_the_last_step_by_itself_is_there_too(model):
    stage = annotate(model, generation(20, steps=2))
    assert stage.last_step.cost == annotate(model, decode(21)).cost
    assert annotate(model, decode(21)).last_step is None


def test_steps_with_other_ops_have_nodes_of_their_own(compressing):
    stage = annotate(compressing, generation(1, steps=8))
    total = StageCost.total(node.cost * node.times for node in priced_nodes(stage.graph))
    (unread,) = (op.cost for op in stage.ops if op.op == UNREAD)  # parameters that the last step does not need
    assert total + unread == stage.cost == StageCost.total(op.cost for op in stage.ops)
    assert any("@2" in node.name for node in priced_nodes(stage.graph))
    names = set(stage.graph)
    assert all(node.group is None or node.group in names for node in priced_nodes(stage.graph))
    assert stage.cost == StageCost.total(module.own * module.times for module in stage.modules.values())
