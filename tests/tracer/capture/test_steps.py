"""Layers that use several slots of the cache each are recorded once, and each slot is some layer's."""

from __future__ import annotations

import pytest

from fxmeter import annotate, decode, load_model
from fxmeter.tracer.capture.groups import _step
from fxmeter.tracer.graph.instances import Instance
from validation.coverage_type import compare_folding
from validation.small_configs import small_config


def test_layers_with_two_slots_each_fold_and_nothing_moves():
    model = load_model(small_config("longcat_flash", num_layers=3, num_hidden_layers=6))
    folded, full = (annotate(model, decode(40), attention="eager", fold=fold) for fold in (None, False))
    assert compare_folding(folded, full) == "equal"
    assert folded.modules["model.layers.0"].times == 3
    assert [entry.layer for entry in folded.kv_cache] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("places", "step"),
    [
        ([(0, 4), (1, 5), (2, 6)], 1),
        ([(0, 0), (1, 2), (2, 4)], 2),
        ([(0, 1), (2, 5), (3, 7)], 2),
        ([(0, 3)], 1),
        ([(0, 0), (1, 2)], None),
        ([(0, 7), (1, 7), (2, 7)], None),
        ([(0, 0), (1, 2), (2, 5)], None),
        ([(0, 4), (1, 2), (2, 0)], None),
    ],
)
def test_an_index_grows_evenly_or_tells_members_apart(places, step):
    assert _step(places) == step


def test_the_slots_of_a_module_are_those_of_the_nearest_around_it_that_has_an_index():
    instance = Instance(["layers.1", "layers.2"], (), steps={"": 1, "attention": 2})
    modules = ["layers.1.attention.keys", "layers.1.attention", "layers.1.mlp", "layers.1"]
    assert [instance.step_of(module) for module in modules] == [2, 2, 1, 1]
