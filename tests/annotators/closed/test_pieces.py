"""Pieces: what they keep, what they forget, and whose mistake is whose."""

from __future__ import annotations

import gc
import weakref

import pytest
from torch import fx
from transformers import AutoConfig

from fxmeter.annotators import annotate, closed_form
from fxmeter.annotators.pricing.price import price
from fxmeter.annotators.shapes import pieces as pieces_module
from fxmeter.annotators.symbolic import Polynomial, Recipe
from fxmeter.models import decode
from fxmeter.tracer import load_model
from fxmeter.tracer.capture.recording import Recording
from tests.tracer.tiny import QWEN_MOE

ONE_LAYER = {**QWEN_MOE, "num_hidden_layers": 1}


def model_of(**fields):
    return load_model(AutoConfig.for_model(**{**ONE_LAYER, **fields}))


@pytest.fixture(scope="module")
def model():
    return model_of()


def test_a_mistake_in_a_rule_is_no_missing_form(model, monkeypatch):
    def broken(recording, conventions):
        raise TypeError("unsupported operand")

    form = closed_form(model)
    monkeypatch.setattr(pieces_module, "price", broken)
    with pytest.raises(TypeError, match="unsupported operand"):
        form.at(past_len=9)


def test_a_rule_that_asks_for_a_number_makes_points_be_recorded(model, monkeypatch):
    def asks(recording, conventions):
        assert all(range(storage.nbytes) is not None for storage in recording.storages)
        return price(recording, conventions)

    form = closed_form(model)
    monkeypatch.setattr(pieces_module, "price", asks)
    assert form.at(past_len=9, batch=2) == annotate(model, decode(9, batch=2)).cost
    assert "asks for the value of a size" in form.reason


def test_a_warm_form_looks_at_no_graph(model, monkeypatch):
    form = closed_form(model)
    cold = form.at(past_len=9, batch=2), dict(form.modules)["model.layers.0.mlp"].at(past_len=9, batch=2)
    form.generation(past_len=9, steps=4, batch=2)
    assert form.reason is None

    def looked(recording):
        raise AssertionError("a graph was looked at")

    for name in ("instances", "folds", "multiplicity"):
        monkeypatch.setattr(Recording, name, looked)
    monkeypatch.setattr(fx.Graph, "nodes", property(looked))
    assert form.at(past_len=9, batch=2) == cold[0]
    assert form.modules["model.layers.0.mlp"].at(past_len=9, batch=2) == cold[1]
    assert form.evaluate(past_len=[9, 10], batch=2, fields=["flops"])["flops"][0] == cold[0].flops
    form.generation(past_len=9, steps=4, batch=2)


def test_a_piece_is_plain_data(model):
    form = closed_form(model)
    form.at(past_len=9, batch=2)
    (piece,) = form.sheet.known
    seen, behind = set(), [piece]
    while behind:
        item = behind.pop()
        if id(item) not in seen and not isinstance(item, type):
            seen.add(id(item))
            assert not isinstance(item, (Recording, fx.Graph, fx.Node))
            behind += gc.get_referents(item)
    assert len(seen) > 100


def symbols_alive():
    gc.collect()
    return sum(issubclass(type(item), (Polynomial, Recipe)) for item in gc.get_objects())


def test_a_form_that_is_gone_leaves_nothing_behind():
    def made_and_dropped(vocabulary):
        form = closed_form(model_of(vocab_size=vocabulary), attention="eager")
        form.at(past_len=9, batch=2)
        form.generation(past_len=9, steps=20)
        assert form.reason is None
        return weakref.ref(form.sheet)

    made_and_dropped(40)  # sums of powers, which all forms share
    before = symbols_alive()
    pieces = made_and_dropped(41)
    assert symbols_alive() == before
    assert pieces() is None
