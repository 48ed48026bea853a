"""One place for every total: root = leaves = ops = graph, folded = full, for every field."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import networkx as nx
import pytest

from fxmeter.annotators import annotate
from fxmeter.annotators.pricing.graph import PricedNode, priced_edge, priced_node, priced_nodes
from fxmeter.annotators.stages.containment import ModuleCost
from fxmeter.models import decode, prefill
from fxmeter.models.stage_cost import ADDITIVE, FIELDS, PEAKS, StageCost
from fxmeter.tracer import load_model
from fxmeter.tracer.capture.recording import Weight
from tests.tracer.tiny import DEEPSEEK, GEMMA3, GPT_OSS, LLAMA, QWEN_MOE, config

TINY = {"deepseek": DEEPSEEK, "llama": LLAMA, "qwen-moe": QWEN_MOE, "gemma3": GEMMA3, "gpt-oss": GPT_OSS}
SCENARIOS = [prefill(20, batch=2), decode(20, batch=3), prefill(4, past_len=20)]


@pytest.fixture(params=TINY)
def model(request):
    return load_model(config(TINY[request.param]))


@pytest.mark.parametrize("attention", ["eager", "flash"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=["prefill", "decode", "chunk"])
def test_root_leaves_ops_and_graph_agree_in_every_field(model, attention, scenario):
    stage = annotate(model, scenario, attention=attention)
    assert stage.cost == stage.modules[""].cost
    assert stage.cost == StageCost.total(m.own * m.times for m in stage.modules.values())
    assert stage.cost == StageCost.total(op.cost for op in stage.ops)
    assert stage.cost == StageCost.total(node.cost * node.times for node in priced_nodes(stage.graph))
    assert all(getattr(stage.cost, field) > 0 for field in set(ADDITIVE) - {"kv_read_bytes", "network_bytes"})
    assert stage.cost.kv_bytes == sum(layer.bytes for layer in stage.kv_cache)
    assert stage.cost.weight_bytes == sum(p.nbytes for p in model.parameters())


def test_a_state_that_is_one_of_several_results_is_counted_with_its_op(preset_model):
    stage = annotate(preset_model("minimax-text-01"), decode(31))
    states = 70 * 64 * 128 * 128 * 2  # layers · heads · key size · value size · 2 bytes
    (scan,) = (op for op in stage.ops if op.op == "fxmeter.lightning_attention.default")
    assert scan.cost.kv_bytes == states
    assert stage.cost == StageCost.total(op.cost for op in stage.ops)


@pytest.mark.parametrize("attention", ["eager", "flash"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=["prefill", "decode", "chunk"])
def test_folding_identical_layers_changes_no_number(model, attention, scenario):
    folded = annotate(model, scenario, attention=attention)
    full = annotate(model, scenario, attention=attention, fold=False)
    assert folded.cost == full.cost
    assert {op.op: (op.count, op.cost) for op in folded.ops} == {op.op: (op.count, op.cost) for op in full.ops}
    assert folded.kv_cache == full.kv_cache
    instances: dict[str, list[StageCost]] = {}
    for path, module in full.modules.items():
        instances.setdefault(folded.modules.stand_in(path), []).append(module.cost)
    for path, costs in instances.items():
        for name in FIELDS:
            found = getattr(folded.modules[path].cost, name)
            if (
                name in PEAKS
            ):  # identical layers begin with more or less alive: the one that stands for them has the most
                assert found == max(getattr(cost, name) for cost in costs), path
            else:
                assert {found} == {getattr(cost, name) for cost in costs}, (path, name)
    assert len(folded.fx_graph.nodes) < len(full.fx_graph.nodes)
    assert any(module.times > 1 for module in folded.modules.values())


def test_layers_that_differ_are_not_folded():
    model = load_model(config({**LLAMA, "num_hidden_layers": 4}))
    model.model.layers[2].mlp.act_fn = type(model.model.layers[2].mlp.act_fn)().eval()  # as good as its own
    assert annotate(model, prefill(4)).modules["model.layers.0"].times == 4
    model.model.layers[2].self_attn.scaling = 0.5
    stage = annotate(model, prefill(4))
    assert stage.modules["model.layers.0"].times == 3
    assert stage.modules["model.layers.2"].times == 1


def test_a_module_costs_what_is_inside_it(preset_model):
    modules = annotate(preset_model("deepseek-ocr"), prefill(64)).modules
    parts = ["input_layernorm", "self_attn", "post_attention_layernorm", "mlp"]
    layer = modules["model.layers.7"]
    assert layer.times == 11
    assert layer.path == "model.layers.7"
    assert layer.total == 11 * layer.cost
    assert layer.cost == layer.own + StageCost.total(modules[f"model.layers.7.{part}"].cost for part in parts)


def test_n_layers_minus_n_minus_one_layers_is_one_layer():
    costs = [annotate(load_model(config({**LLAMA, "num_hidden_layers": n})), prefill(9)).cost for n in (1, 2, 3, 4)]
    steps = [StageCost(**{f: getattr(b, f) - getattr(a, f) for f in ADDITIVE}) for a, b in pairwise(costs)]
    assert steps[0] == steps[1] == steps[2]
    layer = annotate(load_model(config(LLAMA)), prefill(9)).modules["model.layers.0"].cost
    assert steps[0] == replace(layer, **dict.fromkeys(PEAKS, 0))


def test_the_op_graph_is_acyclic_and_says_what_flows(preset_model):
    stage = annotate(preset_model("llama-2-7b"), prefill(16))
    graph = stage.graph
    assert nx.is_directed_acyclic_graph(graph)
    assert all(priced_node(graph, a).order < priced_node(graph, b).order for a, b in graph.edges)
    products = [node for node in priced_nodes(graph) if node.op == "aten.mm.default"]
    assert len(products) == 7 + 1
    gate = next(node for node in products if node.module.endswith("gate_proj"))
    assert gate.times == 32
    assert gate.inputs == "float16[16, 4096], float16[4096, 11008]"
    assert gate.outputs == "float16[16, 11008]"
    flows = [priced_edge(graph, *edge) for edge in graph.in_edges(gate.name)]
    assert sorted(flow.bytes for flow in flows) == [2 * 16 * 4096, 2 * 4096 * 11008]
    assert [flow.bytes for flow in flows] == [flow.tensor_bytes for flow in flows]
    views = [node.name for node in priced_nodes(graph) if node.op == "aten.view.default"]
    assert all(priced_edge(graph, *edge).bytes == 0 for view in views for edge in graph.in_edges(view))
    assert graph.nodes[gate.name]["priced"] is gate


@pytest.mark.parametrize("fold", [True, False])
def test_the_module_graph_is_a_tree_whose_multiplicities_are_those_of_its_parts(model, fold):
    stage = annotate(model, decode(20, batch=3), fold=fold)
    tree = stage.module_graph
    assert nx.is_arborescence(tree)
    parts = dict(tree.nodes(data="part"))
    ops = [part for part in parts.values() if isinstance(part, PricedNode)]
    assert [op.name for op in ops] == [node.name for node in priced_nodes(stage.graph) if node.executed]
    assert {path for path, part in parts.items() if isinstance(part, ModuleCost)} == set(stage.modules)
    counted = {"": 1}
    for parent, child in nx.bfs_edges(tree, ""):
        counted[child] = counted[parent] * tree.edges[parent, child]["times"]
        if not isinstance(parts[child], Weight):
            assert counted[child] == parts[child].times, child
    weights = {name: part for name, part in parts.items() if isinstance(part, Weight)}
    assert sum(part.nbytes * counted[name] for name, part in weights.items()) == stage.cost.weight_bytes


def test_a_cost_in_the_module_graph_is_the_sum_of_what_is_under_it(preset_model):
    stage = annotate(preset_model("deepseek-ocr"), prefill(64))
    tree = stage.module_graph
    layer = stage.modules["model.layers.1"]
    under = nx.descendants(tree, layer.path) | {layer.path}
    ops = [part for name, part in tree.nodes(data="part") if name in under and isinstance(part, PricedNode)]
    assert len(ops) > 40
    assert layer.cost.flops == sum(op.cost.flops * op.times for op in ops) // 11
    assert layer.times == 11 == tree.edges["model.layers", layer.path]["times"]
