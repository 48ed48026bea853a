"""A config nobody has seen is priced, or refused in one line: never a wrong number, never a hang."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from fxmeter.annotators import annotate
from fxmeter.models import FxmeterError, decode, prefill
from fxmeter.tracer import load_model
from tests.tracer.tiny import config
from validation.coverage_type import compare_folding

PLAIN = ["llama", "qwen3", "gemma2", "phi3", "olmo2", "mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss", "granite"]
EXPERTS = {
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "deepseek_v3": {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2},
}
LATENT = {"q_lora_rank": 24, "kv_lora_rank": 20, "qk_rope_head_dim": 6, "qk_nope_head_dim": 10, "v_head_dim": 12}


@st.composite
def configs(draw):
    """Random but valid sizes of one of ten families."""
    family = draw(st.sampled_from(PLAIN))
    kv_heads, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    head_dim = 2 * draw(st.integers(1, 12))
    fields = {
        "model_type": family,
        "hidden_size": kv_heads * groups * head_dim,
        "intermediate_size": draw(st.integers(1, 70)),
        "num_hidden_layers": draw(st.integers(1, 5)),
        "num_attention_heads": kv_heads * groups,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": draw(st.integers(3, 90)),
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **EXPERTS.get(family, {}),
    }
    if family in ("gemma2", "gpt_oss"):
        fields["sliding_window"] = draw(st.integers(2, 30))
    if family == "deepseek_v3":
        fields |= LATENT
        fields |= {"head_dim": LATENT["qk_rope_head_dim"], "num_key_value_heads": fields["num_attention_heads"]}
        fields |= {"moe_intermediate_size": 8, "first_k_dense_replace": draw(st.integers(0, 2))}
    return fields


def counted(model, scenario):
    """What FlopCounterMode says, and the bytes in transformers' own cache: all layers, eager, batched experts."""
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        for length in (scenario.past_len, scenario.query_len):
            with FlopCounterMode(display=False) as counter:
                if length:
                    tokens = torch.zeros(scenario.batch, length, dtype=torch.long, device="meta")
                    model(input_ids=tokens, past_key_values=cache, use_cache=True)
    return counter.get_total_flops(), sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(configs(), st.integers(1, 20), st.integers(1, 3), st.booleans())
def test_a_random_config_of_ten_families_is_priced_as_the_counter_says(fields, length, batch, decoding):
    scenario = decode(length, batch=batch) if decoding else prefill(length, batch=batch)
    model = load_model(config(fields))
    stage = annotate(model, scenario, attention="eager")
    full = annotate(model, scenario, attention="eager", fold=False)
    model.config._experts_implementation = "batched_mm"
    assert (stage.cost.matmul_flops, stage.cost.kv_bytes) == counted(model, scenario)
    assert stage.cost.matmul_flops > 0
    assert not stage.uncosted
    assert compare_folding(stage, full) == "equal"


ABSURD = {
    "a million layers": {"num_hidden_layers": 10**6},
    "a billion layers": {"num_hidden_layers": 10**9},
    "a billion heads": {"num_attention_heads": 10**9, "num_key_value_heads": 10**9},
    "hidden 10^9": {"hidden_size": 10**9, "head_dim": 128},
    "hidden 10^30": {"hidden_size": 10**30},
    "no layers": {"num_hidden_layers": 0},
    "a negative size": {"intermediate_size": -5},
    "a vocabulary of 10^15": {"vocab_size": 10**15},
}


@pytest.mark.parametrize("absurd", ABSURD)
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "deepseek_v3", "jamba"])
def test_absurd_sizes_take_seconds_at_most(family, absurd):
    started = time.monotonic()
    try:
        model = load_model(_written({"model_type": family, **ABSURD[absurd]}))
        cost = annotate(model, decode(16)).cost
        assert cost.weight_bytes == sum(p.nbytes for p in model.parameters())
    except FxmeterError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 500
    assert time.monotonic() - started < 20


def _written(fields):
    import json
    import tempfile
    from pathlib import Path

    path = Path(tempfile.mkdtemp()) / "config.json"
    path.write_text(json.dumps(fields))
    return path


def test_the_command_refuses_a_million_layers_in_one_line():
    path = _written({"model_type": "llama", "num_hidden_layers": 10**6})
    done = subprocess.run(
        [sys.executable, "-m", "fxmeter.annotators.cli.main", "report", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert (
        done.stderr.strip().splitlines()[-1].endswith("num_hidden_layers is 1,000,000; the largest accepted is 1,000")
    )
    assert "Traceback" not in done.stderr
