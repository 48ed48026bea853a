"""Where models come from, and what is said when they cannot."""

from __future__ import annotations

import json
import re

import pytest
import torch
from transformers import LlamaConfig

from fxmeter.models import ModelError
from fxmeter.models.presets import preset
from fxmeter.tracer import load_model
from tests.tracer.tiny import LLAMA


@pytest.fixture
def folder(tmp_path):
    def write(content, name="config.json"):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name).write_text(text)
        return tmp_path

    return write


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_a_preset_a_folder_a_file_and_a_config_give_the_same_model(folder):
    path = folder(LLAMA)
    fields = {key: value for key, value in LLAMA.items() if key != "model_type"}
    models = [load_model(path), load_model(str(path / "config.json")), load_model(LlamaConfig(**fields))]
    assert len({parameters(model) for model in models}) == 1
    assert all(p.is_meta for model in models for p in model.parameters())
    assert parameters(load_model("llama-2-7b")) == 6_738_415_616


@pytest.mark.parametrize("name", ["gemma-2-9b", "llama-3-8b"])
def test_weights_are_tied_where_the_config_ties_them(name):
    model = load_model(name)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is model.config.tie_word_embeddings
    assert parameters(model) == preset(name).parameters


def test_the_dtype_is_the_checkpoints_unless_chosen(folder):
    path = folder({**LLAMA, "torch_dtype": "float16"})
    assert next(load_model(path).parameters()).dtype is torch.float16
    assert next(load_model(path, dtype="float32").parameters()).dtype is torch.float32
    assert next(load_model(folder(LLAMA)).parameters()).dtype is torch.bfloat16
    with pytest.raises(ModelError, match=r"dtype must be one of bfloat16, .*, not 'int4'"):
        load_model(path, dtype="int4")


def test_a_hub_id_goes_through_the_hub_client(monkeypatch):
    from transformers import PreTrainedConfig

    asked = []

    def get_config_dict(name, **_):
        asked.append(name)
        return dict(LLAMA), {}

    monkeypatch.setattr(PreTrainedConfig, "get_config_dict", get_config_dict)
    monkeypatch.setattr("fxmeter.tracer.load.reading._reachable", lambda: True)
    assert load_model("someone/some-model").config.hidden_size == 32
    assert asked == ["someone/some-model"]


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch):
    from transformers import PreTrainedConfig

    def get_config_dict(name, **_):
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr(PreTrainedConfig, "get_config_dict", get_config_dict)
    monkeypatch.setattr("fxmeter.tracer.load.reading._reachable", lambda: True)
    with pytest.raises(ModelError, match=r"no config.json for 'someone/some-model' .*couldn't connect to the hub$"):
        load_model("someone/some-model")


def test_code_that_comes_with_a_config_is_not_run(folder, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("open('ran', 'w')\nclass Config: pass\nclass Model: pass\n")
    auto_map = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    monkeypatch.chdir(tmp_path)
    assert type(load_model(folder({**LLAMA, "auto_map": auto_map}))).__name__ == "LlamaForCausalLM"
    with pytest.raises(ModelError, match="code that comes with a config is never run"):
        load_model(folder({"model_type": "evil", "auto_map": auto_map}))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[1]", "holds a list, not the object"),
        ("{}", "has no model_type"),
        ({"model_type": 7}, "has the model_type 7, which is no name"),
        ({"model_type": "lama"}, "model_type 'lama' is unknown .* did you mean .*llama"),
        ({**LLAMA, "hidden_size": 30}, "The hidden size \\(30\\) is not a multiple"),
        ({**LLAMA, "hidden_size": "wide"}, "hidden_size"),
        ({**LLAMA, "hidden_size": -32}, "transformers refuses it"),
        ({"model_type": "clip_vision_model"}, "clip_vision_model is not a text decoder"),
    ],
)
def test_a_broken_config_is_one_clear_line(folder, content, message):
    with pytest.raises(ModelError, match=message) as caught:
        load_model(folder(content))
    assert "\n" not in str(caught.value)


def test_names_that_mean_nothing(tmp_path):
    with pytest.raises(ModelError, match=r"no preset named 'lama-2-7b'; did you mean llama-2-7b"):
        load_model("lama-2-7b")
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_model(tmp_path)
    with pytest.raises(ModelError, match=r"no such file or folder: ./nowhere"):
        load_model("./nowhere")


def test_fewer_layers_than_none_are_told():
    with pytest.raises(ModelError, match="num_hidden_layers is -1, which is no number of layers"):
        load_model({**LLAMA, "num_hidden_layers": -1})


@pytest.mark.parametrize(
    ("fields", "field", "known"),
    [
        ({"hidden_act": "zzz"}, "hidden_act", {"gelu", "silu", "relu2"}),
        (
            {"rope_parameters": {"rope_type": "zzz", "rope_theta": 1e4}},
            "rope_type",
            {"default", "linear", "yarn", "llama3"},
        ),
    ],
)
def test_a_word_that_transformers_does_not_know_is_told_with_its_field_and_those_it_knows(fields, field, known):
    with pytest.raises(ModelError) as told:
        load_model({**LLAMA, **fields})
    text = str(told.value)
    assert "\n" not in text and f"{field} is 'zzz', which transformers does not know" in text
    assert known <= set(re.findall(r"\w+", text.partition("it knows")[2]))
