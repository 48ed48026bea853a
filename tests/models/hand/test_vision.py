"""CLIP, the projector and the whole tower against arithmetic done by hand."""

from dataclasses import replace

import numpy as np
import pytest
import sympy

from fxmeter.models.errors import ScenarioError
from fxmeter.models.hand.layer import Linear
from fxmeter.models.hand.sam import SamEncoder
from fxmeter.models.hand.vision_layers import LayerNorm
from fxmeter.models.hand.vision_tower import (
    ClipAttention,
    ClipBlock,
    ClipEmbeddings,
    ClipEncoder,
    ClipMLP,
    DeepseekOCRVision,
)
from fxmeter.models.stage_cost import FIELDS, StageCost

TOWER = DeepseekOCRVision()
FLASH = DeepseekOCRVision(attention="flash")


def linear(rows: int, inputs: int, outputs: int, element_bytes: int) -> StageCost:
    return Linear(in_features=inputs, out_features=outputs, bias=True, element_bytes=element_bytes).cost(1, rows, rows)


def layer_norm(rows: int, width: int, element_bytes: int) -> StageCost:
    return LayerNorm(hidden_size=width, element_bytes=element_bytes).cost(1, rows, rows)


SMALL_CLIP = ClipEncoder(
    hidden_size=6, num_heads=2, intermediate_size=11, num_layers=2, positions=17, patch_size=3, element_bytes=4
)

PARAMETERS = {
    "sam": 95_569_152,  # tests/models/hand/test_sam.py
    "clip": (
        1024  # class token
        + 257 * 1024  # positions
        + 3 * 14 * 14 * 1024  # the idle patch convolution
        + (1024 + 1024)  # pre-layernorm
        + 24 * (4 * (1024 * 1024 + 1024) + (1024 * 4096 + 4096) + (4096 * 1024 + 1024) + 4 * 1024)
    ),
    "projector": 2048 * 1280 + 1280,
}
SEPARATORS = 1280 + 1280

CLIP_GLOBAL_FLOPS = 24 * (
    4 * (2 * 257 * 1024 * 1024)
    + 16 * (2 * 257 * 257 * 64 + 2 * 257 * 257 * 64)
    + (2 * 257 * 1024 * 4096 + 2 * 257 * 4096 * 1024)
)
CLIP_CROP_FLOPS = 24 * (
    4 * (2 * 101 * 1024 * 1024)
    + 16 * (2 * 101 * 101 * 64 + 2 * 101 * 101 * 64)
    + (2 * 101 * 1024 * 4096 + 2 * 101 * 4096 * 1024)
)
SAM_CROP_FLOPS = (
    2 * 1600 * (3 * 16 * 16) * 768
    + 8 * (2 * 1764 * 768 * (2304 + 768) + 2 * 2 * 1600 * 768 * 3072)  # 9 padded windows of 196
    + 8 * (9 * 12 * (2 * 2 * 196 * 196 * 64 + 2 * 2 * 196 * 14 * 64))
    + 4 * (2 * 1600 * 768 * (2304 + 768) + 2 * 2 * 1600 * 768 * 3072)
    + 4 * (12 * (2 * 2 * 1600 * 1600 * 64 + 2 * 2 * 1600 * 40 * 64))
    + (2 * 1600 * 768 * 256 + 2 * 1600 * (3 * 3 * 256) * 256)
    + (2 * 400 * (3 * 3 * 256) * 512 + 2 * 100 * (3 * 3 * 512) * 1024)
)


def test_embeddings_add_positions_and_keep_an_idle_convolution_that_nothing_reads() -> None:
    assert ClipEmbeddings(hidden_size=6, positions=17, patch_size=5).cost(4, 10, 10) == StageCost(
        vector_flops=4 * 10 * 6,
        weight_read_bytes=(6 + 17 * 6) * 2,
        activation_read_bytes=4 * 10 * 6 * 2,
        activation_write_bytes=4 * 10 * 6 * 2,
        activation_bytes=4 * 10 * 6 * 2,
        weight_bytes=(6 + 17 * 6 + 3 * 5 * 5 * 6) * 2,
    )


def test_eager_attention_counts_every_product_and_every_buffer_of_its_core() -> None:
    # 5 images of 7 tokens, 2 heads of 3
    modules = ClipAttention(hidden_size=6, num_heads=2).modules(5, 7, 7)
    projections = [modules[f"{name}_proj"] for name in ("q", "k", "v", "out")]
    assert projections == [linear(5 * 7, 6, 6, 2)] * 4
    query, scores = 10 * 7 * 3, 10 * 7 * 7
    written = (scores + scores) * 2 + scores * (4 + 4 + 2) + query * 2  # scores, scaled, softmax, context
    assert modules[""] + -1 * StageCost.total(projections) == StageCost(
        matmul_flops=10 * (2 * 7 * 7 * 3 + 2 * 7 * 7 * 3),
        vector_flops=scores + 5 * scores,
        activation_read_bytes=((query + query) * 2 + scores * 2 + scores * (2 + 4 + 4) + (scores + query) * 2),
        activation_write_bytes=written,
        activation_bytes=written,
    )


def test_flash_attention_does_the_same_arithmetic_and_moves_no_scores() -> None:
    eager = ClipAttention(hidden_size=6, num_heads=2).modules(5, 7, 7)
    flash = ClipAttention(hidden_size=6, num_heads=2, attention="flash").modules(5, 7, 7)
    projections = 4 * linear(5 * 7, 6, 6, 2)
    assert flash["q_proj"] == eager["q_proj"]
    assert flash[""] + -1 * projections == StageCost(
        matmul_flops=10 * (2 * 7 * 7 * 3 + 2 * 7 * 7 * 3),
        vector_flops=10 * 7 * 7 + 5 * 10 * 7 * 7,
        activation_read_bytes=(5 * 7 * 6 + 5 * 7 * 6 + 5 * 7 * 6) * 2,
        activation_write_bytes=5 * 7 * 6 * 2,
        activation_bytes=5 * 7 * 6 * 2,
    )


def test_an_unknown_attention_is_refused_by_name() -> None:
    with pytest.raises(ScenarioError, match="'eager' or 'flash', not 'sdpa'"):
        DeepseekOCRVision(attention="sdpa").cost(1)  # type: ignore[arg-type]


def test_mlp_is_two_linear_layers_around_a_quick_gelu() -> None:
    modules = ClipMLP(hidden_size=6, intermediate_size=11).modules(1, 5, 5)
    assert modules["fc1"] == linear(5, 6, 11, 2)
    assert modules["activation_fn"] == StageCost(
        vector_flops=5 * 11 + 4 * 5 * 11 + 5 * 11,  # times 1.702, sigmoid, product
        activation_read_bytes=(5 * 11 + 5 * 11 + (5 * 11 + 5 * 11)) * 2,
        activation_write_bytes=(5 * 11 + 5 * 11 + 5 * 11) * 2,
        activation_bytes=(5 * 11 + 5 * 11 + 5 * 11) * 2,
    )
    assert modules["fc2"] == linear(5, 11, 6, 2)
    assert modules[""] == StageCost.total(modules[path] for path in ("fc1", "activation_fn", "fc2"))
    assert ClipMLP(hidden_size=6, intermediate_size=11).cost(1, 5, 5) == modules[""]


@pytest.mark.parametrize("attention", ["eager", "flash"])
def test_a_block_is_two_norms_attention_mlp_and_two_residual_additions(attention: str) -> None:
    block = ClipBlock(hidden_size=6, num_heads=2, intermediate_size=11, attention=attention)
    modules = block.modules(5, 7, 7)
    attn = ClipAttention(hidden_size=6, num_heads=2, attention=attention).cost(5, 7, 7)
    mlp = ClipMLP(hidden_size=6, intermediate_size=11).cost(5, 7, 7)
    norm = layer_norm(5 * 7, 6, 2)
    residuals = StageCost(
        vector_flops=5 * 7 * 6 + 5 * 7 * 6,
        activation_read_bytes=2 * (5 * 7 * 6 + 5 * 7 * 6) * 2,
        activation_write_bytes=(5 * 7 * 6 + 5 * 7 * 6) * 2,
        activation_bytes=(5 * 7 * 6 + 5 * 7 * 6) * 2,
    )
    assert modules["layer_norm1"] == modules["layer_norm2"] == norm
    assert (modules["self_attn"], modules["mlp"]) == (attn, mlp)
    assert block.cost(5, 7, 7) == norm + attn + norm + mlp + residuals


@pytest.mark.parametrize("attention", ["eager", "flash"])
def test_the_encoder_is_embeddings_a_norm_and_equal_blocks(attention: str) -> None:
    clip = replace(SMALL_CLIP, attention=attention)
    modules = clip.modules(5, 10, 10)
    embeddings = ClipEmbeddings(hidden_size=6, positions=17, patch_size=3, element_bytes=4).cost(5, 10, 10)
    block = ClipBlock(hidden_size=6, num_heads=2, intermediate_size=11, attention=attention, element_bytes=4)
    cost = block.cost(5, 10, 10)
    assert modules["embeddings"] == embeddings
    assert modules["pre_layrnorm"] == layer_norm(5 * 10, 6, 4)
    assert modules["encoder.layers.0"] == modules["encoder.layers.1"] == cost
    assert modules["encoder"] == cost + cost
    assert clip.cost(5, 10, 10) == embeddings + layer_norm(5 * 10, 6, 4) + cost + cost


def test_blocks_made_without_sizes_are_clip_l() -> None:
    modules = TOWER.modules(1)
    assert modules["clip.encoder.layers.0"] == ClipBlock().cost(1, 257, 257)
    assert modules["clip.encoder.layers.0.self_attn"] == ClipAttention().cost(1, 257, 257)
    assert modules["clip.encoder.layers.0.mlp"] == ClipMLP().cost(1, 257, 257)
    assert modules["clip.embeddings"] == ClipEmbeddings().cost(1, 257, 257)
    assert modules["clip"] == ClipEncoder().cost(1, 257, 257)
    assert modules["sam"] == SamEncoder().cost(1, 1024 * 1024, 1024 * 1024)


def test_the_tower_has_the_published_parameters() -> None:
    modules = DeepseekOCRVision(element_bytes=1).modules(1, 3, 3)
    assert {path: modules[path].weight_bytes for path in PARAMETERS} == PARAMETERS
    assert modules[""].weight_bytes == sum(PARAMETERS.values()) + SEPARATORS == 401_372_160


@pytest.mark.parametrize(("batch", "crops"), [(1, (0, 0)), (1, (1, 2)), (1, (3, 3)), (3, (2, 1))])
def test_weights_are_resident_once_whatever_the_page(batch: int, crops: tuple[int, int]) -> None:
    assert TOWER.cost(batch, *crops).weight_bytes == 401_372_160 * 2


@pytest.mark.parametrize(("crops", "calls"), [((0, 0), 1), ((1, 1), 2), ((3, 3), 2)])
def test_each_call_reads_every_weight_but_the_idle_convolution(crops: tuple[int, int], calls: int) -> None:
    read = sum(PARAMETERS.values()) - 3 * 14 * 14 * 1024 + 1280  # with the newline
    assert TOWER.cost(1, *crops).weight_read_bytes == (calls * read + 1280) * 2


def test_the_projector_sees_the_features_of_both_encoders_without_the_class_token() -> None:
    modules = TOWER.modules(3, 2, 1)
    assert modules["projector"].matmul_flops == 3 * (2 * 256 * 2048 * 1280 + 2 * (2 * 100 * 2048 * 1280))
    assert modules["projector"].vector_flops == 3 * (256 * 1280 + 2 * 100 * 1280)


def test_matmul_flops_of_the_global_view_and_of_a_crop() -> None:
    overview = TOWER.cost(1).matmul_flops
    crop = TOWER.view(1, 640)[""].matmul_flops
    assert (
        overview
        == SamEncoder().cost(1, 1024 * 1024, 1024 * 1024).matmul_flops + CLIP_GLOBAL_FLOPS + 2 * 256 * 2048 * 1280
    )
    assert crop == SAM_CROP_FLOPS + CLIP_CROP_FLOPS + 2 * 100 * 2048 * 1280


@pytest.mark.parametrize("attention", ["eager", "flash"])
def test_every_crop_costs_the_same_on_every_page(attention: str) -> None:
    tower = DeepseekOCRVision(attention=attention)
    page = [tower.cost(2, 1, n) for n in range(1, 10)]
    none = tower.cost(2)
    crop = tower.view(2, 640)[""]
    for name in FIELDS:
        if name in ("weight_bytes", "weight_read_bytes"):
            assert len({getattr(cost, name) for cost in page}) == 1, name
        else:
            each = [getattr(cost, name) - getattr(none, name) for cost in page]
            assert each == [n * getattr(crop, name) for n in range(1, 10)], name
    assert TOWER.cost(2, 2, 3) == TOWER.cost(2, 3, 2) == TOWER.cost(2, 1, 6)


def test_flash_saves_memory_in_clip_alone() -> None:
    eager, flash = TOWER.modules(1, 1, 2), FLASH.modules(1, 1, 2)
    assert flash["sam"] == eager["sam"]
    assert flash["clip"].flops == eager["clip"].flops
    assert flash["clip"].activation_bytes < eager["clip"].activation_bytes
    assert flash[""] == eager[""] + -1 * eager["clip"] + flash["clip"]
    clip = ClipEncoder(attention="flash")
    calls = [clip.cost(1, 257, 257), clip.cost(2, 101, 101)]
    assert flash["clip"].activation_bytes == sum(call.activation_bytes for call in calls)


def test_nothing_is_cached() -> None:
    cost = TOWER.cost(1, 1, 2)
    assert (cost.kv_read_bytes, cost.kv_write_bytes, cost.kv_bytes) == (0, 0, 0)


def test_every_field_but_weights_grows_with_the_batch() -> None:
    one, five = TOWER.cost(1, 1, 2), TOWER.cost(5, 1, 2)
    for name in FIELDS:
        times = 1 if name in ("weight_read_bytes", "weight_bytes") else 5
        assert getattr(five, name) == times * getattr(one, name), name


def test_the_formulas_take_symbols() -> None:
    b, h, w = sympy.symbols("B h w", positive=True, integer=True)
    symbolic = TOWER.cost(b, h, w)
    for batch, rows, columns in ((1, 1, 2), (8, 3, 3)):
        numbers = TOWER.cost(batch, rows, columns)
        for name in FIELDS:
            value = sympy.sympify(getattr(symbolic, name)).subs({b: batch, h: rows, w: columns})
            assert value == getattr(numbers, name), name


def test_the_formulas_take_arrays_pages_without_crops_among_them() -> None:
    rows, columns, batch = np.array([0, 1, 3]), np.array([0, 2, 3]), np.array([1, 2, 8])
    arrays = TOWER.cost(batch, rows, columns)
    numbers = [TOWER.cost(int(b), int(h), int(w)) for b, h, w in zip(batch, rows, columns, strict=True)]
    for name in FIELDS:
        expected = [getattr(cost, name) for cost in numbers]
        assert np.broadcast_to(getattr(arrays, name), 3).tolist() == expected, name


def test_every_module_is_the_sum_of_its_children_and_its_own() -> None:
    modules = TOWER.modules(1, 1, 2)
    for path, parts in {
        "": ("sam", "clip", "projector"),
        "sam.layers.2": ("layer_norm1", "attn", "layer_norm2", "mlp"),
        "clip.encoder": [f"layers.{layer}" for layer in range(24)],
    }.items():
        total = StageCost.total(modules[f"{path}.{part}".lstrip(".")] for part in parts)
        assert modules[path].matmul_flops == total.matmul_flops, path
