"""Any file given as a config ends in a price or in one clear line, in bounded time and memory, and runs no code."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from fxmeter.annotators import annotate
from fxmeter.models import decode
from fxmeter.models.errors import ModelError
from fxmeter.tracer import load_model
from fxmeter.tracer.load.reading import read_fields
from tests.tracer.load.config_fuzz import Outcome, broken_configs, outcome_of
from tests.tracer.tiny import DEEPSEEK, GEMMA3, GPT_OSS, LLAMA, QWEN_MOE, config

JAMBA = {
    "model_type": "jamba",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts": 4,
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "mamba_dt_rank": 2,
    "vocab_size": 40,
}
BLOOM = {"model_type": "bloom", "hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 40}
GOOD = [LLAMA, DEEPSEEK, QWEN_MOE, GEMMA3, GPT_OSS, JAMBA, BLOOM]
QUICK = ("--decode", "16", "--attention", "flash", "--depth", "0")


@pytest.fixture(scope="module", autouse=True)
def _loaded():
    """What every child would have to load by itself."""
    for fields in GOOD:
        annotate(load_model(config(fields)), decode(2))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with code that leaves a mark if it runs, on the path and as the current one."""
    mark = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    assert not mark.exists(), "code that came with a config was run"


def ends_well(path: Path | str, *options: str, **limits: int) -> Outcome:
    outcome = outcome_of(Path(path), *QUICK, *options, **limits)
    content = Path(path).read_bytes()[:3000] if Path(path).is_file() else path
    assert not outcome.complaint, f"{outcome.complaint}: {outcome.err[-1500:]}\n{content!r}"
    return outcome


def test_broken_configs_end_in_a_price_or_one_line(folder):
    ends = []
    for text in broken_configs(GOOD, 3, 40):
        (folder / "config.json").write_bytes(text)
        ends.append(ends_well(folder / "config.json").code)
    assert min(ends.count(0), ends.count(1)) > 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 112))
def test_very_many_broken_configs_end_in_a_price_or_one_line(folder, seed):
    for text in broken_configs(GOOD, seed, 40):
        (folder / "config.json").write_bytes(text)
        ends_well(folder / "config.json")


def test_the_harness_sees_what_it_is_to_refuse():
    line, price = "fxmeter: x has no model_type\n", '{"schema_version": 1}'
    assert not Outcome(1, "", line).complaint
    assert not Outcome(0, price, "fxmeter: warning: long\n").complaint
    for bad in (
        Outcome(1, "", line + line),
        Outcome(1, "half", line),
        Outcome(1, "", "[transformers] noise\n" + line),
        Outcome(0, price, "UserWarning: noise\n"),
        Outcome(0, "", ""),
        Outcome(1, "", "fxmeter: unexpected KeyError: 'x'\n"),
        Outcome(70, "", "Traceback (most recent call last)\n"),
        Outcome(-14, "", ""),
    ):
        assert bad.complaint, bad


def test_a_hang_or_a_hunger_for_memory_would_be_seen(folder, monkeypatch):
    (folder / "config.json").write_text(json.dumps(LLAMA))
    monkeypatch.setattr("fxmeter.annotators.cli.main.main", lambda: time.sleep(60))
    assert outcome_of(folder / "config.json", seconds=1).complaint == "ended by SIGALRM"
    monkeypatch.setattr("fxmeter.annotators.cli.main.main", lambda: bytearray(2**31))
    assert "MemoryError" in outcome_of(folder / "config.json", nbytes=2**28).err


TEXTS = {
    "nothing": (b"", "is empty"),
    "not UTF-8": (b'{"model_type": "\xff\xfe"}', "is no UTF-8 text"),
    "UTF-16": ("{}".encode("utf-16"), "is no UTF-8 text, but UTF-16"),
    "cut off": (b'{"model_type": "lla', "is not valid JSON"),
    "a list": (b"[]", "holds a list"),
    "a number of many digits": (b'{"n": ' + b"9" * 100_000 + b"}", "is not valid JSON"),
    "deep": (b'{"a":' * 100_000, "is not valid JSON"),
    "deep and whole": (b"[" * 50_000 + b"]" * 50_000, "is not valid JSON"),
    "of 20 MB": (b'{"model_type": "llama", "x": "' + b"y" * 20_000_000 + b'"}', "has more than 16,777,216 bytes"),
    "a type on several lines": (b'{"model_type": "lla\\nma"}', "is unknown to transformers"),
    "a type of many letters": (b'{"model_type": "' + b"x" * 100_000 + b'"}', "is unknown to transformers"),
    "half a character": (b'{"model_type": "\\ud800"}', "is unknown to transformers"),
    "no type": (b'{"model_type": null}', "has no model_type"),
    "own code": (
        b'{"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}',
        "code that comes with a config is never run",
    ),
}


@pytest.mark.parametrize("what", TEXTS)
def test_a_file_that_is_no_config_is_said_to_be_none(folder, what):
    text, message = TEXTS[what]
    (folder / "config.json").write_bytes(text)
    outcome = ends_well(folder / "config.json", seconds=20)
    assert outcome.code == 1
    assert message in outcome.err


FIELDS = {
    "remote code": {"auto_map": {"AutoModelForCausalLM": "evil.Model"}, "trust_remote_code": True},
    "a quantised checkpoint": {"quantization_config": {"quant_method": "fp8", "modules_to_not_convert": ["evil"]}},
    "generation code": {"custom_generate": "evil.py", "custom_pipelines": {"x": {"impl": "evil.Model"}}},
    "an activation that is code": {"hidden_act": "__import__('evil')"},
    "not-a-number": {"rms_norm_eps": float("nan"), "initializer_range": float("inf")},
    "a vision config": {"vision_config": {"auto_map": {"AutoConfig": "evil.Config"}}},
}


@pytest.mark.parametrize("what", FIELDS)
def test_fields_that_name_code_or_mean_nothing_do_no_harm(folder, what):
    (folder / "config.json").write_text(json.dumps({**LLAMA, **FIELDS[what]}))
    ends_well(folder / "config.json")


def test_a_field_given_twice_is_refused(folder):
    (folder / "config.json").write_text(json.dumps(LLAMA)[:-1] + ', "vocab_size": 7, "vocab_size": 11}')
    with pytest.raises(ModelError, match=r"says vocab_size twice, .* say it once"):
        read_fields(folder)


def test_what_is_no_file_is_one_line_and_never_waited_for(folder):
    os.mkfifo(folder / "pipe.json")
    (folder / "model").mkdir()
    os.mkfifo(folder / "model" / "config.json")
    (folder / "loop.json").symlink_to(folder / "loop.json")
    (folder / "dangling.json").symlink_to(folder / "nowhere")
    (folder / "directory.json").mkdir()
    for path, message in (
        (folder / "pipe.json", "is no regular file"),
        (folder / "model", "has no config.json"),
        (folder / "loop.json", "no such file"),
        (folder / "dangling.json", "no such file"),
        (folder / "directory.json", "has no config.json"),
        ("/dev/zero", "is no regular file"),
        ("/dev/tty", "is no regular file"),
    ):
        outcome = ends_well(path, seconds=20)
        assert outcome.code == 1
        assert message in outcome.err, outcome.err


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_one_line(folder):
    (folder / "config.json").write_text(json.dumps(LLAMA))
    (folder / "config.json").chmod(0)
    assert "cannot be read" in ends_well(folder / "config.json").err
