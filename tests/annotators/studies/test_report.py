"""What a report says beside its numbers: what was assumed, the stages of a model with an encoder, lengths too long."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from transformers import BartConfig, DbrxConfig, MambaConfig

from fxmeter import annotate, decode, load_model, prefill
from fxmeter.annotators.documents.report import to_json
from fxmeter.annotators.stages.given import stages_of
from fxmeter.annotators.stages.model_info import model_info
from fxmeter.annotators.studies.breakdown import module_tree
from fxmeter.annotators.studies.report import build_report
from fxmeter.annotators.views.reports.report import report_view
from fxmeter.models.errors import ScenarioError
from tests.tracer.tiny import DEEPSEEK, GEMMA3, LLAMA, config

BART = BartConfig(
    d_model=32,
    encoder_layers=2,
    decoder_layers=3,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=48,
    decoder_ffn_dim=48,
    vocab_size=96,
    max_position_embeddings=64,
)


def printed(report) -> str:
    file = io.StringIO()
    Console(file=file, width=160).print(report_view(report, depth=1, ops=0))
    return file.getvalue()


def report_of(config, *asked):
    model = load_model(config)
    return build_report(model_info(model), [annotate(model, scenario) for scenario in stages_of(model, asked)])


def test_what_was_assumed_is_among_the_conventions():
    small = {"d_model": 32, "n_heads": 2, "n_layers": 2, "vocab_size": 96}
    heads, experts = (
        {"kv_n_heads": 1, "rope_theta": 1e4, "clip_qkv": 8.0},
        {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
    )
    report = report_of(DbrxConfig(**small, attn_config=heads, ffn_config=experts), prefill(8), decode(8))
    assert to_json(report)["conventions"]["assumptions"] == ["a top-k picks every position equally often"]
    assert printed(report).count("assumed: a top-k picks every position equally often") == 1


def test_nothing_is_assumed_of_most():
    report = report_of("llama-2-7b", decode(8))
    assert to_json(report)["conventions"]["assumptions"] == []
    assert "assumed" not in printed(report)


def test_the_encoder_is_the_first_stage_and_the_cache_has_two_parts():
    report = report_of(BART, prefill(4, batch=2, encoder_len=11), decode(4, batch=2, encoder_len=11))
    document = to_json(report)
    assert [stage["stage"] for stage in document["stages"]] == ["encode", "prefill", "decode"]
    assert [stage.get("encoder_len") for stage in document["stages"]] == [None, 11, 11]
    assert document["stages"][0]["query_len"] == 11
    assert document["model"]["layers"] == 2 + 3
    assert document["model"]["kind"] == "encoder-decoder"
    text = printed(report)
    assert "2×2×4×16 keys, values" in text
    assert text.count("encoder's output, cross-attention   2×2×11×16 keys, values") == 2
    assert text.index("encode S=11, B=2") < text.index("prefill S=4, E=11, B=2")


def test_lengths_beyond_the_positions_of_either_part_are_warned_of():
    report = report_of(BART, prefill(65, encoder_len=70))
    assert to_json(report)["warnings"] == [
        "65 tokens are more than this model's max_position_embeddings, 64",
        "70 positions of the encoder are more than this model's max_position_embeddings, 64",
    ]
    assert "warning: 70 positions of the encoder" in printed(report)


def test_a_model_without_an_encoder_has_no_encoder_len():
    with pytest.raises(ScenarioError, match="no encoder-decoder model"):
        stages_of(load_model("llama-2-7b"), [prefill(4, encoder_len=4)])


def test_what_attention_makes_no_difference_to_is_shown_once():
    mamba = MambaConfig(hidden_size=16, num_hidden_layers=1, state_size=4, vocab_size=32)
    for made, attentions in ((mamba, ["eager and flash"]), (config(LLAMA), ["eager", "flash"])):
        model = load_model(made)
        stages = [annotate(model, prefill(8), attention=kind) for kind in ("eager", "flash")]
        columns = build_report(model_info(model), stages).columns
        assert [column.attention for column in columns] == attentions


def labels(model, scenario) -> list[str]:
    return [row.label for row in module_tree(annotate(model, scenario), 3) if row.label.startswith("layers.")]


def test_groups_of_layers_say_what_tells_them_apart():
    assert labels(load_model(config(GEMMA3)), decode(64)) == ["layers.0-1,3-4 (4×) sliding", "layers.2,5 (2×) full"]
    assert labels(load_model(config(DEEPSEEK)), prefill(8)) == ["layers.0 dense", "layers.1-2 (2×) experts"]
    assert labels(load_model(config(LLAMA)), prefill(8)) == ["layers.0-2 (3×)"]
