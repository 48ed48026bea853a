"""Two independent opinions: the trace and the hand-written models, module by module."""

from __future__ import annotations

import json
import sys

import pytest
from transformers import AutoConfig

from fxmeter import deploy, load_model
from fxmeter.annotators import annotate
from fxmeter.annotators.cli.main import main
from fxmeter.annotators.studies.comparing.crosscheck import BANDS, VISION_BANDS, check_decoder, check_vision
from fxmeter.models import decode, prefill, vision
from fxmeter.models.errors import ScenarioError
from fxmeter.models.hand.hand_written import hand_written_model
from fxmeter.models.hand.vision_tower import DeepseekOCRVision
from fxmeter.models.presets import preset
from fxmeter.models.stage_cost import FIELDS
from fxmeter.tracer.load.vision import build_vision
from tests.tracer.tiny import LLAMA

SERVING = deploy(kernels="serving")
DECODERS = ["deepseek-ocr", "deepseek-v2-lite", "deepseek-v2", "deepseek-v3", "llama-2-7b", "llama-3.1-8b"]
PASSES = [prefill(1), prefill(64, batch=8), prefill(1024), decode(0, batch=8), decode(1024), decode(8192, batch=8)]
OTHER_PASSES = [
    prefill(1, batch=8),
    prefill(64),
    prefill(1024, batch=8),
    decode(0),
    decode(1024, batch=8),
    decode(8192),
]


@pytest.fixture(scope="module")
def tower():
    return build_vision()


@pytest.mark.parametrize("passes", [PASSES, pytest.param(OTHER_PASSES, marks=pytest.mark.slow)], ids=["some", "others"])
@pytest.mark.parametrize("attention", ["eager", "flash"])
@pytest.mark.parametrize("name", DECODERS)
def test_every_module_of_every_decoder_agrees(preset_model, name, attention, passes):
    config = preset(name).config
    for scenario in passes:
        check = check_decoder(preset_model(name), config, scenario, attention)
        assert check.failures == (), scenario
        assert check.written_within == ()
        assert {row.path for row in check.rows} >= {"", "model", "model.layers.0.self_attn.o_proj", "lm_head"}


@pytest.mark.parametrize("name", ["deepseek-ocr", "deepseek-v2-lite", "deepseek-v3", "llama-3.1-8b"])
def test_every_module_agrees_as_an_engine_runs_it(preset_model, name):
    """Latent attention absorbed in decode, the pairs of a causal mask, the last logits."""
    for scenario in (prefill(1), prefill(100, past_len=50, batch=8), decode(0), decode(8192, batch=8)):
        check = check_decoder(preset_model(name), preset(name).config, scenario, "flash", SERVING)
        assert check.failures == (), scenario
        assert check.stage.conventions.causal == "exact"
        assert check.written_within == ()


def test_formats_are_refused_since_nobody_has_written_them(preset_model):
    config = preset("llama-2-7b").config
    for deployment in (deploy(weights="fp8"), deploy(kv="fp8")):
        with pytest.raises(ScenarioError, match="one dtype; leave --weights and --kv out"):
            check_decoder(preset_model("llama-2-7b"), config, decode(8), "flash", deployment)


@pytest.mark.parametrize("scenario", [prefill(64), decode(50, batch=3)], ids=["prefill", "decode"])
def test_flash_and_the_hand_are_equal_at_any_size(preset_model, scenario):
    """Llama has no routing: nothing is left between the two, of a model of 8 billion parameters or of 12,912."""
    small = load_model(AutoConfig.for_model(**LLAMA))
    for model, config in ((preset_model("llama-3.1-8b"), preset("llama-3.1-8b").config), (small, LLAMA)):
        check = check_decoder(model, config, scenario, "flash")
        assert [(row.path, row.field) for row in check.rows if row.difference] == []


def test_every_term_between_eager_and_the_hand_is_named(preset_model):
    """softmax(dtype=float32) first copies the masked scores to float32, 4 bytes a pair beside the 12 listed by hand;
    with more than one sequence the rotated queries are laid out anew for the product, and so is its result after it."""
    batch, heads, length, head_dim = 2, 32, 512, 128
    scenario = prefill(length, batch=batch)
    check = check_decoder(preset_model("llama-2-7b"), preset("llama-2-7b").config, scenario, "eager")
    row = check.by_module()["model.layers.0.self_attn"]["activation_bytes"]
    float32_copy = 4 * batch * heads * length * length
    layout_copy = 2 * batch * length * heads * head_dim
    assert row.difference == float32_copy + 2 * layout_copy


@pytest.mark.parametrize("attention", ["eager", "flash"])
@pytest.mark.parametrize("crops", [(0, 0), (1, 2), (3, 3), (2, 4)])
def test_every_module_of_the_vision_tower_agrees(tower, crops, attention):
    check = check_vision(tower, vision(crops=crops, batch=2), attention)
    assert check.failures == ()
    assert check.written_within == ("clip.embeddings.patch_embedding", "clip.embeddings.position_embedding")


@pytest.mark.parametrize("count", range(10))
def test_vision_flops_are_linear_in_the_crops(tower, count):
    written = DeepseekOCRVision()
    traced = annotate(tower, vision(crops=(1, count) if count else (0, 0))).cost.matmul_flops
    whole, one = written.cost(1).matmul_flops, written.cost(1, 1, 1).matmul_flops
    assert traced == whole + count * (one - whole)
    if count:
        assert annotate(tower, vision(crops=(count, 1))).cost.matmul_flops == traced


def test_every_band_is_needed_and_no_wider_than_a_tenth_above_what_is_seen(preset_model, tower):
    """A band that nothing comes near would hide a mistake."""
    seen: dict[tuple, list[float]] = {}
    for name in ("deepseek-ocr", "deepseek-v2", "deepseek-v3", "llama-2-7b"):
        for attention in ("eager", "flash"):
            for scenario in (prefill(1), prefill(1024), decode(8192, batch=8)):
                for row in check_decoder(preset_model(name), preset(name).config, scenario, attention).rows:
                    if row.band not in (None, (1.0, 1.0)):
                        seen.setdefault(row.band, []).append(row.ratio)
    for name in ("deepseek-v2", "deepseek-v3"):
        for scenario in (decode(8192), decode(8192, batch=256)):
            for row in check_decoder(preset_model(name), preset(name).config, scenario, "flash", SERVING).rows:
                if row.band not in (None, (1.0, 1.0)):
                    seen.setdefault(row.band, []).append(row.ratio)
    for attention in ("eager", "flash"):
        for crops in ((0, 0), (1, 2), (3, 3)):
            for row in check_vision(tower, vision(crops=crops), attention).rows:
                if row.band not in (None, (1.0, 1.0)):
                    seen.setdefault(row.band, []).append(row.ratio)
    assert set(seen) == {*BANDS.values(), *VISION_BANDS.values()}
    for (low, high), ratios in seen.items():
        widest = max(high - 1, 1 - low)
        farthest = max(max(ratios) - 1, 1 - min(ratios))
        assert widest < 1.5 * farthest + 0.001, (low, high)


@pytest.fixture
def run(monkeypatch, capsys):
    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["fxmeter", "crosscheck", *arguments])
        with pytest.raises(SystemExit) as exit:
            main()
        printed = capsys.readouterr()
        return exit.value.code, printed.out, printed.err

    return command


def test_the_command_says_that_everything_holds(run):
    code, out, err = run("--all")
    assert (code, err) == (0, "")
    assert "exact quantities are equal to the unit" in out
    for title in ("vision 1x2 crops, eager", "prefill S=1024, flash", "decode C=1024, flash"):
        assert title in out
    assert max(map(len, out.splitlines())) <= 100


def test_json(run):
    code, out, _ = run("llama-2-7b", "--prefill", "8", "--decode", "8", "--json")
    data = json.loads(out)
    assert code == 0
    assert data["ok"] is True
    assert data["analytic_model_version"]
    assert [(s["stage"], s["attention"]) for s in data["stages"]] == [
        ("prefill", "eager"),
        ("decode", "eager"),
        ("prefill", "flash"),
        ("decode", "flash"),
    ]
    layer = next(m for m in data["stages"][0]["modules"] if m["path"] == "model.layers.0")
    assert layer["times"] == 32
    flops = layer["fields"]["matmul_flops"]
    assert flops["traced"] == flops["hand_written"]
    assert flops["difference"] == 0
    assert flops["band"] is None
    assert layer["fields"]["activation_bytes"]["band"] == [1.0, 4 / 3]


def test_the_command_takes_serving_kernels(run):
    code, out, _ = run("deepseek-v2-lite", "--kernels", "serving", "--prefill", "8", "--decode", "8")
    assert code == 0
    assert "eager" not in out


def test_a_broken_formula_exits_1_and_names_the_first_difference(run, monkeypatch):
    from fxmeter.models.hand.layer import RMSNorm

    honest = RMSNorm.own

    def broken(self, batch, query_len, kv_len):
        cost = honest(self, batch, query_len, kv_len)
        return type(cost)(**{f: getattr(cost, f) + (f == "vector_flops") for f in FIELDS})

    monkeypatch.setattr(RMSNorm, "own", broken)
    code, out, err = run("llama-2-7b", "--prefill", "8", "--decode", "8")
    assert code == 1
    assert "comparisons do not hold, the first: (root) vector_flops: traced" in err
    assert "exact quantities are equal" in out


def test_a_model_that_nobody_has_written_is_one_line(run):
    code, out, err = run("qwen3-8b")
    assert (code, out) == (1, "")
    assert err.startswith("fxmeter: no hand-written layer models for model_type 'qwen3'; there are some for llama,")
    assert len(err.splitlines()) == 1


def test_absorbed_latent_attention_costs_a_sixtieth(preset_model):
    """DeepSeek-V3, one token at 4,096 cached: transformers expands the latent cache, a serving kernel does not."""
    from fxmeter.models.hand.deepseek import DeepseekModel

    config = preset("deepseek-v3").config
    executed = hand_written_model(config, attention="flash", element_bytes=2).cost(1, 1, 4097)
    absorbed = DeepseekModel.from_config(config, attention="flash", absorbed=True).cost(1, 1, 4097)
    assert executed.matmul_flops == annotate(preset_model("deepseek-v3"), decode(4096)).cost.matmul_flops
    expanded = 61 * 2 * 4097 * 512 * 128 * (128 + 128)  # kv_b_proj on every cached token: 8.4 TFLOP
    assert round(expanded / 1e12, 1) == 8.4
    assert executed.matmul_flops > expanded
    assert round(absorbed.matmul_flops / 1e12, 2) == 0.14
