"""Laws that hold for every decoder, scenario and option: drawn at random from many families."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fxmeter.annotators import annotate
from fxmeter.annotators.documents.report import to_json
from fxmeter.annotators.pricing.graph import priced_nodes
from fxmeter.annotators.stages.model_info import model_info
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.annotators.studies.report import build_report
from fxmeter.models import Scenario, decode, prefill
from fxmeter.models.stage_cost import DERIVED, FIELDS, StageCost
from fxmeter.tracer import load_model
from tests.annotators.api.decoders import FAMILIES, decoders
from tests.tracer.tiny import LLAMA, config

QUICK = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
OPTIONS = st.fixed_dictionaries(
    {
        "attention": st.sampled_from(["eager", "flash"]),
        "causal": st.sampled_from(["full", "exact"]),
        "logits": st.sampled_from(["all", "last"]),
        "routing": st.sampled_from(["uniform", "worst"]),
    }
)


@st.composite
def scenarios(draw: Any) -> Scenario:
    """A prefill, a chunk of one, a decode step, or a few tokens at once."""
    batch, context = draw(st.integers(1, 4)), draw(st.integers(0, 24))
    if draw(st.booleans()):
        return prefill(draw(st.integers(1, 24)), past_len=draw(st.sampled_from([0, context])), batch=batch)
    return decode(context, query_len=draw(st.sampled_from([1, 1, 3])), batch=batch)


def priced(fields: dict[str, Any], scenario: Scenario, options: dict[str, Any], **more: Any) -> AnnotatedStage:
    return annotate(load_model(config(fields)), scenario, **options, **more)


def law_of_a_pass(fields, scenario, options):
    """No field is negative or missing; peaks and traffic are in order; every total is the sum of its parts."""
    model = load_model(config(fields))
    stage = annotate(model, scenario, **options)
    cost = stage.cost
    parts = [module.cost for module in stage.modules.values()] + [op.cost for op in stage.ops]
    for each in (cost, *parts):
        for name in FIELDS:
            assert type(getattr(each, name)) is int, name
            assert getattr(each, name) >= 0, name
        assert 0 <= each.ideal_peak_activation_bytes <= each.peak_activation_bytes
        assert each.fused_io_bytes <= each.io_bytes
    assert cost.peak_activation_bytes <= cost.activation_bytes
    assert 0 < stage.floor_io_bytes <= cost.fused_io_bytes
    roles = ("weight_read", "kv_read", "kv_write", "activation_read", "activation_write")
    assert cost.io_bytes == sum(getattr(cost, f"{role}_bytes") for role in roles)
    assert cost.flops == cost.matmul_flops + cost.vector_flops > 0
    assert cost == stage.modules[""].cost
    assert cost == StageCost.total(module.own * module.times for module in stage.modules.values())
    assert cost == StageCost.total(op.cost for op in stage.ops)
    assert cost == StageCost.total(node.cost * node.times for node in priced_nodes(stage.graph))
    assert cost.weight_bytes == sum(p.nbytes for p in model.parameters())
    assert cost.kv_bytes == sum(layer.bytes for layer in stage.kv_cache)
    assert cost.peak_activation_bytes == stage.peak.bytes == sum(item.bytes for item in stage.peak.alive)
    assert not stage.uncosted


def law_of_json(fields, scenario, options):
    """What a report says survives JSON, to the last digit."""
    model = load_model(config(fields))
    stage = annotate(model, scenario, **options)
    data = to_json(build_report(model_info(model), [stage]))
    again = json.loads(json.dumps(data, allow_nan=False))
    assert again == data
    (read,) = again["stages"]
    assert list(read["cost"]) == [*FIELDS, *DERIVED]
    assert StageCost(**{name: read["cost"][name] for name in FIELDS}) == stage.cost
    for module in read["modules"]:
        assert StageCost(**{name: module["cost"][name] for name in FIELDS}) == stage.modules[module["path"]].cost
    assert read["peak"]["bytes"] == sum(row["bytes"] for row in read["peak"]["alive"])
    conventions = {name: again["conventions"][name] for name in ("causal", "logits", "routing")}
    assert conventions == {name: options[name] for name in conventions}


def law_of_folding(fields, scenario, options):
    """One recorded layer stands for those like it, in every field, every op, and the cache."""
    folded, full = (priced(fields, scenario, options, fold=fold) for fold in (True, False))
    assert folded.cost == full.cost
    assert {op.op: (op.count, op.cost) for op in folded.ops} == {op.op: (op.count, op.cost) for op in full.ops}
    assert folded.kv_cache == full.kv_cache
    assert folded.floor_io_bytes == full.floor_io_bytes
    assert folded.peak.bytes == full.peak.bytes


def law_of_attention(fields, scenario, options):
    """Eager and flash compute the same products from the same weights and cache; flash makes and moves no more."""
    eager, flash = (priced(fields, scenario, {**options, "causal": "full", "attention": a}) for a in ("eager", "flash"))
    for name in ("matmul_flops", "weight_bytes", "kv_bytes", "kv_write_bytes"):
        assert getattr(eager.cost, name) == getattr(flash.cost, name), name
    for name in ("vector_flops", "activation_bytes", "peak_activation_bytes", "io_bytes"):
        assert getattr(flash.cost, name) <= getattr(eager.cost, name), name
    assert eager.kv_cache == flash.kv_cache
    exact = priced(fields, scenario, {**options, "causal": "exact", "attention": "flash"}).cost
    assert exact.matmul_flops <= flash.cost.matmul_flops
    assert replace(exact, matmul_flops=0, vector_flops=0) == replace(flash.cost, matmul_flops=0, vector_flops=0)


def law_of_growth(fields, scenario, options):
    """More sequences, more new tokens, or more cached ones, cost no less in any field.

    From two new tokens and one cached one on: one token alone runs other code in state-space layers (a step, not a
    scan), and so does an empty cache (nothing is read, masks are made in another way, a first state is written whole).
    A field may stand still: a window's cache is full, a state has one size, flash activations do not know the context.
    """
    batch, query_len, past_len = scenario.batch, max(2, scenario.query_len), max(1, scenario.past_len)
    model = load_model(config(fields))
    start = annotate(model, prefill(query_len, past_len=past_len, batch=batch), **options)
    for larger in (
        prefill(query_len, past_len=past_len, batch=batch + 1),
        prefill(query_len + 3, past_len=past_len, batch=batch),
        prefill(query_len, past_len=past_len + 5, batch=batch),
    ):
        grown = annotate(model, larger, **options)
        for name in FIELDS:
            assert getattr(grown.cost, name) >= getattr(start.cost, name), (name, larger)
        assert grown.floor_io_bytes >= start.floor_io_bytes
        assert grown.cost.weight_bytes == start.cost.weight_bytes


LAWS = [law_of_a_pass, law_of_json, law_of_folding, law_of_attention, law_of_growth]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_laws_hold_for_random_decoders(law):
    QUICK(given(decoders(), scenarios(), OPTIONS)(law))()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_laws_hold_for_many_random_decoders_of_every_family(law, family):
    settings(QUICK, max_examples=15)(given(decoders((family,)), scenarios(), OPTIONS)(law))()


WINDOW, LAYERS, TOKEN = 8, 3, 2 * 2 * 8 * 2  # a token in a layer: K and V, heads, head size, bfloat16
MISTRAL = {**LLAMA, "model_type": "mistral", "sliding_window": WINDOW}


@pytest.mark.parametrize("attention", ["eager", "flash"])
def test_growth_stops_where_a_window_is_full(attention):
    """A layer with a window of 8 keeps 7 tokens, however many came before; a step reads them and its own."""
    costs = [annotate(load_model(config(MISTRAL)), decode(past), attention=attention).cost for past in (3, 7, 8, 100)]
    assert [cost.kv_bytes for cost in costs] == [LAYERS * TOKEN * min(past + 1, 7) for past in (3, 7, 8, 100)]
    assert [cost.kv_write_bytes for cost in costs] == [LAYERS * TOKEN] * 4
    reads = [cost.kv_read_bytes for cost in costs]
    assert reads[0] < reads[1] == reads[2] == reads[3] == LAYERS * TOKEN * 8
    assert costs[1].peak_activation_bytes == costs[3].peak_activation_bytes


def test_growth_goes_on_where_there_is_no_window():
    costs = [annotate(load_model(config(LLAMA)), decode(past), attention="flash").cost for past in (7, 100)]
    assert (
        costs[1].kv_bytes - costs[0].kv_bytes == costs[1].kv_read_bytes - costs[0].kv_read_bytes == 93 * LAYERS * TOKEN
    )
