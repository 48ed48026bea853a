"""Time on the CPU beside its prediction: what the page says of its cases."""

from __future__ import annotations

import torch

from fxmeter import decode
from validation.cpu_models import MODELS, States, measured, real
from validation.time_cpu import Case, kendall, page


def case(predicted: float, least: float, scenario: str = "prefill 64") -> Case:
    return Case("a model", "float32", "eager", scenario, predicted, least, 2 * least)


def test_errors_are_signed_and_of_the_least():
    assert case(1.5, 1.0).error == 0.5
    assert case(0.5, 1.0).error == -0.5


def test_the_ranking_is_kendalls():
    assert kendall([case(1, 10), case(2, 20), case(3, 30)]) == 1
    assert kendall([case(1, 10), case(3, 20), case(2, 30)]) == (2 - 1) / 3
    assert kendall([case(3, 10), case(2, 20), case(1, 30)]) == -1


def test_the_page_has_every_case_and_the_errors_by_pass():
    text = page([case(1.5, 1.0), case(0.7, 1.0, "decode at 256"), case(0.9, 1.0, "decode at 256")])
    assert text.count("| a model | float32 |") == 3
    assert "| prefill 64 | 1 | 50% | +50% |" in text
    assert "| decode at 256 | 2 | 20% | -20% |" in text
    assert "median absolute error 30%" in text


def test_a_real_pass_is_measured():
    fields = {**next(iter(MODELS.values())), "num_hidden_layers": 1, "vocab_size": 8000}
    model = real(fields, torch.float32, "eager")
    states = States(model, [8])
    for dtype in (torch.float32, torch.bfloat16):
        least, median = measured(real(fields, dtype, "eager"), decode(8, batch=2), 0.01, states.of(8, 2, dtype))
        assert 0 < least <= median
    keys = states.of(8, 2, torch.bfloat16)["past_key_values"].layers[0].keys
    assert keys.dtype == torch.bfloat16
    assert keys.shape[:3] == (2, 8, 8)
