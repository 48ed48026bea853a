"""What a storage format of a weight matrix is: a function (out, in) → bytes, part by part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Parts = Mapping[str, int]
"""What a matrix is stored as: part ("weights", "scales", …) → bytes."""

DEQUANTISES = "weights are widened to 16 bits inside of the product"
QUANTISES = "activations are quantised before each product"


@dataclass(frozen=True, slots=True)
class StorageFormat:
    """One format. ``computes`` is the dtype that multiplies (a device file's name for it; empty: the model's own);
    ``adds`` is the work beside the products that an engine does for it, in words, and that is not priced. The
    weights of a ``block`` (rows, columns) have a scale in common; ``padded`` where engines give each rank whole blocks
    of experts' inner width, the last ones fewer and zeros beside them. A matrix whose sides are no multiples of
    ``whole`` cannot be packed, and stays as it is."""

    name: str
    parts: Callable[[int, int], Parts] = field(repr=False)
    computes: str = ""
    adds: str = ""
    block: tuple[int, int] = (1, 1)
    whole: tuple[int, int] = (1, 1)
    padded: bool = False

    def takes(self, rows: int, columns: int) -> bool:
        """Whether a matrix can be stored in it."""
        return rows % self.whole[0] == 0 == columns % self.whole[1]

    def nbytes(self, rows: int, columns: int) -> int:
        """Bytes of a matrix [rows = out, columns = in]."""
        return sum(self.parts(rows, columns).values())


def over(amount: int, divisor: int) -> int:
    """⌈amount / divisor⌉."""
    return -(-amount // divisor)


def packed(rows: int, columns: int, bits: int) -> int:
    """Values of ``bits`` bits packed without gaps."""
    return over(rows * columns * bits, 8)
