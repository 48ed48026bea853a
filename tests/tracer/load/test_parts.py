"""Multimodal configs, encoders, adapters: the text decoder alone is priced, the rest is named, or it is refused."""

from __future__ import annotations

import time

import pytest
from transformers import (
    AutoConfig,
    BartConfig,
    BertConfig,
    DeepseekV3Config,
    DetrConfig,
    DistilBertConfig,
    Florence2Config,
    Gemma3Config,
    Llama4Config,
    LlamaConfig,
    LlavaConfig,
    MusicgenConfig,
    Qwen2_5_VLConfig,
    Qwen3VLConfig,
    T5Config,
    WhisperConfig,
)

from fxmeter import annotate, decode, load_model, prefill
from fxmeter.models.errors import ModelError, ScenarioError, TraceError
from fxmeter.models.source import HubId, locate

TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 128,
}


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    "config", [Qwen2_5_VLConfig, Qwen3VLConfig, LlavaConfig, Gemma3Config], ids=lambda c: c.__name__
)
def test_the_outer_tie_is_obeyed(config):
    text = {**TEXT, "tie_word_embeddings": False}
    tied, untied = (load_model(config(text_config=dict(text), tie_word_embeddings=outer)) for outer in (True, False))
    assert parameters(untied) - parameters(tied) == 128 * 64


@pytest.mark.parametrize("config", [Gemma3Config, Llama4Config, LlavaConfig, Qwen3VLConfig], ids=lambda c: c.__name__)
def test_the_text_decoder_alone_is_built_and_the_rest_is_named_with_its_parameters(config):
    model = load_model(config(text_config=dict(TEXT)))
    assert not [
        name
        for name, _ in model.named_parameters()
        if "vision" in name or "visual" in name or "proj" in name.split(".")[0]
    ]
    assert model.left_out
    assert all(part.parameters > 10**6 for part in model.left_out if "tower" in part.name or "vis" in part.name)
    assert annotate(model, decode(8)).cost.matmul_flops > 0


def test_the_parameters_of_qwen2_5_vl_3b_text():
    """Published: 3,085,938,688 for the text decoder of Qwen2.5-VL-3B, embedding and head tied by the outer config."""
    text = {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16}
    config = Qwen2_5_VLConfig(
        text_config={**text, "num_key_value_heads": 2, "vocab_size": 151936}, tie_word_embeddings=True
    )
    assert parameters(load_model(config)) == 3_085_938_688


def test_layers_that_predict_further_tokens_are_named():
    config = DeepseekV3Config(**TEXT, num_nextn_predict_layers=1, kv_lora_rank=16, q_lora_rank=16, n_routed_experts=8)
    assert [part.name for part in load_model(config).left_out] == ["1 layer that predicts further tokens"]
    config = LlamaConfig(**TEXT, mtp_num_hidden_layers=2)
    assert [part.name for part in load_model(config).left_out] == ["2 layers that predict further tokens"]
    assert load_model("llama-3.1-8b").left_out == ()


def test_adapters_beside_the_weights_are_named():
    config = LlamaConfig(**TEXT, speech_lora={"r": 8}, use_lora=True)
    assert [part.name for part in load_model(config).left_out] == ["an adapter (speech_lora)"]


@pytest.mark.parametrize("config", [WhisperConfig, BartConfig, T5Config], ids=lambda c: c.__name__)
def test_an_encoder_and_its_decoder_are_both_built(config):
    model = load_model(config())
    assert model.left_out == ()
    assert {name.split(".")[0] for name, _ in model.named_modules() if name.endswith("encoder")} <= {"model", "encoder"}
    assert type(model).__name__.endswith("ForConditionalGeneration")


def test_a_tower_beside_an_encoder_and_a_decoder_is_left_out_and_named():
    model = load_model(Florence2Config())
    assert type(model).__name__ == "BartForConditionalGeneration"
    assert [part.name for part in model.left_out] == ["vision_tower", "multi_modal_projector"]


@pytest.mark.parametrize("config", [MusicgenConfig, DetrConfig], ids=lambda c: c.__name__)
def test_an_encoder_and_a_decoder_that_write_no_text_are_refused_in_one_line(config):
    with pytest.raises(ModelError, match="no class for which writes text") as caught:
        load_model(config())
    assert "\n" not in str(caught.value)


def test_the_bare_decoder_is_priced_on_request():
    assert annotate(load_model(BartConfig(is_encoder_decoder=False, decoder_layers=2)), decode(4)).cost.kv_bytes > 0


@pytest.mark.parametrize("model_type", ["gpt_neox", "gpt_neox_japanese"])
def test_a_decoder_whose_code_never_asks_is_decoder_is_one(model_type):
    """GPT-NeoX (Pythia) has the field, False by default, and is causal whatever it says."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 99}
    config = AutoConfig.for_model(model_type, **sizes)
    assert config.is_decoder is False
    keys_and_values, layers, tokens, bfloat16 = 2 * 64, 2, 17, 2
    stage = annotate(load_model(config), decode(16))
    assert stage.cost.kv_bytes == layers * tokens * keys_and_values * bfloat16


def test_an_encoder_is_one_stage_without_a_cache(run, tmp_path):
    config = BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, vocab_size=99)
    model = load_model(config)
    assert annotate(model, prefill(16)).cost.kv_bytes == 0
    with pytest.raises(ScenarioError, match="is an encoder"):
        annotate(model, decode(16))
    config.save_pretrained(tmp_path)
    done = run("report", tmp_path, "--prefill", 128, "--decode", 128)
    assert done.returncode == 0
    assert "an encoder: one pass over all tokens, no cache" in " ".join(done.stdout.split())
    assert "prefill S=" in done.stdout
    assert "decode C=" not in done.stdout


def test_an_encoder_that_transformers_knows_by_no_causal_class_is_one_too():
    model = load_model(DistilBertConfig(dim=64, hidden_dim=96, n_layers=2, n_heads=4, vocab_size=99))
    cost = annotate(model, prefill(16)).cost
    layer = 4 * 2 * 64 * 64 + 2 * 2 * 64 * 96 + 2 * 2 * 16 * 64
    assert cost.matmul_flops == 16 * (2 * layer + 2 * 64 * 64 + 2 * 64 * 99)
    assert cost.kv_bytes == 0
    with pytest.raises(ScenarioError, match="is an encoder"):
        annotate(model, decode(16))


def test_a_length_that_the_code_cannot_run_names_the_limit():
    config = BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, vocab_size=99)
    with pytest.raises(TraceError, match="600 tokens are more than its 512 positions"):
        annotate(load_model(config), prefill(600))


def test_an_adapter_and_a_gguf_file_are_recognised(tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds an adapter"):
        load_model(adapter)
    weights = tmp_path / "model.gguf"
    weights.write_bytes(b"GGUF\x03\x00\x00\x00")
    with pytest.raises(ModelError, match="is a GGUF file"):
        load_model(weights)


def test_a_hub_id_without_network_fails_soon_and_offers_the_preset(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://no-such-host.invalid")
    for name in ("HF_HUB_OFFLINE", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"its config is the preset llama-3\.1-8b"):
        load_model("meta-llama/llama-3.1-8b")
    assert time.monotonic() - started < 10
    with pytest.raises(ModelError, match="give a folder"):
        load_model("nobody/nothing")


def test_a_preset_is_found_whatever_its_case():
    assert locate("Llama-3.1-8B").name == "llama-3.1-8b"


def test_the_address_of_a_page_on_the_hub_is_its_repository():
    assert locate("https://huggingface.co/owner/name/") == HubId("owner/name")
    with pytest.raises(ModelError, match="name is empty"):
        locate(" ")


def test_an_unknown_type_with_a_preset_near_it_is_told_the_preset(tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"model_type": "kimi_k2"}')
    with pytest.raises(ModelError, match="there is the preset kimi-k2"):
        load_model(file)


def test_formats_on_the_command_line(run):
    done = run(
        "report", "llama-3.1-8b", "--decode", "64", "--attention", "flash", "--weights", "fp8-channel", "--kv", "fp8"
    )
    assert done.returncode == 0
    assert "8.460 GiB in fp8-channel" in done.stdout  # 9,083,953,152 / 2^30
    assert "not priced: activations are quantised before each product" in done.stdout
    assert "cache in place in fp8\n" in done.stdout
    assert "one scale for each layer's keys and values (not counted)" in " ".join(done.stdout.split())
    served = run("report", "llama-3.1-8b", "--prefill", "64", "--attention", "flash", "--kernels", "serving")
    assert "causal exact · logits last" in " ".join(served.stdout.split())
    assert "· serving kernels" in " ".join(served.stdout.split())
    wrong = run("report", "llama-3.1-8b", "--weights", "fp9")
    assert wrong.returncode == 2
    assert "no weight format named 'fp9'" in wrong.stderr
