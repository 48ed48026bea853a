"""GGUF files, against the sizes of public ones."""

from __future__ import annotations

import pytest

from fxmeter import annotate, decode, deploy, load_model
from fxmeter.models.errors import DeploymentError
from fxmeter.models.formats import Parameter, weight_formats
from validation.coverage_type import compare_folding

QWEN3_06B = {
    "model_type": "qwen3",
    "vocab_size": 151_936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}
TENSOR_BYTES = {
    # of the tensors in public files of Qwen3-0.6B: the files' sizes less 5,952,192 bytes of header, the same in each
    "q8_0": 633_495_552,
    "q6_k": 489_155_584,
    "q5_k_m": 438_463_488,
    "q5_k_s": 430_664_704,
    "q4_k_m": 390_753_280,
    "q4_k_s": 377_318_400,
    "q3_k_m": 341_175_296,
    "q3_k_s": 317_123_584,
    "q2_k": 290_286_592,
}
FILES = [
    # preset, file, bytes of a public file, of which the vocabulary's pieces and the header are 0.5 to 13.1 MB
    ("llama-2-7b", "q4_0", 3_825_806_912),
    ("llama-2-7b", "q4_k_m", 4_081_004_224),
    ("llama-2-7b", "q5_k_m", 4_783_156_928),
    ("llama-2-7b", "q8_0", 7_161_089_728),
    ("llama-3.1-8b", "q4_k_m", 4_920_739_232),
    ("gpt-oss-20b", "mxfp4_moe", 12_109_566_560),
    ("gpt-oss-120b", "mxfp4_moe", 63_387_346_464),
]


@pytest.fixture(scope="module")
def qwen():
    return load_model(QWEN3_06B)


@pytest.mark.parametrize("name", TENSOR_BYTES)
def test_the_tensors_of_a_public_file(qwen, name):
    stage = annotate(qwen, decode(64), deployment=deploy(weights=f"gguf-{name}"))
    assert stage.cost.weight_bytes == TENSOR_BYTES[name]


@pytest.mark.parametrize(("preset", "name", "expected"), FILES, ids=lambda value: str(value))
def test_a_public_file_is_its_tensors_and_a_header(preset_model, preset, name, expected):
    stage = annotate(preset_model(preset), decode(64), deployment=deploy(weights=f"gguf-{name}"))
    assert 0 < expected - stage.cost.weight_bytes < 13.1e6


def test_layers_of_other_types_are_not_folded_into_one(qwen):
    deployment = deploy(weights="gguf-q4_k_m")
    folded, full = (annotate(qwen, decode(64), deployment=deployment, fold=fold) for fold in (None, False))
    assert compare_folding(folded, full) == "equal"


def test_one_token_reads_one_row_of_the_embedding_and_all_of_the_head(qwen):
    """Both are one table of 6-bit blocks: 1,024 elements are 4 blocks of 210 bytes; a token's id has 8."""
    cost = annotate(qwen, decode(64), deployment=deploy(weights="gguf-q6_k")).cost
    rope = 64 * 4  # inverse frequencies, float32, a buffer
    assert cost.weight_read_bytes == cost.weight_bytes + 4 * 210 + rope


def test_seventy_billion_parameters_have_rules_of_their_own():
    """80 layers whose heads of keys are shared keep values in 5 bits at least; with eight experts, in 8."""
    rows = {"q_proj": 8192, "k_proj": 1024, "v_proj": 1024}
    layers = [
        Parameter(f"model.layers.{i}.self_attn.{name}.weight", (out, 8192), 8192, "linear")
        for i in range(80)
        for name, out in rows.items()
    ]
    of = weight_formats("gguf-q4_k_s").assigned(layers)
    assert of["model.layers.40.self_attn.v_proj.weight"].name == "gguf-q5_k"
    assert of["model.layers.40.self_attn.k_proj.weight"].name == "gguf-q4_k"
    experts = Parameter("model.layers.0.mlp.experts.down_proj", (8, 8192, 8192), 8192, "experts")
    assert weight_formats("gguf-q4_k_s").assigned([*layers, experts])[layers[2].path].name == "gguf-q8_0"


def test_rows_that_hold_no_whole_blocks_take_another_type():
    odd = [Parameter(f"model.layers.0.mlp.{n}.weight", (64, columns), columns, "linear") for n, columns in ODD.items()]
    of = weight_formats("gguf-q4_k").assigned(odd)
    assert {path.split(".")[-2]: item.name for path, item in of.items()} == {
        "up_proj": "gguf-q4_k",
        "gate_proj": "gguf-q5_0",
        "odd_proj": "gguf-f16",
    }


ODD = {"up_proj": 256, "gate_proj": 96, "odd_proj": 50}


def test_a_file_that_nobody_writes_is_refused_by_name():
    with pytest.raises(DeploymentError, match="did you mean gguf-q4_k_s or gguf-q4_k_m"):
        deploy(weights="gguf-q4_k_n")
