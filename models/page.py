"""From the pixels of a page to its crops, its image tokens and the decoder's context.

A grid of crops is written (rows h, columns w), as in "1x2": a wide page, one row of two crops. The vendor's
code keeps the pair the other way round, (width, height).

Source: the vendor's public preprocessing, whose choice of a grid is InternVL's ``dynamic_preprocess``.
"""

from __future__ import annotations

from fxmeter.models.sizes import CROP_SIDE, GLOBAL_SIDE, grid_of_crops, whole_number

CropGrid = tuple[int, int]
"""(rows, columns) of crops; (0, 0) is a page that is not cropped."""

FEWEST_CROPS = 2
MOST_CROPS = 9

PIXELS_PER_TOKEN = 64
"""Along a side: patches of 16 px, halved twice."""

PROMPT_TOKENS = 10
"""Text tokens of the vendor's prompt for free OCR, the beginning-of-sequence token included."""


def crop_grid(width: int, height: int) -> CropGrid:
    """The (rows, columns) into which a page of width x height pixels is cut; (0, 0) if it fits in one crop.

    Of all grids with 2 to 9 crops, fewest crops first, the one whose columns / rows is nearest width /
    height wins. Among equally near ones (1x2 and 2x4, say) a later one replaces an earlier one if the page
    covers more than half of the later one's pixels. Grids with equally many crops are never equally near
    and nearest, so their order does not matter.
    """
    width, height = (whole_number(f"page {name}", n, 1) for name, n in (("width", width), ("height", height)))
    if width <= CROP_SIDE and height <= CROP_SIDE:
        return 0, 0
    sides = range(1, MOST_CROPS + 1)
    grids = [(h, w) for h in sides for w in sides if FEWEST_CROPS <= h * w <= MOST_CROPS]
    best, least = (0, 0), float("inf")
    for h, w in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        difference = abs(width / height - w / h)
        fills = width * height > 0.5 * CROP_SIDE * CROP_SIDE * w * h
        if difference < least or (difference == least and fills):
            best, least = (h, w), difference
    return best


def page_tokens(crops: CropGrid = (0, 0)) -> int:
    """Image tokens of a page: the global view's, the crops', and one view separator.

    Each row of features ends in a newline token: 16 rows of 16 for the global view, and for h x w crops,
    which are joined into one picture, 10h rows of 10w.
    """
    h, w = grid_of_crops(crops)
    overview = GLOBAL_SIDE // PIXELS_PER_TOKEN
    detail = CROP_SIDE // PIXELS_PER_TOKEN
    return overview * (overview + 1) + 1 + detail * h * (detail * w + 1)


def page_context(crops: CropGrid = (0, 0), *, prompt_tokens: int = PROMPT_TOKENS) -> int:
    """The decoder's context S: a page's image tokens and those of the prompt."""
    return page_tokens(crops) + prompt_tokens
