"""Every preset is a well-formed file, and the model loaded from it has the published size."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from importlib.resources import files
from typing import Any

import pytest

from fxmeter.models.errors import ModelError
from fxmeter.models.presets import Preset, preset, preset_names

NAMES = preset_names()

FIRST_PRESETS = {
    "deepseek-ocr",
    "deepseek-v2",
    "deepseek-v2-lite",
    "deepseek-v3",
    "llama-2-7b",
    "llama-3.1-8b",
    "qwen3-30b-a3b",
    "qwen3-8b",
}

WITHOUT_DTYPE = {"gpt-oss-20b", "gpt-oss-120b"}  # their public files name none

LEFT_OUT = {"auto_map"}


def elements(model: Any) -> int:
    """Elements of the weights that transformers holds: parameters (tied ones once) and correction biases."""
    biases = (b for path, b in model.named_buffers() if path.endswith("e_score_correction_bias"))
    return sum(p.numel() for p in model.parameters()) + sum(b.numel() for b in biases)


def test_names_are_sorted_and_hold_the_first_presets() -> None:
    assert list(NAMES) == sorted(set(NAMES))
    assert set(NAMES) >= FIRST_PRESETS


@pytest.mark.parametrize("name", NAMES)
def test_file_is_a_preset_of_its_own_name(name: str) -> None:
    raw = json.loads(files("fxmeter.models.presets").joinpath(f"{name}.json").read_text(encoding="utf-8"))
    required = {field.name for field in dataclasses.fields(Preset)} - {"notes", "vision"}
    assert required <= raw.keys() <= required | {"notes", "vision"}
    found = preset(name)
    assert found.name == name
    assert isinstance(found.parameters, int)
    assert found.parameters > 0
    assert "config.json" in found.source
    assert found.parameters_source.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_config_names_a_model_type_a_dtype_and_no_code(name: str) -> None:
    config = preset(name).config
    assert isinstance(config["model_type"], str)
    if name not in WITHOUT_DTYPE:
        assert config["torch_dtype"] in {"bfloat16", "float16", "float32"}
    assert not LEFT_OUT & config.keys()


@pytest.mark.parametrize("name", NAMES)
def test_the_model_that_is_loaded_has_the_published_size(preset_model: Any, name: str) -> None:
    assert elements(preset_model(name)) == preset(name).parameters


def test_deepseek_ocr_decoder_has_the_size_of_its_parts() -> None:
    attention = 4 * 1280 * 1280
    dense = 3 * 1280 * 6848
    sparse = 64 * 1280 + (64 + 2) * 3 * 1280 * 896
    norms = (2 * 12 + 1) * 1280
    assert preset("deepseek-ocr").parameters == (2 * 129280 * 1280 + 12 * attention + 1 * dense + 11 * sparse + norms)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("lama-2-7b", "no preset named 'lama-2-7b'; did you mean llama-2-7b"),
        ("Qwen3-9B", "no preset named 'Qwen3-9B'; did you mean qwen3-8b"),
        ("../errors", "no preset named '../errors'; `fxmeter models` lists them"),
        ("", "no preset named ''; `fxmeter models` lists them"),
    ],
)
def test_unknown_name_is_one_line_with_near_matches(asked: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        preset(asked)
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("`fxmeter models` lists them")
    assert "\n" not in str(caught.value)


def test_a_name_is_found_whatever_its_case() -> None:
    assert preset("Qwen3-8B") == preset("qwen3-8b")
    assert preset("QWEN3-8B").name == "qwen3-8b"


def test_a_caller_cannot_change_the_preset_of_another() -> None:
    mine = dict(preset("llama-2-7b").config)
    mine["hidden_size"] = 1
    nested = preset("llama-3.1-8b").config["rope_scaling"]
    nested["factor"] = 1.0
    assert preset("llama-2-7b").config["hidden_size"] == 4096
    assert preset("llama-3.1-8b").config["rope_scaling"]["factor"] == 8.0


def test_listing_presets_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from fxmeter.models.presets import preset, preset_names; [preset(n) for n in preset_names()];"
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
