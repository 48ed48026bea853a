"""What is wrong with a config is told by field, whatever words transformers has for it."""

from __future__ import annotations

import json

import pytest

from fxmeter import load_model, prefill
from fxmeter.annotators import annotate
from fxmeter.models.errors import ModelError, TraceError
from tests.tracer.tiny import GEMMA3, LLAMA

FIELDS = {
    "hidden_size": [-1, 0, None, "64", 1.5, 10**30],
    "intermediate_size": [-1, True],
    "num_attention_heads": [0, -2],
    "num_key_value_heads": [0, -1, []],
    "vocab_size": [-1, 10**30],
    "head_dim": [0, -4],
    "num_labels": [10**30, "x"],
    "id2label": [[1], "x"],
    "text_config": ["x", 3, {"a": 1}],
    "torch_dtype": ["zz", [1]],
    "hidden_act": ["zz"],
    "layer_types": [["full_attention"], ["x"] * 3, "full_attention"],
    "model_type": [["llama"], {}, ""],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in FIELDS.items() for value in values])
def test_the_field_is_named_in_one_line(name, value):
    with pytest.raises(ModelError, match=name) as refused:
        load_model({**LLAMA, name: value})
    assert len(str(refused.value).splitlines()) == 1
    assert "<class" not in str(refused.value)


@pytest.mark.parametrize(
    ("scaling", "name"),
    [
        ({"rope_type": "linear", "factor": "2"}, "rope_parameters.factor is '2'"),
        ({"rope_type": None}, "rope_type is None"),
        ("yarn", "rope_scaling is 'yarn'|rope_parameters"),
        ({"rope_type": "linear"}, "factor"),
    ],
)
def test_a_part_of_a_field_is_named_by_its_path(scaling, name):
    with pytest.raises(ModelError, match=name):
        load_model({**LLAMA, "rope_scaling": scaling})


@pytest.mark.parametrize("window", [-3, 0])
def test_a_field_that_only_a_pass_reads_is_named_too(window):
    with pytest.raises(TraceError, match=f"; sliding_window is {window}$"):
        annotate(load_model({**GEMMA3, "sliding_window": window}), prefill(16), attention="eager")


def test_a_model_type_is_found_whatever_its_case():
    with pytest.raises(ModelError, match="did you mean llama or"):
        load_model({**LLAMA, "model_type": " LLaMA"})


TEXTS = {
    "is empty": b" \n",
    "is no UTF-8 text, but UTF-16": json.dumps(LLAMA).encode("utf-16"),
    "is no UTF-8 text; a": b'{"a": "\xe9"}',
    "says hidden_size twice": b'{"model_type": "llama", "hidden_size": 64, "hidden_size": 128}',
}


@pytest.mark.parametrize("expected", TEXTS)
def test_a_file_that_is_no_config_says_what_it_is(expected, tmp_path):
    (tmp_path / "config.json").write_bytes(TEXTS[expected])
    with pytest.raises(ModelError, match=expected):
        load_model(tmp_path)


def test_a_config_behind_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(LLAMA).encode())
    assert load_model(tmp_path).config.hidden_size == LLAMA["hidden_size"]
