"""Encoder-decoder models: FLOPs and cache equal those of a real small model, stage by stage."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
    MarianConfig,
    MT5Config,
    PegasusConfig,
    T5Config,
)

from fxmeter import annotate, closed_form, decode, encode, generation, load_model, prefill
from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.studies.axes import Axes
from fxmeter.annotators.studies.planning.capacity import capacity
from fxmeter.annotators.studies.planning.serving import Demand
from fxmeter.annotators.studies.sweep import StageForms, run_sweep
from fxmeter.models.devices import device
from fxmeter.models.errors import ScenarioError
from tests.tracer.run.test_encoder import BART, HEADS, SMALL, SPEECH, TROCR, WHISPER
from tests.tracer.tiny import LLAMA

T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 96}
CASES = {
    "t5": (T5Config(**T5), AutoModelForSeq2SeqLM, ("input_ids", (2, 11)), 11),
    "mt5": (MT5Config(**T5), AutoModelForSeq2SeqLM, ("input_ids", (2, 11)), 11),
    "bart": (BART, AutoModelForSeq2SeqLM, ("input_ids", (2, 11)), 11),
    "marian": (MarianConfig(**SMALL, **HEADS), AutoModelForSeq2SeqLM, ("input_ids", (2, 9)), 9),
    "pegasus": (PegasusConfig(**SMALL, **HEADS), AutoModelForSeq2SeqLM, ("input_ids", (2, 9)), 9),
    "whisper": (WHISPER, AutoModelForSpeechSeq2Seq, ("input_features", (2, 8, 40)), 20),
    "speech_to_text": (SPEECH, AutoModelForSpeechSeq2Seq, ("input_features", (2, 48, 6)), 12),
    "trocr": (TROCR, AutoModelForImageTextToText, ("pixel_values", (2, 3, 48, 48)), 10),
}
"""Type → config, transformers' own class, what the encoder is given, and how many positions that is."""


STUDIED = ("t5", "whisper", "trocr")
"""Of text, sound and pictures one each: sweeps and capacity see positions, not what the encoder is made of."""


@pytest.fixture(params=CASES, scope="module")
def case(request):
    config, auto, (name, shape), positions = CASES[request.param]
    real = auto.from_config(config, attn_implementation="eager").float().eval()
    given = torch.zeros(shape, dtype=torch.long if name == "input_ids" else torch.float32)
    return load_model(config, dtype="float32"), real, {name: given}, positions


def counted(call):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        out = call()
    return counter.get_total_flops(), out


def cached_bytes(cache):
    parts = (cache.self_attention_cache, cache.cross_attention_cache)
    return sum(t.nbytes for part in parts for layer in part.layers for t in (layer.keys, layer.values))


def test_each_stage_has_the_flops_and_the_cache_of_a_real_one(case):
    model, real, given, positions = case
    encoding, states = counted(lambda: real.get_encoder()(**given, return_dict=True))
    tokens = torch.zeros(2, 7, dtype=torch.long)
    prompt, out = counted(lambda: real(encoder_outputs=states, decoder_input_ids=tokens, use_cache=True))
    held = cached_bytes(out.past_key_values)
    step, after = counted(
        lambda: real(
            encoder_outputs=states,
            decoder_input_ids=tokens[:, :1],
            past_key_values=out.past_key_values,
            use_cache=True,
        )
    )
    expected = [
        (encode(positions, batch=2), encoding, 0),
        (prefill(7, batch=2, encoder_len=positions), prompt, held),
        (decode(7, batch=2, encoder_len=positions), step, cached_bytes(after.past_key_values)),
    ]
    weights = sum(parameter.nbytes for parameter in real.parameters())
    for scenario, flops, kv in expected:
        for attention in ("eager", "flash"):
            stage = annotate(model, scenario, attention=attention)
            assert stage.cost.matmul_flops == flops > 0
            assert stage.cost.kv_bytes == kv == sum(layer.bytes for layer in stage.kv_cache)
            assert stage.cost.weight_bytes == weights
            assert not stage.uncosted


def test_folded_is_full(case):
    model, _, _, positions = case
    for scenario in (encode(positions), prefill(7, encoder_len=positions), decode(7, encoder_len=positions)):
        folded, full = annotate(model, scenario), annotate(model, scenario, fold=False)
        assert folded.cost == full.cost
        for path, module in full.modules.items():
            assert without_levels(folded.modules[path].cost) == without_levels(module.cost)


def without_levels(cost):
    """A cost without its peaks: that of a module which stands for others is the highest of theirs."""
    return replace(cost, peak_activation_bytes=0, ideal_peak_activation_bytes=0)


@pytest.mark.slow
def test_a_closed_form_is_a_pass(case):
    model, _, _, positions = case
    for stage, scenario in (
        ("prefill", prefill(9, encoder_len=positions)),
        ("decode", decode(9, encoder_len=positions)),
    ):
        form = closed_form(model, stage=stage, encoder_len=positions)
        cost = form.at(batch=1, query_len=scenario.query_len, past_len=scenario.past_len)
        assert cost == annotate(model, scenario).cost


def test_the_encoders_output_is_cached_once_and_only_read_afterwards():
    model, width, layers = load_model(BART, dtype="float32"), 32 * 4, 2
    first, next_ = (annotate(model, s) for s in (prefill(7, encoder_len=11), decode(7, encoder_len=11)))
    assert first.cost.kv_write_bytes == layers * 2 * (7 + 11) * width
    assert next_.cost.kv_write_bytes == layers * 2 * 1 * width
    assert next_.cost.kv_read_bytes == layers * 2 * (8 + 11) * width
    cross = next_.modules["model.decoder.layers.0.encoder_attn"]
    assert cross.cost.kv_bytes == 2 * 11 * width
    assert cross.cost.matmul_flops == 2 * 2 * 32 * 32 + 2 * 2 * 32 * 11  # q, o; scores, weighted values: no k, no v
    assert {layer.kind for layer in next_.kv_cache} == {"DynamicLayer, self-attention", "DynamicLayer, cross-attention"}


def test_every_position_of_an_encoder_attends_to_all():
    model = load_model(BART)
    full, exact = (annotate(model, encode(11), causal=causal).cost for causal in ("full", "exact"))
    assert full == exact
    crossing = [annotate(model, decode(7, encoder_len=11), causal=causal).cost for causal in ("full", "exact")]
    assert crossing[0] == crossing[1]


def test_many_steps_are_the_sum_of_each():
    model = load_model(BART)
    steps = [annotate(model, decode(past, encoder_len=11)).cost for past in range(3, 12)]
    cost = annotate(model, generation(3, steps=9, encoder_len=11)).cost
    assert cost.matmul_flops == sum(step.matmul_flops for step in steps)
    assert cost.kv_bytes == steps[-1].kv_bytes


def test_the_encoder_has_a_form_in_the_batch_at_its_length(case):
    model, _, _, positions = case
    form = closed_form(model, stage="encode", encoder_len=positions, attention="eager")
    assert form.reason is None
    for batch in (1, 2, 5, 640):
        assert form.at(batch=batch) == annotate(model, encode(positions, batch=batch), attention="eager").cost
    timed = annotate(model, encode(positions, batch=3), attention="eager").time("h100")
    assert form.time("h100", batch=3).estimate_s == pytest.approx(timed.estimate_s, rel=1e-12)
    with pytest.raises(ScenarioError, match=f"this form is of {positions} positions of the encoder"):
        form.at(batch=1, query_len=positions + 1)


def test_a_model_without_an_encoder_has_no_such_form():
    with pytest.raises(ScenarioError, match="no encoder-decoder model: it has no encode stage"):
        closed_form(load_model(LLAMA), stage="encode")


@pytest.mark.parametrize(
    "case",
    [name if name in STUDIED else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
    indirect=True,
)
def test_a_sweep_and_a_capacity_report_add_the_encoder_to_the_prompt(case):
    model, _, _, positions = case
    forms = StageForms.of_model(model, encoder_len=positions, conventions=Conventions(logits="all"))
    axes = Axes(prefill=(5,), batch=(2,), steps=(3,), encoder_len=positions)
    scenarios = (encode(positions, batch=2), prefill(5, batch=2, encoder_len=positions))
    scenarios += (generation(5, steps=3, batch=2, encoder_len=positions),)
    costs = [annotate(model, scenario).cost for scenario in scenarios]
    (found,) = run_sweep(forms, axes, attentions=("flash",)).figures
    assert [figures.cost for figures in found] == costs
    need = capacity(forms, axes, ttft_s=2.0, demand=Demand(devices=(device("h100"),))).needs[0]
    assert need.ttft.tflops == (costs[0].flops + costs[1].flops) / 2.0 / 1e12
    assert need.memory.kv_bytes == costs[2].kv_bytes
    first = sum(annotate(model, one, causal="exact").time("h100").estimate_s for one in scenarios[:2])
    assert need.on[0].reached.ttft.estimate_s == pytest.approx(first, rel=1e-12)
    alone = Axes(decode=(5,), batch=(2,), steps=(3,), encoder_len=positions)
    (only,) = run_sweep(forms, alone, attentions=("flash",)).figures
    assert [figures.cost for figures in only] == costs[2:]


@pytest.mark.parametrize(("logits", "left"), [("last", 6), ("none", 7)])
def test_a_head_that_cannot_be_told_which_positions_gets_those_alone(case, logits, left):
    model, _, _, positions = case
    head = model.get_output_embeddings()
    scenario = prefill(7, batch=2, encoder_len=positions)
    whole, part = (annotate(model, scenario, logits=kept).cost for kept in ("all", logits))
    assert whole.matmul_flops - part.matmul_flops == 2 * 2 * left * head.in_features * head.out_features
    assert whole.kv_bytes == part.kv_bytes
