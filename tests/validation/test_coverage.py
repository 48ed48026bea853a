"""One family of each kind that needs a mechanism of its own; ``make coverage`` runs every type."""

from __future__ import annotations

import pytest

from validation.coverage_page import holds, page, summary
from validation.coverage_type import check_type
from validation.full_size import cannot_run, in_process, section
from validation.small_configs import kinds_of_layers, small_config, two_periods

KINDS = {
    "big_bird": "asks whether there is padding, whose answer is on meta",
    "bloom": "attention that predates the interface",
    "whisper": "the decoder of an encoder-decoder",
    "deepseek_v32": "an indexer that reads the mask",
    "gpt_oss": "windows, sinks and biases",
    "jamba": "state-space and attention layers, experts",
    "jetmoe": "routing by a list of counts",
    "minimax": "a cache class of its own",
    "openai-gpt": "no cache",
    "recurrent_gemma": "state in attributes of modules",
    "xlm": "layers as several lists of parts",
    "xlnet": "a cache of tuples, parameters made on the CPU",
}


@pytest.mark.parametrize("model_type", KINDS)
def test_all_four_combinations_hold(model_type):
    result = check_type(model_type).to_dict()
    assert result["runs"], result["reason"]
    assert holds(result), summary([result])


def test_what_transformers_refuses_is_a_reason_not_a_failure():
    result = check_type("gemma4_assistant").to_dict()
    assert not result["runs"]
    assert "hidden_size_per_layer_input must be 0" in result["reason"]
    text = page([result])
    assert "of 1 types, transformers itself builds and runs 0" in " ".join(text.split())


@pytest.mark.parametrize(
    ("pattern", "layers"), [("aaaaaaaa", 2), ("abababab", 4), ("daaaaaaa", 3), ("aabaabaab", 6), ("abcdefgh", 8)]
)
def test_two_periods_of_a_pattern(pattern, layers):
    assert two_periods([(kind,) for kind in pattern]) == layers


@pytest.mark.parametrize("model_type", ["gemma3_text", "deepseek_v3", "qwen3_next", "zamba2"])
def test_a_small_config_has_every_kind_of_layer_of_the_default_one(model_type):
    from validation.small_configs import default_config

    small, default = kinds_of_layers(small_config(model_type)), kinds_of_layers(default_config(model_type))
    assert len(set(small)) >= len(set(default))


def test_a_type_at_full_size_that_does_not_end_is_a_row():
    row = in_process("longcat_flash", limit=1)
    assert not row.holds
    assert "| more than 1 s |" in section([row])


def test_what_transformers_cannot_run_is_read_off_the_first_table():
    results = [check_type("gemma4_assistant").to_dict()]
    assert cannot_run(page(results)) == {"gemma4_assistant"}
