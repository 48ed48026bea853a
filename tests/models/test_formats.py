"""Storage formats against published checkpoints and the writers' own tensors."""

from __future__ import annotations

import pytest
import torch
from transformers.integrations.higgs import HiggsLinear

from fxmeter import deploy
from fxmeter.models.errors import DeploymentError, FxmeterError
from fxmeter.models.formats import (
    Parameter,
    Role,
    formats_of_config,
    kv_format,
    weight_format,
    weight_format_names,
    weight_formats,
)

OUT, IN = 4096, 14336


def matrix(path: str, role: Role = "linear") -> Parameter:
    """The weight of a module at ``path``."""
    return Parameter(f"{path}.weight", (OUT, IN), IN, role)


BYTES = [
    ("fp8", OUT * IN + 4),
    ("fp8-channel", OUT * IN + OUT * 2),
    ("fp8-block", OUT * IN + 32 * 112 * 4),
    ("fp8-block-bf16", OUT * IN + 32 * 112 * 2),
    ("int8", OUT * IN + OUT * 2),
    ("bnb-int8", OUT * IN + OUT * 4),
    ("mxfp4", OUT * IN // 2 + OUT * IN // 32),
    ("nvfp4", OUT * IN // 2 + OUT * IN // 16 + 8),
    ("int4", OUT * IN // 2 + OUT * 112 * 2 + 16),
    ("int4-asym-g32", OUT * IN // 2 + OUT * 448 * 2 + OUT * 448 // 2 + 16),
    ("gptq-int4", OUT * IN // 2 + 112 * OUT * 2 + 112 * OUT // 2 + IN * 4),
    ("awq-int4", OUT * IN // 2 + 112 * OUT * 2 + 112 * OUT // 2),
    ("nf4", OUT * IN // 2 + OUT * IN // 64 * 4 + 16 * 4),
    ("nf4-double", OUT * IN // 2 + OUT * IN // 64 + OUT * IN // 64 // 256 * 4 + (16 + 256) * 4),
    ("hqq-int4", OUT * IN // 2 + OUT * IN // 64 * (2 + 2)),
]


@pytest.mark.parametrize(("name", "expected"), BYTES, ids=[name for name, _ in BYTES])
def test_bytes_of_a_matrix(name, expected):
    item = weight_format(name)
    assert item.nbytes(OUT, IN) == expected
    assert sum(item.parts(OUT, IN).values()) == expected


@pytest.mark.parametrize("name", weight_format_names())
def test_every_format_is_smaller_than_sixteen_bits_and_no_smaller_than_its_weights(name):
    bits = weight_format(name).nbytes(OUT, IN) * 8 / (OUT * IN)
    assert 1 <= bits <= 9
    assert weight_format(name.upper()).nbytes(OUT, IN) == weight_format(name).nbytes(OUT, IN)


def test_odd_sizes_round_up_part_by_part():
    assert weight_format("fp8-block").nbytes(129, 257) == 129 * 257 + 2 * 3 * 4
    assert weight_format("mxfp4").nbytes(3, 33) == -(-3 * 33 // 2) + 3 * 2
    assert weight_format("int4-g128").nbytes(3, 130) == 3 * 17 * 4 + 3 * 2 * 2 + 16


BLOCKS = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
INT4 = "Int4WeightOnlyConfig"
METHODS = [
    (BLOCKS, "fp8-block"),
    ({"quant_method": "fp8"}, "fp8"),
    ({"quant_method": "gptq", "bits": 4, "group_size": 32}, "gptq-int4-g32"),
    ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}, "awq-int4-g128"),
    ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bnb-int8"),
    ({"quant_method": "bitsandbytes_4bit", "bnb_4bit_use_double_quant": True}, "nf4-double"),
    ({"quant_method": "torchao", "quant_type": {"default": {"_type": "Float8WeightOnlyConfig"}}}, "fp8-weight-only"),
    (
        {"quant_method": "torchao", "quant_type": {"default": {"_type": INT4, "_data": {"group_size": 32}}}},
        "torchao-int4-g32",
    ),
    ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "nf4"),
    ({"load_in_4bit": True, "bnb_4bit_use_double_quant": True}, "nf4-double"),
    ({"quant_method": "mxfp4"}, "mxfp4"),
    ({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}}, "hqq-int4-g64"),
    ({"quant_method": "quanto", "weights": "int4"}, "quanto-int4-g128"),
    ({"quant_method": "torchao", "quant_type": "int4_weight_only"}, "torchao-int4-g128"),
    ({"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnlyConfig"}}}, "int8-weight-only"),
    ({"quant_method": "bitnet"}, "bitnet"),
]


@pytest.mark.parametrize(("fields", "name"), METHODS, ids=[name for _, name in METHODS])
def test_a_config_names_its_format(fields, name):
    assert formats_of_config(fields).label == name


def scheme(**weights):
    more = {name: weights.pop(name) for name in ("input_activations",) if name in weights}
    group = {"targets": ["Linear"], "weights": weights, **more}
    return {"quant_method": "compressed-tensors", "ignore": ["lm_head"], "config_groups": {"group_0": group}}


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        (scheme(num_bits=4, type="int", strategy="group", group_size=128, symmetric=True), "int4-g128"),
        (scheme(num_bits=4, type="int", strategy="group", group_size=64, symmetric=False), "int4-asym-g64"),
        (scheme(num_bits=8, type="float", strategy="channel", input_activations={"dynamic": True}), "fp8-channel"),
        (scheme(num_bits=8, type="float", strategy="tensor", input_activations={"dynamic": False}), "fp8-static"),
        (scheme(num_bits=8, type="int", strategy="channel", input_activations={"dynamic": True}), "int8"),
        (scheme(num_bits=8, type="int", strategy="channel"), "int8-weight-only"),
        (scheme(num_bits=4, type="float", strategy="tensor_group", group_size=16, input_activations={}), "nvfp4a16"),
        (scheme(num_bits=4, type="float", strategy="tensor_group", group_size=16, input_activations={"a": 1}), "nvfp4"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_compressed_tensors_by_scheme(fields, name):
    formats = formats_of_config(fields)
    assert formats.label == name
    assert formats.of(matrix("lm_head", "head")) is None
    assert formats.of(matrix("model.layers.0.mlp.up_proj")) is not None


def test_which_modules_a_config_keeps():
    kept = formats_of_config({**BLOCKS, "modules_to_not_convert": ["gate", "model.layers.*.self_attn"]})
    for path, covered in (
        ("model.layers.3.mlp.gate", False),
        ("model.layers.3.mlp.gate_proj", True),
        ("model.layers.3.self_attn", False),
        ("model.layers.3.mlp.experts.gate_up_proj", True),
    ):
        assert (kept.of(matrix(path)) is not None) == covered, path
    assert kept.of(matrix("lm_head", "head")) is None
    ignored = formats_of_config({**scheme(num_bits=8, type="int"), "ignore": [r"re:.*\.experts\..*"]})
    assert ignored.of(matrix("model.layers.0.mlp.experts.3", "experts")) is None
    assert ignored.of(matrix("lm_head", "head")) is not None  # nothing keeps it


@pytest.mark.parametrize(
    "said", [{"kv_cache_scheme": {"num_bits": 8, "type": "float"}}, {"kv_cache_quant_algo": "FP8"}], ids=str
)
def test_a_checkpoint_with_scales_for_the_cache_says_its_format(said):
    assert formats_of_config({"quant_method": "modelopt", "quant_algo": "FP8", **said}).kv == kv_format("fp8")
    assert formats_of_config({"quant_method": "modelopt", "quant_algo": "FP8"}).kv is None


def test_experts_of_a_dtype_of_their_own():
    mixed = formats_of_config(BLOCKS, expert_dtype="fp4")
    assert mixed.of(matrix("model.layers.3.mlp.experts.gate_up_proj", "experts")).name == "mxfp4"
    assert mixed.of(matrix("model.layers.3.self_attn.o_proj")).name == "fp8-block"
    assert mixed.label == "mxfp4 and fp8-block"
    assert formats_of_config({**BLOCKS, "expert_dtype": "fp4"}).label == mixed.label


@pytest.mark.parametrize(
    ("said", "scale"),
    [
        ({}, 4),
        ({"scale_fmt": "float"}, 4),
        ({"scale_fmt": "ue8m0"}, 4),  # DeepSeek-V3.1 keeps its powers of two in float32
        ({"scale_fmt": "ue8m0", "expert_dtype": "fp4"}, 1),
        ({"scale_fmt": "ue8m0", "weight_block_size": [32, 32]}, 1),
    ],
    ids=str,
)
def test_scales_of_blocks(said, scale):
    item = formats_of_config({**BLOCKS, **said}).of(matrix("model.layers.3.self_attn.o_proj"))
    height, width = said.get("weight_block_size", (128, 128))
    assert item.nbytes(OUT, IN) == OUT * IN + OUT // height * IN // width * scale


def test_scales_of_an_unknown_kind_are_refused():
    with pytest.raises(DeploymentError, match="scale_fmt 'e5m2' is not priced; float and ue8m0 are"):
        formats_of_config({**BLOCKS, "scale_fmt": "e5m2"})


def test_a_scheme_for_named_modules_goes_before_that_of_the_class():
    """As compressed-tensors matches: names and expressions first, classes after them, whatever the order."""
    four, eight = ({"weights": {"num_bits": bits, "type": "int", "strategy": "channel"}} for bits in (4, 8))
    groups = {"group_0": {"targets": ["Linear"], **four}, "group_1": {"targets": ["re:.*down_proj$"], **eight}}
    formats = formats_of_config({"quant_method": "compressed-tensors", "config_groups": groups})
    for path, is_expert, name in (
        ("model.layers.0.mlp.down_proj", False, "int8-weight-only"),
        ("model.layers.0.mlp.up_proj", False, "int4-g1000000"),
        ("model.layers.0.mlp.experts.down_proj", True, "int8-weight-only"),
    ):
        assert formats.of(matrix(path, "experts" if is_expert else "linear")).name == name


@pytest.mark.parametrize("pattern", [r"re:.*\.experts\.\d+\.gate_proj$", "model.language_model.layers.0.mlp.experts"])
def test_stacked_experts_are_known_by_the_names_of_single_ones(pattern):
    formats = formats_of_config({**scheme(num_bits=8, type="int"), "ignore": [pattern]})
    path = "model.layers.0.mlp.experts.gate_up_proj"
    assert formats.of(matrix(path, "experts")) is None
    assert formats.of(matrix(path.replace("layers.0", "layers.1"), "experts")) is None or "re:" not in pattern


def of_linear(fields, path="model.layers.0.mlp.up_proj"):
    return formats_of_config(fields).of(matrix(path))


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}
FP8_QUARK = {"weight": {"dtype": "fp8_e4m3", "qscheme": "per_tensor"}, "input_tensors": {"is_dynamic": False}}
FP4_QUARK = {"weight": {"dtype": "fp4", "qscheme": "per_group", "group_size": 32}}
AQLM = {"quant_method": "aqlm", "nbits_per_codebook": 16, "num_codebooks": 1, "out_group_size": 1, "in_group_size": 8}
LAYOUTS = [
    # what a config says, bytes of a matrix 4096 x 14336 by the writer's own tensors
    ({**GPTQ, "checkpoint_format": "marlin"}, OUT * IN // 2 + 112 * OUT * 2),
    ({**GPTQ, "group_size": -1}, OUT * IN // 2 + OUT * 2 + OUT // 2 + IN * 4),
    ({**GPTQ, "dynamic": {r"+:.*up_proj": {"bits": 8}}}, OUT * IN + 112 * OUT * 3 + IN * 4),
    ({**GPTQ, "quant_method": "auto-round", "extra_config": {"model.layers.0": {"bits": 2}}},
     OUT * IN // 4 + 112 * OUT * 2 + 112 * OUT // 4 + IN * 4),
    ({"quant_method": "awq", "version": "gemv"}, OUT * IN // 2 + OUT * 14 * 8 * 2 + OUT * 14 * 4),
    ({"quant_method": "awq", "version": "gemv", "group_size": 64}, OUT * IN // 2 + OUT * 28 * 8 * 2 + OUT * 28 * 4),
    ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, OUT * IN // 2 + OUT * IN // 16 + 4 + 4),
    ({"quant_method": "modelopt", "quantization": {"quant_algo": "FP8"}}, OUT * IN + 4 + 4),
    ({"quant_method": "quark", "global_quant_config": FP8_QUARK}, OUT * IN + 4 + 4),
    ({"quant_method": "quark", "global_quant_config": FP4_QUARK}, OUT * IN // 2 + OUT * IN // 32),
    (AQLM, OUT * IN // 8 * 2 + 2**16 * 8 * 2 + OUT * 2),
    ({**AQLM, "nbits_per_codebook": 8, "num_codebooks": 2}, OUT * IN // 8 * 2 + 2 * 2**8 * 8 * 2 + OUT * 2),
    ({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 3, "group_size": 64}}},
     91_751 * 64 * 4 + OUT * IN // 64 * 4),
    (scheme(num_bits=8, type="float", strategy="tensor", input_activations={"dynamic": False}), OUT * IN + 2 + 2),
    (scheme(num_bits=8, type="float", strategy="tensor"), OUT * IN + 2),
    (scheme(num_bits=4, type="int", strategy="group", group_size=32, symmetric=False, actorder="group"),
     OUT * IN // 2 + OUT * 448 * 2 + OUT * 448 // 2 + IN * 4 + 16),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "expected"), LAYOUTS)
def test_bytes_of_a_layout(fields, expected):
    assert of_linear(fields).nbytes(OUT, IN) == expected


def test_what_a_method_leaves_out():
    gptq = formats_of_config({**GPTQ, "dynamic": {r"-:.*\.gate$": {}, r"-:.*shared": False}})
    assert gptq.of(matrix("model.layers.0.mlp.gate")) is None
    assert gptq.of(matrix("model.layers.0.mlp.shared_expert.up_proj")) is None
    assert of_linear({"quant_method": "modelopt", "quant_algo": "FP8", "exclude_modules": ["model.layers.0*"]}) is None
    assert of_linear({**AQLM, "linear_weights_not_to_quantize": ["model.layers.0.mlp.up_proj.weight"]}) is None
    no_weights = {"model.layers.*.up_proj": {"weight": None}}
    quark = {"quant_method": "quark", "global_quant_config": FP8_QUARK, "layer_quant_config": no_weights}
    assert of_linear(quark) is None


def test_matrices_that_cannot_be_packed_stay_as_they_are():
    """int32 of eight 4-bit values lie along the outputs: a gate with one output is none, nor are 48 outputs of GPTQ."""
    for name, rows, columns, packs in (
        ("gptq-int4", 1, 2048, False),
        ("gptq-int4", 48, 2048, False),
        ("gptq-int4", 64, 2048, True),
        ("awq-int4", 1, 2048, False),
        ("awq-int4", 8, 2048, True),
        ("nf4", 1, 2048, True),
    ):
        assert weight_format(name).takes(rows, columns) == packs, (name, rows)


BAD = [
    ({**GPTQ, "checkpoint_format": "bitblas"}, "'bitblas'"),
    ({"quant_method": "awq", "version": "gemv_fast"}, "'gemv_fast'"),
    ({"quant_method": "modelopt", "quant_algo": "W4A16_AWQ"}, "'W4A16_AWQ'"),
    ({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "int3", "qscheme": "per_group"}}}, "int3"),
    ({"quant_method": "auto-round", "data_type": "mx_fp"}, "'mx_fp'"),
    ({**scheme(num_bits=8, type="float"), "sparsity_config": {"format": "sparse-24-bitmask"}}, "sparse-24-bitmask"),
    ({**scheme(num_bits=4, type="int"), "format": "marlin-24"}, "marlin-24"),
    ({**scheme(num_bits=4, type="int"), "config_groups": {"g": {"targets": ["Embedding"], "weights": {"num_bits": 8}}}},
     "'Embedding'"),
    *(({"quant_method": name}, f"{name}.*Nearest is") for name in ("vptq", "spqr", "fp_quant", "sinq")),
    ({"quant_method": "higgs", "bits": 5}, "5 bits"),
    ({"quant_method": "bitsandbytes"}, "neither load_in_8bit nor load_in_4bit"),
    ({"quant_method": "zzz"}, "'zzz'.*--weights"),
    ({}, "quant_method None"),
    ({"quant_method": "gptq", "bits": 5}, "5 bits"),
    ({"quant_method": "gptq", "group_size": "many"}, "group_size must be"),
    ({"quant_method": "fp8", "weight_block_size": 128}, "two sizes"),
    ({"quant_method": "compressed-tensors"}, "without config_groups"),
    (scheme(num_bits=3, type="int"), "3 bits"),
    ({"quant_method": "torchao", "quant_type": "uintx"}, "'uintx'"),
    ({"quant_method": "torchao", "quant_type": "int8_dynamic_activation_int4_weight"}, "int4weight' are not priced"),
    ({"quant_method": "fp8", "kv_cache_scheme": {"num_bits": 3}}, "no KV format named 'int3'"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "said"), BAD, ids=[said for _, said in BAD])
def test_what_cannot_be_priced_is_refused_by_name(fields, said):
    with pytest.raises(DeploymentError, match=said):
        formats_of_config(fields)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_higgs_has_the_tensors_of_transformers_own_module(bits):
    module = HiggsLinear(512, 768, bits, bias=False, dtype=torch.bfloat16, device="meta", group_size=128)
    item = formats_of_config({"quant_method": "higgs", "bits": bits, "group_size": 128}).of(
        Parameter("model.layers.0.mlp.up_proj.weight", (768, 512), 512, "linear")
    )
    assert item.nbytes(768, 512) == sum(tensor.numel() * tensor.element_size() for tensor in module.parameters())
    assert not item.takes(768, 500)


def test_plain_dtypes_have_short_names():
    for short, name in (("bf16", "bfloat16"), ("FP16", "float16")):
        assert deploy(weights=short, kv=short) == deploy(weights=name, kv=name)


def test_a_deployment_refuses_what_it_does_not_know():
    for options, said in (
        ({"weights": "fp9"}, "did you mean fp8"),
        ({"kv": "int3"}, "there are"),
        ({"kernels": "fast"}, "kernels must be"),
        ({"tp": 0}, "at least 1"),
        ({"tp": 8, "ep": 2}, "no multiple of tp=8"),
        ({"ep": 8, "dp": 3}, "does not divide the 3 ranks"),
        ({"pp": 0}, "at least 1"),
        ({"weights": "int4-g0"}, "at least 1 weight"),
    ):
        with pytest.raises(FxmeterError, match=said):
            deploy(**options)


def test_kv_formats():
    assert kv_format("fp8").nbytes(128, 128) == 128
    assert kv_format("int4").nbytes(128, 128) == 64 + 2 + 2
    assert weight_formats("bfloat16").of(matrix("a")) is None
