"""Weights and cache as deployed, against published checkpoint sizes."""

from __future__ import annotations

import json

import pytest
from transformers import AutoConfig

from fxmeter import annotate, closed_form, decode, load_model, prefill
from fxmeter.annotators.stages.model_info import model_info
from fxmeter.models.deployment import deploy
from fxmeter.models.errors import DeploymentError
from tests.tracer.tiny import DEEPSEEK
from validation.coverage_type import compare_folding

LAYERS, HIDDEN, KV, FFN, VOCABULARY = 32, 4096, 1024, 14336, 128256  # of Llama-3.1-8B
ELEMENTS = LAYERS * (2 * HIDDEN * HIDDEN + 2 * HIDDEN * KV + 3 * HIDDEN * FFN)
OUTPUTS = LAYERS * (2 * HIDDEN + 2 * KV + 2 * FFN + HIDDEN)
INPUTS = LAYERS * (6 * HIDDEN + FFN)
REST = 2 * 2 * VOCABULARY * HIDDEN + 2 * (2 * LAYERS + 1) * HIDDEN
"""Embedding, head and norms, in bfloat16."""

PUBLISHED = [
    # preset, format, tensor bytes of the public checkpoint
    ("llama-3.1-8b", "bfloat16", 16_060_522_496),
    ("llama-3.1-8b", "fp8-channel", 9_083_953_152),
    ("llama-3.1-8b", "gptq-int4-biased", 5_735_587_840),
    ("gpt-oss-120b", None, 65_248_815_744),
    ("gpt-oss-20b", None, 13_761_264_768),
    ("qwen2.5-72b", None, 145_412_407_296),
]


@pytest.mark.parametrize(("name", "weights", "expected"), PUBLISHED, ids=lambda value: str(value))
def test_tensor_bytes_equal_the_published_checkpoint(preset_model, name, weights, expected):
    stage = annotate(preset_model(name), decode(16), deployment=deploy(weights=weights))
    assert stage.cost.weight_bytes == expected


def test_tensor_bytes_of_a_published_awq_checkpoint(preset_model):
    """DeepSeek-V3 in groups of 64: beside what is priced the file has 256 correction biases of 58 layers in 16 bits."""
    deployed = annotate(preset_model("deepseek-v3"), decode(1), deployment=deploy(weights="awq-int4-g64"))
    assert deployed.cost.weight_bytes + 58 * 256 * 2 == 364_589_799_936


def test_where_the_bytes_of_a_w4a16_checkpoint_are(preset_model):
    """Llama-3.1-8B W4A16: over int4 weights, 16-bit scales and an order, it has packed zero points and a 16-bit bias
    for every output; the shapes that compressed-tensors keeps are not in it: together 30,011,904 bytes."""
    groups = ELEMENTS // 128
    plain = ELEMENTS // 2 + groups * 2 + INPUTS * 4 + 16 * 7 * LAYERS + REST
    assert groups // 2 + OUTPUTS * 2 - 16 * 7 * LAYERS == 30_011_904
    stage = annotate(preset_model("llama-3.1-8b"), decode(16), deployment=deploy(weights="gptq-int4-biased"))
    assert stage.cost.weight_bytes == plain + 30_011_904


def test_deepseek_v3_in_fp8_with_its_extra_layer():
    """Published: 688,574,839,360 bytes of tensors. 61 layers and one that predicts a second token: a MoE layer, two
    norms, a projection of two hidden states in bfloat16, a norm, and embedding and head again, which run as one."""
    plain, model = load_model("deepseek-v3"), load_model("deepseek-v3", mtp=True)
    info = model_info(model)
    assert info.checkpoint_bytes == 688_574_839_360
    assert (info.further_layers, info.left_out) == (1, ())
    hidden, vocabulary, layers, experts = 7168, 129280, 58 + 1, 256
    biases = 4 * layers * experts  # of the routers, float32, in transformers buffers
    assert info.checkpoint_bytes - info.weight_bytes == 2 * 2 * vocabulary * hidden + biases
    layer = annotate(plain, decode(16)).modules["model.layers.60"].cost.weight_bytes
    more = layer + 2 * (2 * hidden * hidden) + 3 * 2 * hidden
    assert info.weight_bytes - model_info(plain).weight_bytes == more


def test_deepseek_v4_with_experts_in_fp4():
    """Published for V4-Pro: 864,704,792,696 bytes of tensors, of 61 layers and one that predicts a second token. FP8 in
    blocks with one byte of scale, experts in FP4 with one byte for 32, what compresses the cache in bfloat16. Norms are
    bfloat16 in the file, and float32 as transformers runs them."""

    def fp8(rows: int, columns: int) -> int:
        return rows * columns + -(-rows // 128) * -(-columns // 128)

    hidden, heads, head, q_rank, o_rank, groups, inner, experts, streams = 7168, 128, 512, 1536, 1024, 16, 3072, 384, 4
    attention = fp8(q_rank, hidden) + fp8(heads * head, q_rank) + fp8(head, hidden) + heads * 4  # and sinks
    attention += fp8(groups * o_rank, heads * head // groups) + fp8(hidden, groups * o_rank)
    router = experts * hidden * 2 + experts * 4
    feed_forward = 3 * fp8(inner, hidden) + experts * 3 * inner * hidden * (16 + 1) // 32
    of_streams = ((2 + streams) * streams * streams * hidden + (2 + streams) * streams + 3) * 4
    norms = (2 * hidden + q_rank + head) * 2
    further = 2 * fp8(hidden, hidden) + 3 * hidden * 2 + (streams * streams * hidden + streams + 1) * 4
    predicting = attention + router + feed_forward + 2 * of_streams + norms + further
    widened = 2 * (61 * (2 * hidden + q_rank + head) + 61 * head + 30 * 128 + hidden)  # 30 layers have an indexer
    info = model_info(load_model("deepseek-v4-pro"))
    assert info.weights == "mxfp4 and fp8-block-ue8m0"
    assert info.checkpoint_bytes - widened + predicting == 864_704_792_696


KEPT_AS_THEY_ARE = [
    ["lm_head", r"re:.*layers\.2\..*"],
    ["lm_head", "model.layers.0.mlp.down_proj"],
    ["lm_head", "model.layers.3.self_attn.q_proj", "model.layers.1.self_attn.q_proj"],
]


@pytest.mark.parametrize("kept", KEPT_AS_THEY_ARE, ids=str)
@pytest.mark.parametrize("tp", [1, 2])
def test_layers_that_are_stored_differently_are_no_layers_alike(kept, tp):
    """A checkpoint may leave single layers as they are: folded, each weight has the bytes of its own format."""
    scheme = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}
    quantised = {"quant_method": "compressed-tensors", "ignore": kept, "config_groups": {"group_0": scheme}}
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = {"model_type": "llama", "num_hidden_layers": 4, "vocab_size": 128, **sizes}
    model = load_model({**config, "quantization_config": quantised})
    folded, full = (annotate(model, decode(9), fold=fold, deployment=deploy(tp=tp)) for fold in (None, False))
    assert compare_folding(folded, full) == "equal"
    expected = 0
    for path, parameter in model.named_parameters():
        kept_here = "proj" not in path or any(
            f"{name}.weight" == path or (name.startswith("re:") and "layers.2." in path) for name in kept
        )
        split = 1 if "norm" in path else tp
        rows = parameter.shape[0] // (1 if any(name in path for name in ("o_proj", "down_proj")) else split)
        expected += parameter.nbytes // split if kept_here else parameter.numel() // split + 2 * rows
    assert folded.cost.weight_bytes == expected


def test_a_checkpoint_that_keeps_its_cache_in_fp8_is_priced_so():
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = {"model_type": "llama", "num_hidden_layers": 2, "vocab_size": 128, **sizes}
    quantised = {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "ignore": ["lm_head"]}
    model = load_model({**config, "quantization_config": quantised})
    tokens, keys_and_values = 10, 2 * 2 * 2 * 16
    assert annotate(model, decode(9)).cost.kv_bytes == tokens * keys_and_values
    by_hand = annotate(model, decode(9), deployment=deploy(kv="bfloat16")).cost
    assert by_hand.kv_bytes == 2 * tokens * keys_and_values
    as_coded = annotate(model, decode(9), deployment=deploy(weights="bfloat16")).cost
    assert as_coded.kv_bytes == by_hand.kv_bytes


def test_decode_reads_what_is_stored(preset_model):
    """All matrices are read whole at decode; of the embedding one row, the head as it is."""
    read = {
        name: annotate(preset_model("llama-3.1-8b"), decode(4096), deployment=deploy(weights=name)).cost
        for name in ("bfloat16", "fp8-channel")
    }
    saved = read["bfloat16"].weight_read_bytes - read["fp8-channel"].weight_read_bytes
    assert saved == ELEMENTS - 2 * OUTPUTS
    assert read["bfloat16"].matmul_flops == read["fp8-channel"].matmul_flops
    assert read["bfloat16"].activation_bytes == read["fp8-channel"].activation_bytes


@pytest.mark.parametrize(("kv", "bits", "extra"), [("fp8", 8, 0), ("int8", 8, 2), ("int4", 4, 4)])
@pytest.mark.parametrize("attention", ["eager", "flash"])
def test_the_cache_is_kept_read_and_written_in_its_format(preset_model, kv, bits, extra, attention):
    model, context = preset_model("llama-3.1-8b"), 1000
    plain, stored = (
        annotate(model, decode(context, batch=2), attention=attention, deployment=deploy(kv=name)).cost
        for name in (None, kv)
    )
    vectors = 2 * LAYERS * 2 * 8  # keys and values, layers, sequences, heads, for each token
    assert plain.kv_bytes == vectors * (context + 1) * 128 * 2
    assert stored.kv_bytes == vectors * (context + 1) * (128 * bits // 8 + extra)
    assert stored.kv_write_bytes == vectors * (128 * bits // 8 + extra)
    assert stored.kv_read_bytes * plain.kv_bytes == plain.kv_read_bytes * stored.kv_bytes
    assert stored.weight_read_bytes == plain.weight_read_bytes


@pytest.mark.parametrize("name", ["gpt-oss-20b", "deepseek-v3"])
def test_closed_forms_know_the_format(preset_model, name):
    model, deployment = preset_model(name), deploy(kv="fp8")
    form = closed_form(model, deployment=deployment)
    for batch, context in ((1, 77), (3, 4000)):
        expected = annotate(model, decode(context, batch=batch), deployment=deployment).cost
        assert form.at(batch=batch, past_len=context) == expected


@pytest.mark.parametrize(
    "deployment",
    [
        deploy(weights="fp8-block", kv="int4", kernels="serving"),
        pytest.param(deploy(weights="int4-g64", kv="int8"), marks=pytest.mark.slow),
        pytest.param(deploy(weights="nf4", kv="fp8", kernels="serving"), marks=pytest.mark.slow),
    ],
    ids=lambda deployment: " ".join(deployment.asked.values()),
)
def test_a_closed_form_is_annotate_in_every_field_and_module(deployment):
    model = load_model(AutoConfig.for_model(**DEEPSEEK))
    points = {"prefill": [(3, 17, 40)], "decode": [(1, 1, 7), (19, 3, 123)]}
    for stage, make in (("prefill", prefill), ("decode", decode)):
        form = closed_form(model, stage=stage, deployment=deployment)
        for batch, query_len, past_len in points[stage]:
            sizes = {"batch": batch, "query_len": query_len, "past_len": past_len}
            annotated = annotate(model, make(**sizes), deployment=deployment)
            for path, module in annotated.modules.items():
                assert form.modules[path].at(**sizes) == module.cost, (path, sizes)


def test_a_paged_cache_is_resident_in_whole_pages(preset_model):
    """Pages of 16 tokens for 100 and one cached ones: 7 of them, for each sequence; reads and writes are as before."""
    model, token = preset_model("llama-3.1-8b"), 2 * LAYERS * 8 * 128
    plain = annotate(model, decode(100, batch=3)).cost
    for kv, nbytes in ((None, 2), ("fp8", 1)):
        paged = annotate(model, decode(100, batch=3), deployment=deploy(kv=kv, page_size=16))
        assert paged.cost.kv_bytes == 3 * 7 * 16 * token * nbytes
        assert sum(layer.bytes for layer in paged.kv_cache) == paged.cost.kv_bytes == paged.cost.kv_storage_bytes
        assert paged.cost.kv_read_bytes * 2 == plain.kv_read_bytes * nbytes


def test_a_window_takes_one_page_more_once_it_slides(preset_model):
    """gpt-oss: 12 layers keep all tokens, 12 the 127 before the next one: 8 pages of 16, and one that it began in."""
    model, token = preset_model("gpt-oss-20b"), 2 * 8 * 64 * 2
    paged = deploy(page_size=16)
    assert annotate(model, decode(4096), deployment=paged).cost.kv_bytes == 12 * (257 + 9) * 16 * token
    assert annotate(model, decode(60), deployment=paged).cost.kv_bytes == 24 * 4 * 16 * token
    form = closed_form(model, deployment=paged)
    for context in (60, 126, 127, 4096, 5000):
        expected = annotate(model, decode(context, batch=2), deployment=paged).cost
        assert form.at(batch=2, past_len=context) == expected


def test_time_follows_the_format(preset_model):
    """FP8 weights multiply in FP8 and are half the traffic; 4-bit ones multiply in 16 bits."""
    model = preset_model("llama-3.1-8b")
    times = {
        name: annotate(model, prefill(2048), logits="last", deployment=deploy(weights=name)).time("h100").estimate_s
        for name in ("bfloat16", "fp8-channel", "int4")
    }
    assert times["fp8-channel"] < 0.65 * times["bfloat16"]
    assert 0.95 * times["bfloat16"] < times["int4"] < 1.01 * times["bfloat16"]
    steps = {
        name: annotate(model, decode(64), deployment=deploy(weights=name)).time("h100").estimate_s
        for name in ("bfloat16", "fp8-channel", "int4")
    }
    assert steps["int4"] < steps["fp8-channel"] < 0.7 * steps["bfloat16"]


def test_an_unknown_method_is_refused_unless_a_format_is_given_by_hand(run, tmp_path):
    from transformers import LlamaConfig

    config = LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2, vocab_size=64
    )
    config.quantization_config = {"quant_method": "zzz"}
    model = load_model(config)
    with pytest.raises(DeploymentError, match="zzz"):
        annotate(model, decode(8))
    with pytest.raises(DeploymentError, match="zzz"):
        closed_form(model).at(past_len=8)
    given = annotate(model, decode(8), deployment=deploy(weights="bfloat16"))
    assert given.cost.weight_bytes == sum(parameter.nbytes for parameter in model.parameters())
    (tmp_path / "config.json").write_text(
        json.dumps({**config.to_dict(), "quantization_config": {"quant_method": "zzz"}})
    )
    options = ("report", tmp_path, "--decode", 8, "--attention", "flash", "--json")
    assert "zzz" in run(*options).stderr
    model_line = json.loads(run(*options, "--weights", "bfloat16").stdout)["model"]
    assert model_line["weight_bytes"] == given.cost.weight_bytes


def test_a_kv_format_says_which_states_keep_their_bytes():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 40}
    states = load_model({"model_type": "mamba", "state_size": 8, **sizes})
    plain, stored = (annotate(states, decode(9), deployment=deploy(kv=kv)) for kv in (None, "fp8"))
    assert stored.cost.kv_bytes == plain.cost.kv_bytes > 0
    (told,) = set(stored.assumptions) - set(plain.assumptions)
    assert "conv_states" in told and "recurrent_states" in told and "keep their own bytes" in told
    attention = load_model({"model_type": "llama", "intermediate_size": 48, "num_attention_heads": 4, **sizes})
    assert annotate(attention, decode(9), deployment=deploy(kv="fp8")).assumptions == ()
