"""Models that the user's own code builds, by the name of a function."""

from __future__ import annotations

import sys

import pytest

from fxmeter import FxmeterError, annotate, annotate_module, load_model, prefill
from fxmeter.models.source import Factory, locate
from fxmeter.tracer.load.factory import built_by
from tests.tracer.tiny import LLAMA

CODE = f"""
import torch
from transformers import AutoConfig, AutoModelForCausalLM

def decoder():
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**{LLAMA!r}))

def block():
    return torch.nn.Linear(4, 6, bias=False), torch.zeros(3, 4)

def huge():
    return torch.nn.Linear(10**6, 10**6)

def number():
    return 7

def broken():
    raise ValueError("no\\nsuch width")
"""


@pytest.fixture(autouse=True)
def _code(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("mine", None)


def test_a_decoder_is_priced_as_a_config_is():
    from transformers import AutoConfig

    stage = annotate("python:mine:decoder", prefill(8))
    assert stage.cost.matmul_flops == annotate(load_model(AutoConfig.for_model(**LLAMA)), prefill(8)).cost.matmul_flops


def test_a_module_comes_with_its_inputs():
    module, inputs = built_by(Factory("mine", "block"))
    assert annotate_module(module, *inputs).cost.matmul_flops == 2 * 3 * 4 * 6
    assert not module.training


def test_a_large_model_takes_no_memory():
    assert load_model("python:mine:huge").weight.is_meta  # 4 TB


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("python:mine", "name a function of a module"),
        ("python:mine:", "name a function of a module"),
        ("python:no_such:f", r"no_such cannot be imported: ModuleNotFoundError"),
        ("python:mine:decodr", r"mine has no function decodr; did you mean decoder\?"),
        ("python:mine:number", "returned int"),
        ("python:mine:broken", r"the factory failed: ValueError: no such width \(.*mine.py:\d+\)"),
    ],
)
def test_what_is_no_model_is_one_line(name, message):
    with pytest.raises(FxmeterError, match=message) as caught:
        load_model(name)
    assert "\n" not in str(caught.value)


def test_names_alone_decide():
    assert locate("python:a.b:c") == Factory("a.b", "c")
    assert "a" not in sys.modules
