"""``fxmeter models``, ``explain`` and ``crosscheck``: what they say, and that it is true."""

from __future__ import annotations

import json

import pytest

from fxmeter import annotate, decode, load_model
from fxmeter.annotators.stages.model_info import model_info
from fxmeter.models.catalogue import catalogue
from fxmeter.models.presets import preset, preset_names


@pytest.mark.parametrize("name", ["llama-3.1-8b", "gpt-oss-20b", "deepseek-r1"])
def test_a_line_of_the_catalogue_is_what_the_loaded_model_says(name):
    (item,) = (each for each in catalogue() if each.name == name)
    model = load_model(name)
    info = model_info(model)
    assert (item.layers, item.parameters, item.active_parameters) == (
        info.layers,
        info.parameters,
        info.active_parameters,
    )
    assert (item.context, item.format) == (info.max_positions, info.weights)
    assert item.kv_bytes_at_context == annotate(model, decode(item.context - 1)).cost.kv_bytes


def test_the_catalogue_has_every_preset_and_what_its_config_says():
    listed = {item.name: item for item in catalogue()}
    assert list(listed) == list(preset_names())
    for name, item in listed.items():
        fields = preset(name).config
        fields = fields.get("text_config", fields)
        experts = fields.get("n_routed_experts") or fields.get("num_local_experts") or fields.get("num_experts")
        assert item.experts == (None if not experts else (experts, fields["num_experts_per_tok"]))
    assert listed["llama-3.1-8b"].kv_bytes_per_token == 32 * 2 * 8 * 128 * 2
    assert listed["deepseek-v3"].kv_bytes_per_token == 61 * (512 + 64) * 2


def test_models_are_listed_as_json_too(run):
    found = json.loads(run("models", "--json").stdout)
    assert [item["name"] for item in found] == list(preset_names())
    assert found[0]["source"]


def test_a_term_is_explained_and_an_unknown_one_is_one_line(run):
    assert run("explain", "Ridge").stdout.startswith("ridge: FLOP per byte at which")
    done = run("explain", "rigde")
    assert done.returncode == 1
    assert done.stderr.strip() == "fxmeter: no term 'rigde'; did you mean ridge? `fxmeter explain` lists them all"


def test_crosscheck_gives_its_verdict_first_and_its_rows_when_asked(run):
    arguments = ("crosscheck", "llama-3.1-8b", "--prefill", 4, "--decode", 4, "--attention", "flash")
    lines = run(*arguments).stdout.splitlines()
    assert "exact quantities are equal to the unit" in lines[1]
    assert len(lines) < 12
    every = run(*arguments, "--all").stdout.splitlines()
    assert every[1] == lines[1]
    assert any("q_proj" in line for line in every)
