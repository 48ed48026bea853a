"""The tower that runs against the tower that was written by hand, and its layout against the vendor's."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import AttentionInterface

from fxmeter.models.hand.vision_tower import DeepseekOCRVision as ByHand
from fxmeter.models.page import page_tokens
from fxmeter.tracer.load.vision import DeepseekOCRVision, build_vision, page_pixels

BY_HAND = ByHand()
PAGES = [(0, 0), (1, 1), (1, 2), (3, 1), (3, 3)]
OTHER_PAGES = [(2, 2), (1, 5), (3, 2), (7, 1), (2, 4)]


@pytest.fixture(scope="module")
def tower() -> DeepseekOCRVision:
    return build_vision()


def counted(tower: DeepseekOCRVision, pixels: tuple[Tensor, ...]) -> tuple[FlopCounterMode, Tensor]:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        features = tower(*pixels)
    return counter, features


@pytest.mark.parametrize("crops", [*PAGES, *(pytest.param(page, marks=pytest.mark.slow) for page in OTHER_PAGES)])
def test_flops_equal_the_hand_written_ones_for_the_global_view_and_1_to_9_crops(
    tower: DeepseekOCRVision, crops: tuple[int, int]
) -> None:
    counter, features = counted(tower, page_pixels(crops))
    assert counter.get_total_flops() == BY_HAND.cost(1, *crops).matmul_flops
    assert features.shape == (1, page_tokens(crops), 1280)


def test_flops_equal_the_hand_written_ones_in_every_module(tower: DeepseekOCRVision) -> None:
    counter, _ = counted(tower, page_pixels((1, 2), batch=3))
    root = type(tower).__name__
    measured = {path: sum(flops.values()) for path, flops in counter.get_flop_counts().items()}
    by_hand = {path: cost.matmul_flops for path, cost in BY_HAND.modules(3, 1, 2).items()}
    for path, flops in by_hand.items():
        assert measured.pop(f"{root}.{path}" if path else root, 0) == flops, path
    assert set(measured) <= {"Global"}


def test_hand_written_weights_equal_the_parameters_of_every_module(tower: DeepseekOCRVision) -> None:
    for path, cost in BY_HAND.modules(1, 1, 2).items():
        parameters = tower.get_submodule(path).parameters()
        assert sum(parameter.nbytes for parameter in parameters) == cost.weight_bytes, path


def test_the_tower_has_the_published_number_of_parameters(tower: DeepseekOCRVision) -> None:
    assert sum(parameter.numel() for parameter in tower.parameters()) == 401_372_160
    separators = tower.image_newline.numel() + tower.view_separator.numel()
    assert separators == 1280 + 1280
    idle = tower.clip.embeddings.patch_embedding.weight
    assert idle.numel() == 3 * 14 * 14 * 1024


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_nothing_is_allocated_and_parameters_have_the_dtype_asked_for(dtype: torch.dtype) -> None:
    tower = build_vision(dtype)
    assert {parameter.dtype for parameter in tower.parameters()} == {dtype}
    assert all(tensor.is_meta for tensor in (*tower.parameters(), *tower.buffers()))
    assert not tower.training


def test_features_of_a_page_of_two_crops(tower: DeepseekOCRVision) -> None:
    with torch.no_grad():
        features = tower(*page_pixels((1, 2), batch=2))
    assert features.shape == (2, 273 + 10 * 1 * (10 * 2 + 1), 1280)
    assert features.dtype == torch.bfloat16
    assert features.is_meta


def test_pixels_carry_the_grid_in_their_shape() -> None:
    assert [tuple(pixels.shape) for pixels in page_pixels((1, 2), batch=3)] == [
        (3, 3, 1024, 1024),
        (3, 1, 2, 3, 640, 640),
    ]
    assert [tuple(pixels.shape) for pixels in page_pixels()] == [(1, 3, 1024, 1024)]


def test_clip_takes_any_attention_of_the_interface_and_sam_keeps_its_own() -> None:
    calls: Counter[tuple[int, ...]] = Counter()

    def attention(module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        calls[tuple(query.shape)] += 1
        return torch.empty_like(query).transpose(1, 2), None

    AttentionInterface.register("vision_test_attention", attention)
    tower = build_vision()
    tower.set_attn_implementation("vision_test_attention")
    counter, features = counted(tower, page_pixels((1, 2)))
    assert calls == {(1, 16, 257, 64): 24, (2, 16, 101, 64): 24}
    assert features.shape == (1, 483, 1280)
    cores = 24 * 16 * (2 * 2 * 257 * 257 * 64 + 2 * (2 * 2 * 101 * 101 * 64))
    assert counter.get_total_flops() == BY_HAND.cost(1, 1, 2).matmul_flops - cores


def labelled(tower: DeepseekOCRVision, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features on the CPU that say where they come from: the view's number, its row and its column."""

    def sam(pixels: Tensor) -> SimpleNamespace:
        side = pixels.shape[-1] // 64
        view = pixels[:, 0, 0, 0].reshape(-1, 1, 1) * 10_000
        place = torch.arange(side).reshape(-1, 1) * 100 + torch.arange(side)
        return SimpleNamespace(last_hidden_state=(view + place).unsqueeze(1))

    monkeypatch.setattr(tower.sam, "forward", sam)
    # CLIP's tokens: a class token, to be dropped, and the features again
    monkeypatch.setattr(
        tower.clip, "forward", lambda features: torch.nn.functional.pad(features.flatten(2).mT, (0, 0, 1, 0), value=-9)
    )
    monkeypatch.setattr(tower.projector, "forward", lambda both: both[..., :1])
    tower.image_newline = torch.nn.Parameter(torch.tensor([-1.0]))
    tower.view_separator = torch.nn.Parameter(torch.tensor([-2.0]))


def test_crops_are_joined_row_by_row_before_the_global_view_and_the_separator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tower = build_vision()
    labelled(tower, monkeypatch)
    overview = torch.full((1, 1, 1024, 1024), 9.0)
    crops = torch.arange(6.0).reshape(1, 2, 3, 1, 1, 1).expand(1, 2, 3, 1, 640, 640)
    with torch.no_grad():
        features = tower(overview, crops).flatten().tolist()
    expected = []
    for row in range(2 * 10):
        for column in range(3 * 10):
            crop = 3 * (row // 10) + column // 10
            expected.append(crop * 10_000 + row % 10 * 100 + column % 10)
        expected.append(-1)
    for row in range(16):
        expected += [90_000 + row * 100 + column for column in range(16)]
        expected.append(-1)
    expected.append(-2)
    assert features == expected


def test_the_projector_sees_clip_before_sam(monkeypatch: pytest.MonkeyPatch) -> None:
    tower = build_vision()
    labelled(tower, monkeypatch)
    monkeypatch.setattr(tower.clip, "forward", lambda features: torch.full((1, 257, 1), 5.0))
    seen: list[Tensor] = []
    monkeypatch.setattr(tower.projector, "forward", lambda both: seen.append(both) or both[..., :1])
    with torch.no_grad():
        tower(torch.zeros(1, 1, 1024, 1024))
    assert seen[0][0, :, 0].unique().tolist() == [5.0]
    assert seen[0][0, :, 1].tolist() == [row * 100 + column for row in range(16) for column in range(16)]


def test_positions_are_the_learned_ones_at_1024_pixels_and_resized_at_640() -> None:
    embeddings = build_vision(torch.float32).clip.embeddings
    embeddings.to_empty(device="cpu")
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    with torch.no_grad():
        embeddings.position_ids.copy_(torch.arange(257))
        embeddings.class_embedding.fill_(3.0)
        embeddings.position_embedding.weight.zero_()
        embeddings.position_embedding.weight[0] = 7.0
        embeddings.position_embedding.weight[1:, 0] = rows.flatten()
        embeddings.position_embedding.weight[1:, 1] = columns.flatten()
        full = embeddings(torch.zeros(1, 1024, 16, 16))[0]
        crop = embeddings(torch.zeros(1, 1024, 10, 10))[0]
    assert full[0].unique().tolist() == crop[0].unique().tolist() == [3.0 + 7.0]
    assert full[1:, 0].tolist() == rows.flatten().tolist()
    assert full[1:, 1].tolist() == columns.flatten().tolist()
    # a plane stays a plane, but for the border, where the resampling kernel is cut off
    centres = ((torch.arange(10) + 0.5) * 1.6 - 0.5)[2:8]
    inner = crop[1:].unflatten(0, (10, 10))[2:8, 2:8]
    torch.testing.assert_close(inner[..., 0], centres[:, None].expand(6, 6), rtol=0, atol=0.05)
    torch.testing.assert_close(inner[..., 1], centres[None, :].expand(6, 6), rtol=0, atol=0.05)
