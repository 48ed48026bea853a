"""What is known about a tensor once it is gone: shape, dtype, strides, and which storage it lived in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import torch

from fxmeter.models.stage_cost import Size

Role = Literal["weight", "cache", "input", "activation"]


@dataclass(slots=True, eq=False)
class Storage:
    """One allocation. The recorder settles ``role`` and ``died``; nobody writes to it afterwards.

    ``born`` and ``died`` are moments of the recorder's clock: when an op returned it, and when the last Python
    reference to it went (None: alive when the pass ended). What existed before the pass has ``born`` -1.
    ``counts`` marks a scalar that the cache keeps, which occupies no activation memory. ``ratio`` is what a byte of it
    takes in its storage format (None: it is stored as the code has it), and ``computes`` the dtype that such a weight
    is multiplied in, where the format says so.
    """

    id: int
    nbytes: Size
    role: Role
    born: int = -1
    died: int | None = None
    counts: bool = False
    ratio: Fraction | None = None
    computes: str = ""

    @property
    def stored_bytes(self) -> Size:
        """What the whole of it takes in its storage format."""
        return self.nbytes if self.ratio is None else self.nbytes * self.ratio.numerator // self.ratio.denominator

    @property
    def is_activation(self) -> bool:
        """Whether the pass made it, and not for the cache."""
        return self.role == "activation" and not self.counts and self.nbytes > 0


@dataclass(frozen=True, slots=True)
class Spec:
    """A tensor without its data. ``shape`` and ``strides`` are in elements."""

    shape: tuple[Size, ...]
    dtype: torch.dtype
    strides: tuple[Size, ...]
    offset: Size
    storage: Storage = field(repr=False)

    @property
    def role(self) -> Role:
        """Whether the storage is a weight, the cache, an input of the pass, or made by it."""
        return self.storage.role

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return self.dtype.itemsize

    @property
    def numel(self) -> Size:
        """Elements, counting a broadcast one as often as it is seen."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> Size:
        """``numel`` in bytes: what writing the tensor moves."""
        return self.bytes_of(self.numel)

    @property
    def distinct_bytes(self) -> Size:
        """Bytes of the elements that differ in address (stride 0 once): what reading it moves."""
        distinct = math.prod(n for n, stride in zip(self.shape, self.strides, strict=True) if stride != 0)
        return self.bytes_of(distinct)

    def bytes_of(self, elements: Size) -> Size:
        """What ``elements`` elements of it take where it is stored."""
        nbytes, ratio = elements * self.itemsize, self.storage.ratio
        return nbytes if ratio is None else nbytes * ratio.numerator // ratio.denominator

    @property
    def is_float(self) -> bool:
        """Whether arithmetic on it is floating-point (complex included)."""
        return self.dtype.is_floating_point or self.dtype.is_complex

    def same_elements(self, other: Spec) -> bool:
        """Whether both look at the same elements of the same storage."""
        return (
            self.storage is other.storage
            and self.offset == other.offset
            and self.shape == other.shape
            and self.strides == other.strides
        )

    def __str__(self) -> str:
        return f"{self.dtype_name}[{', '.join(map(str, self.shape))}]"

    @property
    def dtype_name(self) -> str:
        """The dtype in a word."""
        return str(self.dtype).removeprefix("torch.")


def specs_in(value: object) -> Iterator[Spec]:
    """Every Spec in an op's argument or result: itself, or the items of a list."""
    if isinstance(value, Spec):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from specs_in(item)
