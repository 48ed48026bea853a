"""What an encoder reads, and how long that is: from its config, from the caller, or asked for in one line."""

from __future__ import annotations

import pytest
from transformers import (
    BartConfig,
    BertConfig,
    LlamaConfig,
    MoonshineConfig,
    Pix2StructConfig,
    Speech2TextConfig,
    TrOCRConfig,
    VisionEncoderDecoderConfig,
    ViTConfig,
    WhisperConfig,
)

from fxmeter import annotate, decode, encode, generation, load_model, prefill
from fxmeter.models.errors import ScenarioError, TraceError
from fxmeter.tracer import record
from fxmeter.tracer.graph.nodes import spec_of

SMALL = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": 96, "pad_token_id": 0}
WHISPER = WhisperConfig(**SMALL, **HEADS, num_mel_bins=8, max_source_positions=20, max_target_positions=30)
BART = BartConfig(**SMALL, **HEADS, max_position_embeddings=64)
SPEECH = Speech2TextConfig(**SMALL, **HEADS, conv_channels=16, input_feat_per_channel=6, max_source_positions=100)
TROCR = VisionEncoderDecoderConfig(
    encoder=ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=48
    ).to_dict(),
    decoder=TrOCRConfig(
        d_model=32,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=48,
        vocab_size=96,
        cross_attention_hidden_size=32,
    ).to_dict(),
)


def inputs(config, scenario):
    """Name → shape of what a pass is given from outside."""
    graph = record(load_model(config), scenario).graph
    return {n.name: tuple(spec_of(n).shape) for n in graph.nodes if n.op == "placeholder"}


@pytest.mark.parametrize(
    ("config", "positions", "shapes"),
    [
        (BART, 11, {"input_ids": (3, 11)}),
        (WHISPER, 20, {"input_features": (3, 8, 40)}),  # mel bins before frames, two of which become a position
        (SPEECH, 12, {"input_features": (3, 48, 6)}),  # frames before mel bins, four of which become a position
        (TROCR, 10, {"pixel_values": (3, 3, 48, 48)}),  # 3 x 3 patches of 16 x 16, and the class token
    ],
    ids=["tokens", "whisper", "speech_to_text", "picture"],
)
def test_an_encoder_is_given_what_its_extractor_would(config, positions, shapes):
    assert inputs(config, encode(positions, batch=3)) == shapes
    states = inputs(config, prefill(5, batch=3, encoder_len=positions))
    assert (3, positions, 32) in [shape for name, shape in states.items() if name.startswith("encoder_outputs")]
    assert states["decoder_input_ids"] == (3, 5)


def test_samples_become_positions_as_the_model_says():
    config = MoonshineConfig(
        hidden_size=32, intermediate_size=48, encoder_num_hidden_layers=2, decoder_num_hidden_layers=2
    )
    (samples,) = inputs(config, encode(40)).values()
    assert samples[0] == 1
    assert annotate(load_model(config), encode(40)).cost.matmul_flops > 0


@pytest.mark.parametrize(("config", "positions"), [(WHISPER, 20), (TROCR, 10)], ids=["whisper", "picture"])
def test_a_length_that_the_config_fixes_need_not_be_given_and_cannot_be_another(config, positions):
    model = load_model(config)
    assert annotate(model, decode(4)).scenario.encoder_len == positions
    assert annotate(model, decode(4)).cost == annotate(model, decode(4, encoder_len=positions)).cost
    for scenario in (encode(positions - 1), prefill(4, encoder_len=positions + 1)):
        with pytest.raises(ScenarioError, match=f"always has {positions} positions"):
            annotate(model, scenario)


@pytest.mark.parametrize("config", [BART, SPEECH], ids=["bart", "speech_to_text"])
def test_a_length_that_nobody_gives_is_asked_for(config):
    for scenario in (prefill(4), decode(4), generation(4, steps=20)):
        with pytest.raises(ScenarioError, match="give encoder_len") as caught:
            annotate(load_model(config), scenario)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", [LlamaConfig, BertConfig])
def test_other_models_have_no_encoder_len(config):
    model = load_model(config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48))
    for scenario in (encode(4), prefill(4, encoder_len=4)):
        with pytest.raises(ScenarioError, match="no encoder-decoder model"):
            annotate(model, scenario)


def test_an_input_that_nobody_can_shape_is_refused():
    with pytest.raises((ScenarioError, TraceError), match="reads flattened_patches"):
        annotate(load_model(Pix2StructConfig()), encode(8))
