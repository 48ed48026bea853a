"""From pixels to crops and tokens, held to published examples and to another implementation of the choice."""

import ast
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxmeter.models.errors import ScenarioError
from fxmeter.models.page import crop_grid, page_context, page_tokens


@pytest.mark.parametrize(
    ("width", "height", "grid"),
    [
        (640, 640, (0, 0)),  # fits in one crop
        (1, 1, (0, 0)),
        (641, 640, (2, 2)),
        (640, 641, (2, 2)),
        (1280, 640, (1, 2)),  # wide: one row of two
        (640, 1280, (2, 1)),
        (1000, 1500, (3, 2)),
        (1500, 1000, (2, 3)),
        (2000, 700, (1, 3)),
        (5000, 640, (1, 8)),
        (9000, 1000, (1, 9)),
        (1000, 9000, (9, 1)),
        (100_000, 10, (1, 9)),  # no grid is that wide
    ],
)
def test_the_grid_is_the_one_nearest_the_aspect_ratio(width: int, height: int, grid: tuple[int, int]) -> None:
    assert crop_grid(width, height) == grid


@pytest.mark.parametrize(
    ("width", "height", "grid"),
    [
        (1357, 1357, (2, 2)),  # 1357² is less than half of 9 · 640²
        (1358, 1358, (3, 3)),  # 1358² is more
        (1810, 905, (1, 2)),  # less than half of 8 · 640²
        (1812, 906, (2, 4)),  # more
        (905, 1810, (2, 1)),
        (906, 1812, (4, 2)),
        (1000, 400, (1, 2)),  # 2.5, between 2 and 3: less than half of 3 · 640²
        (1250, 500, (1, 3)),  # more than half of 3 · 640², less than half of 8 · 640²
        (2500, 1000, (2, 4)),  # more than half of 8 · 640²
    ],
)
def test_of_equally_near_grids_the_page_must_half_fill_the_larger(
    width: int, height: int, grid: tuple[int, int]
) -> None:
    assert crop_grid(width, height) == grid


def vendor_choice() -> Any:
    """transformers' function for the same choice, without the imaging libraries that its module imports."""
    (package,) = importlib.util.find_spec("transformers").submodule_search_locations  # type: ignore[union-attr, misc]
    source = Path(package) / "models/deepseek_ocr2/image_processing_pil_deepseek_ocr2.py"
    wanted = ("get_all_supported_aspect_ratios", "get_optimal_tiled_canvas")
    tree = ast.parse(source.read_text())
    tree.body = [node for node in tree.body if getattr(node, "name", None) in wanted]
    names: dict[str, Any] = {"lru_cache": lru_cache}
    exec(compile(tree, str(source), "exec"), names)
    return names["get_optimal_tiled_canvas"]


CHOICE = vendor_choice()


@given(st.integers(1, 6000), st.integers(641, 6000), st.booleans())
def test_transformers_makes_the_same_choice(side: int, other: int, wide: bool) -> None:
    width, height = (other, side) if wide else (side, other)
    columns, rows = CHOICE((height, width), (640, 640), 2, 9)
    assert crop_grid(width, height) == (rows, columns)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 300))
def test_transformers_makes_the_same_choice_between_equally_near_grids(
    a: int, b: int, c: int, d: int, scale: int
) -> None:
    # width / height half way between a/b and c/d, where ties are
    width, height = (a * d + c * b) * scale + 640 * 9, 2 * b * d * scale + 640 * 9
    for w, h in ((width, height), ((a * d + c * b) * scale * 10, 2 * b * d * scale * 10)):
        if w > 640 or h > 640:
            columns, rows = CHOICE((h, w), (640, 640), 2, 9)
            assert crop_grid(w, h) == (rows, columns)


def test_a_wider_page_never_gets_a_narrower_grid_at_equal_area() -> None:
    ratios = [w / h for h, w in (crop_grid(100 * n, 100 * (100 - n)) for n in range(1, 100))]
    assert ratios == sorted(ratios)


@pytest.mark.parametrize("size", [(0, 700), (700, 0), (-5, 700), (700, 2.5), ("700", 700), (True, 700), (10**9 + 1, 1)])
def test_a_page_without_pixels_is_refused(size: tuple[Any, Any]) -> None:
    with pytest.raises(ScenarioError, match=r"page (width|height) (must be|is)"):
        crop_grid(*size)


def test_the_smallest_and_the_largest_page_are_accepted() -> None:
    assert crop_grid(10**9, 10**9) == (3, 3)
    assert crop_grid(np.int64(1280), np.int64(640)) == (1, 2)


@pytest.mark.parametrize(
    ("crops", "tokens"),
    [
        ((0, 0), (16 + 1) * 16 + 1),
        ((1, 2), (16 + 1) * 16 + 1 + 10 * (20 + 1)),
        ((2, 1), (16 + 1) * 16 + 1 + 20 * (10 + 1)),
        ((3, 3), (16 + 1) * 16 + 1 + 30 * (30 + 1)),
    ],
)
def test_a_page_has_a_token_per_feature_row_and_separator(crops: tuple[int, int], tokens: int) -> None:
    assert page_tokens(crops) == tokens


def test_a_page_is_not_cropped_unless_told() -> None:
    assert page_tokens() == 273
    assert page_context() == 273 + 10


def test_the_published_contexts() -> None:
    assert page_context(crop_grid(1280, 640)) == 493
    assert page_context((3, 3)) == 1213


def test_the_prompt_may_have_another_length() -> None:
    assert page_context((1, 2), prompt_tokens=25) == 273 + 10 * 21 + 25


@pytest.mark.parametrize("crops", [(0, 2), (2, 0)])
def test_half_a_grid_is_refused(crops: tuple[int, int]) -> None:
    with pytest.raises(ScenarioError, match="must have rows and columns"):
        page_tokens(crops)


@pytest.mark.parametrize("crops", [(-1, -1), (1.5, 2), ("1", "2"), (True, True)])
def test_a_grid_of_anything_but_whole_numbers_is_refused(crops: Any) -> None:
    with pytest.raises(ScenarioError, match=r"crop rows must be"):
        page_tokens(crops)
