"""A recorded rank against real ones: two gloo processes with real weights run the same ops, and get the same logits."""

from __future__ import annotations

import pytest
from transformers import AutoConfig

from fxmeter import decode, deploy, load_model, prefill
from fxmeter.tracer.graph.nodes import executed, specs_of
from fxmeter.tracer.run.passes import record
from fxmeter.tracer.shard.rank import rank_of
from tests.tracer.shard import real_ranks

NOT_IN_BOTH = {
    "aten.lift_fresh.default",  # a constant, which has a node of its own kind in a graph
    "aten.scalar_tensor.default",
    "_c10d_functional.wait_tensor.default",
    "_c10d_functional._wrap_tensor_autograd.default",
}
SAME = {"fxmeter.cache_append.default": "aten.cat.default", "aten.__or__.Tensor": "aten.bitwise_or.Tensor"}


@pytest.fixture(scope="module")
def real():
    """Rank → case → what it ran."""
    return real_ranks.run(2, real_ranks.whole_models)


def compared(rows):
    """Ops and shapes, without what differs between a graph and a run whatever the rank."""
    kept = ((SAME.get(op, op), shapes) for op, shapes in rows if op not in NOT_IN_BOTH)
    return [(op, () if op.startswith("c10d.") else shapes) for op, shapes in kept]


@pytest.mark.parametrize("stage", ["prefill", "decode"])
@pytest.mark.parametrize("name", real_ranks.CASES)
def test_a_rank_runs_what_was_recorded_and_all_get_the_logits_of_the_whole(real, name, stage):
    fields, options = real_ranks.CASES[name]
    for rank in real:
        assert rank[name, stage][0] < 2e-6
    whole = load_model(AutoConfig.for_model(**fields), dtype="float32")
    scenario = prefill(12, batch=2) if stage == "prefill" else decode(11, batch=2)
    deployment = deploy(tp=options["tp_size"], ep=options.get("ep_size", 1))
    with rank_of(whole, deployment, exchange="auto") as rank:
        graph = record(rank, scenario, attention="eager", fold=False).graph
        rows = [(str(node.target), tuple(tuple(s.shape) for s in specs_of(node))) for node in executed(graph)]
    assert compared(rows) == compared(real[0][name, stage][1])
    assert sum(op.startswith(("c10d", "_c10d")) for op, _ in compared(rows)) >= 7


def exchanged(rows):
    """Rows of tokens that are sent and got back, and the shapes of the products between."""
    width = real_ranks.EXPERTS["hidden_size"]
    sent = [shapes for op, shapes in rows if "all_to_all_single" in op and shapes[0][-1] == width]
    return sent, [(op, shapes) for op, shapes in rows if "mm" in op]


def test_expected_counts_are_those_of_a_router_without_favourites():
    """Four ranks, every expert chosen equally often: the expected exchanges compute what the whole does, and send and
    multiply the rows that transformers' own does, which asks for the counts."""
    ranks = real_ranks.run(4, real_ranks.balanced_experts)
    for found in ranks:
        assert all(error < 1e-5 for error, _ in found.values())
        own, expected = exchanged(found["all_to_all"][1]), exchanged(found["fxmeter_all_to_all"][1])
        assert own == expected
        assert own[0] == [((32, 32),)] * 2
        reduced = exchanged(found["fxmeter_all_reduce"][1])[1]
        assert reduced[0][1][0][0] == 16 * 2 // 4
