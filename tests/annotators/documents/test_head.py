"""What documents say of a pass is enough to make it again."""

from types import SimpleNamespace

import pytest

from fxmeter import decode, generation, mixed, prefill, vision
from fxmeter.annotators.documents.head import scenario_in, scenario_of
from fxmeter.models.scenario import encode

SCENARIOS = [
    prefill(4096, past_len=512, batch=2),
    prefill(8192, chunk=1024),
    decode(2048, query_len=5, acceptance=0.8),
    generation(100, steps=7, batch=3),
    decode(9, encoder_len=30),
    encode(1500),
    vision(crops=(2, 3)),
    mixed([decode(4096, batch=31), decode(7)], prefill(512, past_len=1024)),
    None,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_a_scenario_is_what_its_document_says(scenario):
    assert scenario_in(scenario_of(SimpleNamespace(scenario=scenario, attention="flash"))) == scenario
