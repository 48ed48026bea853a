"""SAM's encoder against arithmetic done by hand: every term of every formula, with sizes that do not repeat."""

from fxmeter.models.hand.sam import SamAttention, SamBlock, SamEncoder, SamMLP
from fxmeter.models.hand.vision_layers import LayerNorm
from fxmeter.models.stage_cost import FIELDS, StageCost

SMALL = SamEncoder(
    hidden_size=6,
    num_heads=2,
    intermediate_size=11,
    num_layers=3,
    global_layers=(1,),
    patch_size=5,
    window=2,
    table_side=7,
    neck_channels=13,
    downsample_channels=(17, 19),
)


def layer_norm(rows: int, width: int, element_bytes: int) -> StageCost:
    return LayerNorm(hidden_size=width, element_bytes=element_bytes).cost(1, rows, rows)


def test_attention_counts_every_product_and_every_buffer_of_its_core() -> None:
    # 5 windows of 3 x 3 tokens, 2 heads of 3: 10 heads in all, 9 queries and 9 keys in each
    modules = SamAttention(hidden_size=6, num_heads=2, table_side=7).modules(5, 9, 9)
    core = modules[""] + -1 * modules["qkv"] + -1 * modules["proj"]
    query, distances, scores = 10 * 9 * 3, 10 * 9 * 3, 10 * 9 * 9
    written = query + scores + distances + distances + scores + scores
    written_bytes = written * 2 + scores * 4 + scores * 4 + scores * 2  # and the softmax in float32
    assert core == StageCost(
        matmul_flops=(
            10 * 2 * 9 * 3 * 9  # query times key
            + 10 * 2 * 9 * 3 * 3  # query times the vectors of 3 row distances
            + 10 * 2 * 9 * 3 * 3  # and of 3 column distances
            + 10 * 2 * 9 * 9 * 3  # probabilities times value
        ),
        vector_flops=(
            10 * 9 * 3  # query times head_size^-1/2
            + 10 * 9 * 9  # row bias plus column bias
            + 10 * 9 * 9  # scores plus bias
            + 5 * 10 * 9 * 9  # softmax
        ),
        weight_read_bytes=((2 * 7 - 1) * 3 + (2 * 7 - 1) * 3) * 2,
        activation_read_bytes=(
            query * 2  # scaling
            + (query + query) * 2  # query, key
            + query * 2  # row distances
            + query * 2  # column distances
            + (distances + distances) * 2  # bias
            + (scores + scores) * 2  # scores, bias
            + scores * (2 + 4 + 4)  # softmax with its casts
            + (scores + query) * 2  # probabilities, value
        ),
        activation_write_bytes=written_bytes + query * 2,
        activation_bytes=written_bytes + query * 2,
        weight_bytes=((2 * 7 - 1) * 3 + (2 * 7 - 1) * 3) * 2,
    )


def test_attention_projects_every_token_of_every_window() -> None:
    modules = SamAttention(hidden_size=6, num_heads=2, table_side=7).modules(5, 9, 9)
    assert modules["qkv"].matmul_flops == 2 * (5 * 9) * 6 * (3 * 6)
    assert modules["proj"].matmul_flops == 2 * (5 * 9) * 6 * 6
    assert modules["qkv"].weight_bytes == (6 * 18 + 18) * 2
    assert modules["proj"].weight_bytes == (6 * 6 + 6) * 2
    assert set(modules) == {"", "qkv", "proj"}


def test_distances_and_scores_grow_apart_with_the_side_of_a_window() -> None:
    # side 4 tells tokens (16), side (4) and head size (3) apart in every product
    modules = SamAttention(hidden_size=6, num_heads=2, table_side=7).modules(1, 16, 16)
    core = modules[""] + -1 * modules["qkv"] + -1 * modules["proj"]
    assert core.matmul_flops == 2 * (2 * 16 * 16 * 3 + 2 * 16 * 4 * 3 + 2 * 16 * 4 * 3 + 2 * 16 * 16 * 3)
    assert core.vector_flops == 2 * (16 * 3 + 16 * 16 + 16 * 16 + 5 * 16 * 16)
    distances, scores, query = 2 * 16 * 4, 2 * 16 * 16, 2 * 16 * 3
    assert core.activation_bytes == (
        (query + scores + distances + distances + scores + scores + scores + query) * 2 + (scores + scores) * 4
    )
    assert core.activation_write_bytes == core.activation_bytes
    assert core.activation_read_bytes == (
        (query + 2 * query + 2 * query + 2 * distances + 2 * scores + scores + scores + query) * 2
        + (scores + scores) * 4
    )


def test_mlp_is_two_linear_layers_around_an_erf_gelu() -> None:
    modules = SamMLP(hidden_size=6, intermediate_size=11).modules(1, 5, 5)
    assert modules["lin1"].matmul_flops == 2 * 5 * 6 * 11
    assert modules["lin1"].vector_flops == 5 * 11
    assert modules["act"] == StageCost(
        vector_flops=5 * (5 * 11),
        activation_read_bytes=5 * 11 * 2,
        activation_write_bytes=5 * 11 * 2,
        activation_bytes=5 * 11 * 2,
    )
    assert modules["lin2"].matmul_flops == 2 * 5 * 11 * 6
    assert modules["lin2"].vector_flops == 5 * 6
    assert modules[""] == modules["lin1"] + modules["act"] + modules["lin2"]
    assert SamMLP(hidden_size=6, intermediate_size=11).cost(1, 5, 5) == modules[""]


def test_a_windowed_block_attends_to_its_padding_and_computes_the_rest_without_it() -> None:
    # 5 x 5 tokens in windows of 2 x 2: 3 x 3 windows with 36 tokens, in 4 images
    block = SMALL.block(0)
    modules = block.modules(4, 5 * 5, 5 * 5)
    attention = SamAttention(hidden_size=6, num_heads=2, table_side=2).cost(4 * 3 * 3, 2 * 2, 2 * 2)
    mlp = SamMLP(hidden_size=6, intermediate_size=11).cost(4, 25, 25)
    norm = layer_norm(4 * 25, 6, 2)
    residuals = StageCost(
        vector_flops=4 * 25 * 6 + 4 * 25 * 6,
        activation_read_bytes=2 * (4 * 25 * 6 + 4 * 25 * 6) * 2,
        activation_write_bytes=(4 * 25 * 6 + 4 * 25 * 6) * 2,
        activation_bytes=(4 * 25 * 6 + 4 * 25 * 6) * 2,
    )
    assert modules["attn"] == attention
    assert modules["mlp"] == mlp
    assert modules["layer_norm1"] == modules["layer_norm2"] == norm
    assert block.cost(4, 5 * 5, 5 * 5) == attention + mlp + norm + norm + residuals


def test_a_grid_of_whole_windows_is_not_padded() -> None:
    modules = SMALL.block(0).modules(1, 6 * 6, 6 * 6)
    assert modules["attn.qkv"].matmul_flops == 2 * (6 * 6) * 6 * 18


def test_a_global_block_attends_across_the_grid_and_keeps_tables_for_the_learned_side() -> None:
    modules = SMALL.block(1).modules(4, 5 * 5, 5 * 5)
    assert modules["attn"] == SamAttention(hidden_size=6, num_heads=2, table_side=7).cost(4, 5 * 5, 5 * 5)


def test_the_encoder_has_windowed_and_global_blocks_in_their_places() -> None:
    modules = SMALL.modules(4, 25 * 25, 25 * 25)
    assert modules["layers.0"] == modules["layers.2"] == SMALL.block(0).cost(4, 5 * 5, 5 * 5)
    assert modules["layers.1"] == SMALL.block(1).cost(4, 5 * 5, 5 * 5)
    assert SMALL.block(1) == SamBlock(hidden_size=6, num_heads=2, intermediate_size=11, window=0, table_side=7)
    assert "layers.3" not in modules


def test_patches_come_from_a_convolution_with_a_bias() -> None:
    # 4 images of 25 x 25 pixels of 3 colours: 5 x 5 patches
    assert SMALL.modules(4, 25 * 25, 25 * 25)["patch_embed"] == StageCost(
        matmul_flops=2 * (4 * 5 * 5 * 6) * (3 * 5 * 5),
        vector_flops=4 * 5 * 5 * 6,
        weight_read_bytes=(3 * 5 * 5 * 6 + 6) * 2,
        activation_read_bytes=4 * 25 * 25 * 3 * 2,
        activation_write_bytes=4 * 5 * 5 * 6 * 2,
        activation_bytes=4 * 5 * 5 * 6 * 2,
        weight_bytes=(3 * 5 * 5 * 6 + 6) * 2,
    )
    assert (
        SMALL.modules(4, 25 * 25, 25 * 25)["patch_embed"]
        == SMALL.modules(4, 25 * 25, 25 * 25)["patch_embed.projection"]
    )


def test_the_encoder_itself_adds_the_absolute_positions() -> None:
    modules = SMALL.modules(4, 25 * 25, 25 * 25)
    children = ("patch_embed", "layers.0", "layers.1", "layers.2", "neck", "proj")
    assert modules[""] + -1 * StageCost.total(modules[path] for path in children) == StageCost(
        vector_flops=4 * 5 * 5 * 6,
        weight_read_bytes=7 * 7 * 6 * 2,
        activation_read_bytes=4 * 5 * 5 * 6 * 2,
        activation_write_bytes=4 * 5 * 5 * 6 * 2,
        activation_bytes=4 * 5 * 5 * 6 * 2,
        weight_bytes=7 * 7 * 6 * 2,
    )


def test_the_neck_is_two_convolutions_each_with_a_norm() -> None:
    modules = SMALL.modules(4, 25 * 25, 25 * 25)
    norm = layer_norm(4 * 5 * 5, 13, 2)
    assert modules["neck.conv1"] == StageCost(
        matmul_flops=2 * (4 * 5 * 5 * 13) * 6,
        weight_read_bytes=6 * 13 * 2,
        activation_read_bytes=4 * 5 * 5 * 6 * 2,
        activation_write_bytes=4 * 5 * 5 * 13 * 2,
        activation_bytes=4 * 5 * 5 * 13 * 2,
        weight_bytes=6 * 13 * 2,
    )
    assert modules["neck.conv2"] == StageCost(
        matmul_flops=2 * (4 * 5 * 5 * 13) * (3 * 3 * 13),
        weight_read_bytes=13 * 13 * 3 * 3 * 2,
        activation_read_bytes=4 * 5 * 5 * 13 * 2,
        activation_write_bytes=4 * 5 * 5 * 13 * 2,
        activation_bytes=4 * 5 * 5 * 13 * 2,
        weight_bytes=13 * 13 * 3 * 3 * 2,
    )
    assert modules["neck.layer_norm1"] == modules["neck.layer_norm2"] == norm
    assert modules["neck"] == modules["neck.conv1"] + norm + modules["neck.conv2"] + norm


def test_two_strided_convolutions_halve_the_grid_twice_rounding_up() -> None:
    # 5 x 5, then 3 x 3, then 2 x 2
    modules = SMALL.modules(4, 25 * 25, 25 * 25)
    assert SMALL.features(25 * 25) == 2 * 2
    assert modules["proj.conv1"] == StageCost(
        matmul_flops=2 * (4 * 3 * 3 * 17) * (3 * 3 * 13),
        weight_read_bytes=13 * 17 * 3 * 3 * 2,
        activation_read_bytes=4 * 5 * 5 * 13 * 2,
        activation_write_bytes=4 * 3 * 3 * 17 * 2,
        activation_bytes=4 * 3 * 3 * 17 * 2,
        weight_bytes=13 * 17 * 3 * 3 * 2,
    )
    assert modules["proj.conv2"] == StageCost(
        matmul_flops=2 * (4 * 2 * 2 * 19) * (3 * 3 * 17),
        weight_read_bytes=17 * 19 * 3 * 3 * 2,
        activation_read_bytes=4 * 3 * 3 * 17 * 2,
        activation_write_bytes=4 * 2 * 2 * 19 * 2,
        activation_bytes=4 * 2 * 2 * 19 * 2,
        weight_bytes=17 * 19 * 3 * 3 * 2,
    )
    assert modules["proj"] == modules["proj.conv1"] + modules["proj.conv2"]
    assert SMALL.cost(4, 25 * 25, 25 * 25) == modules[""]


def test_sam_b_has_its_published_parameters() -> None:
    block = 2 * 768 + (768 * 2304 + 2304) + (768 * 768 + 768) + 2 * 768
    block += (768 * 3072 + 3072) + (3072 * 768 + 768)
    parameters = (
        (3 * 16 * 16 * 768 + 768)
        + 64 * 64 * 768
        + 12 * block
        + 8 * (27 * 64 + 27 * 64)
        + 4 * (127 * 64 + 127 * 64)
        + (768 * 256 + 2 * 256 + 256 * 256 * 3 * 3 + 2 * 256)
        + (256 * 512 * 3 * 3 + 512 * 1024 * 3 * 3)
    )
    assert SamEncoder(element_bytes=1).cost(1, 1024 * 1024, 1024 * 1024).weight_bytes == parameters == 95_569_152


def test_sam_b_attends_globally_in_every_third_block_and_in_windows_of_14_elsewhere() -> None:
    windows = [SamEncoder().block(layer).window for layer in range(12)]
    assert windows == [14, 14, 0, 14, 14, 0, 14, 14, 0, 14, 14, 0]


def test_sam_b_of_the_global_view_is_its_published_architecture() -> None:
    windowed = (
        2 * 4900 * 768 * 2304  # 25 padded windows of 196
        + 25 * 12 * (2 * 196 * 196 * 64 + 2 * 196 * 196 * 64)
        + 25 * 12 * (2 * 196 * 14 * 64 + 2 * 196 * 14 * 64)
        + 2 * 4900 * 768 * 768
        + (2 * 4096 * 768 * 3072 + 2 * 4096 * 3072 * 768)
    )
    global_ = (
        2 * 4096 * 768 * 2304
        + 12 * (2 * 4096 * 4096 * 64 + 2 * 4096 * 4096 * 64)
        + 12 * (2 * 4096 * 64 * 64 + 2 * 4096 * 64 * 64)
        + 2 * 4096 * 768 * 768
        + (2 * 4096 * 768 * 3072 + 2 * 4096 * 3072 * 768)
    )
    assert SamEncoder().cost(1, 1024 * 1024, 1024 * 1024).matmul_flops == (
        2 * 4096 * (3 * 16 * 16) * 768
        + 8 * windowed
        + 4 * global_
        + (2 * 4096 * 768 * 256 + 2 * 4096 * (3 * 3 * 256) * 256)
        + (2 * 1024 * (3 * 3 * 256) * 512 + 2 * 256 * (3 * 3 * 512) * 1024)
    )


def test_the_width_of_a_number_scales_every_byte_but_the_float32_softmax() -> None:
    narrow, wide = (
        SMALL.cost(4, 25 * 25, 25 * 25),
        SamEncoder(
            **{name: getattr(SMALL, name) for name in SamEncoder.__slots__},
            element_bytes=4,
        ).cost(4, 25 * 25, 25 * 25),
    )
    scores = [2 * 4 * 9 * 2 * 4 * 4, 4 * 2 * 25 * 25]  # two windowed blocks and a global one
    assert wide.weight_bytes == 2 * narrow.weight_bytes
    assert wide.weight_read_bytes == 2 * narrow.weight_read_bytes
    assert wide.activation_bytes == 2 * (narrow.activation_bytes - sum(scores) * (4 + 4 + 2)) + sum(scores) * 4


def test_every_field_but_weights_grows_with_the_number_of_images() -> None:
    one, three = SMALL.cost(1, 25 * 25, 25 * 25), SMALL.cost(3, 25 * 25, 25 * 25)
    for name in FIELDS:
        times = 1 if name in ("weight_read_bytes", "weight_bytes") else 3
        assert getattr(three, name) == times * getattr(one, name), name
