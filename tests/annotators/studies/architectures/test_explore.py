"""Exploring: every combination once, equal to annotating it, whoever does the work and whoever of them dies."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

import fxmeter
from fxmeter import FxmeterError, annotate, decode, load_model, prefill
from fxmeter.annotators.studies.architectures.explore import exploration
from fxmeter.annotators.studies.architectures.workers import Given, done_by, local
from fxmeter.models import ScenarioError
from tests.annotators.studies.architectures.dying import double_or_die
from tests.tracer.tiny import LLAMA

PASSES = (prefill(24), decode(40))
SETS = {"num_hidden_layers": "1:3", "hidden_size": "32,48,50", "intermediate_size": "8*hidden_size//3"}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "config.json"
    path.write_text(json.dumps(LLAMA))
    return path


@pytest.fixture(scope="module")
def rows(config):
    return list(fxmeter.explore(config, SETS, scenarios=PASSES, devices=["h100"]))


def test_every_combination_comes_once_with_what_was_computed(rows):
    fields = [tuple(row.fields.values()) for row in rows]
    assert fields == [(n, h, 8 * h // 3) for n in (1, 2, 3) for h in (32, 48, 50)]
    assert len({row.key for row in rows}) == 9


def test_a_row_is_what_annotating_its_config_gives(rows):
    row = rows[4]
    model = load_model({**LLAMA, **row.fields})
    stage = annotate(model, decode(40))
    assert row.figures["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert row.figures["decode_matmul_flops"] == stage.cost.matmul_flops
    assert row.figures["decode_peak_activation_bytes"] == stage.cost.peak_activation_bytes
    assert row.figures["decode_floor_io_bytes"] == stage.floor_io_bytes
    assert row.figures["tpot"] == stage.time("h100").estimate_s
    assert row.figures["ttft"] == annotate(model, prefill(24)).time("h100").estimate_s


def test_what_cannot_be_says_why_in_transformers_words(rows):
    broken = [row for row in rows if row.refused]
    assert [row.fields["hidden_size"] for row in broken] == [50, 50, 50]
    assert all("(50) is not a multiple of the number of attention heads (4)" in row.refused for row in broken)
    assert not any(row.figures for row in broken)


def test_conditions_leave_out_what_they_can_as_soon_as_they_can(config):
    few = {"num_hidden_layers": "1:3"}
    whole = {row.fields["num_hidden_layers"]: row for row in fxmeter.explore(config, few, scenarios=PASSES)}
    limit = whole[2].figures["decode_flops"]
    for keep in (
        ["num_hidden_layers < 3"],
        [f"parameters <= {whole[2].figures['parameters']}"],
        [f"decode_flops <= {limit}"],
    ):
        found = list(fxmeter.explore(config, few, scenarios=PASSES, keep=keep))
        assert found == [whole[1], whole[2]], keep
    asked = exploration(config, few, scenarios=PASSES, keep=["num_hidden_layers != 2", "parameters < 0"])
    assert [row.figures.keys() for batch in asked.run() for row in batch] == [{"parameters", "weight_bytes"}] * 2


def test_a_combination_whose_expression_has_no_value_is_refused(config):
    sets = {"num_attention_heads": "4", "hidden_size": "128//(num_hidden_layers-1)", "num_hidden_layers": "1,2"}
    first, second = fxmeter.explore(config, sets, scenarios=[decode(8)])
    by_layers = {row.fields["num_hidden_layers"]: row for row in (first, second)}
    assert "cannot be computed: integer division or modulo by zero" in by_layers[1].refused
    assert by_layers[2].refused is None and by_layers[2].fields["hidden_size"] == 128


def test_the_key_follows_the_config_and_the_question(config):
    def keys(sets, **options):
        return {row.key for row in fxmeter.explore(config, sets, scenarios=[decode(8)], **options)}

    one = keys({"num_hidden_layers": "2"})
    assert one == keys({"num_hidden_layers": [2]})
    assert one == keys({"num_hidden_layers": 2, "hidden_size": 32})  # which is what it was
    assert not one & keys({"num_hidden_layers": "2"}, causal="exact")
    assert not one & keys({"num_hidden_layers": "2"}, devices=["h100"])


@pytest.mark.parametrize(
    ("sets", "keep", "message"),
    [
        ({"hiden_size": "3"}, [], "--set hiden_size: llama has no such field; did you mean hidden_size"),
        ({"hidden_size": "heads*2"}, [], "heads: llama has no such field"),
        ({"hidden_size": "3,,4"}, [], "an empty item"),
        ({"hidden_size": "3,3"}, [], "--set hidden_size: 3 comes twice"),
        ({"hidden_size": "64:32:8"}, [], "runs backwards"),
        ({"hidden_size": "max(3,4"}, [], "a parenthesis is not closed"),
        ({"hidden_size": []}, [], "--set hidden_size has no values"),
        ({"model_type": "qwen2"}, [], "it chooses which code runs"),
        ({"hidden_size": "vocab_size", "vocab_size": "hidden_size"}, [], "depend on one another"),
        ({"hidden_size": "32"}, ["paramters < 3"], "no figure or field is called paramters; did you mean parameters"),
        ({"hidden_size": "32"}, ["tpot < 3"], "no figure or field is called tpot; it needs a device"),
        ({"hidden_size": "32"}, ["parameters <"], "is no expression"),
    ],
)
def test_a_slip_is_refused_at_once_in_one_line(config, sets, keep, message):
    with pytest.raises(ScenarioError) as refusal:
        fxmeter.explore(config, sets, keep=keep)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_threads_have_the_rows_of_one(config, rows):
    with ThreadPoolExecutor(2) as pool:
        found = list(fxmeter.explore(config, SETS, scenarios=PASSES, devices=["h100"], executor=pool))
    assert sorted(found, key=lambda row: row.key) == sorted(rows, key=lambda row: row.key)
    results = {}

    def go(name):
        results[name] = list(fxmeter.explore(config, {"num_hidden_layers": "1:2"}, scenarios=[decode(8)]))

    both = [threading.Thread(target=go, args=(name,)) for name in "ab"]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert results["a"] == results["b"] and len(results["a"]) == 2


def test_a_process_that_dies_takes_nothing_along_but_what_kills_it(tmp_path):
    batches = [list(range(start, start + 3)) for start in range(0, 21, 3)]
    with local(2) as workers:
        done = [
            x for some in done_by(workers, double_or_die, [str(tmp_path)], iter(batches), lambda n: -n) for x in some
        ]
    assert {mark.name for mark in tmp_path.iterdir()} == {"7", "13"}
    assert sorted(done) == sorted([-13, *(2 * n for n in range(21) if n != 13)])


def test_an_executor_that_ends_says_so(tmp_path):
    with ProcessPoolExecutor(1) as pool, pytest.raises(FxmeterError, match="the workers do no more: BrokenProcessPool"):
        list(done_by(Given(pool), double_or_die, [str(tmp_path)], iter([[13]]), lambda n: -n))
