"""What one launch on a device does, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["product", "attention", "elementwise", "collective"]


@dataclass(frozen=True, slots=True)
class Kernel:
    """Work of one launch. Amounts are whole numbers, or polynomials in the sizes of a closed form.

    ``name`` and ``op`` are those of its first op, ``module`` the module that runs it, ``times`` identical launches
    in the pass. ``dtype`` is what its matrix units, or its vector units, compute in. ``nbytes`` moves through memory,
    ``network_bytes`` to other devices, those of ``ranks``. ``widened``: its weight is stored in fewer bits than it
    computes in.
    """

    name: str
    op: str
    module: str
    times: int
    kind: Kind
    dtype: str
    matmul_flops: Any
    vector_flops: Any
    nbytes: Any
    network_bytes: Any = 0
    ranks: tuple[int, ...] = ()
    widened: bool = False


AMOUNTS = ("matmul_flops", "vector_flops", "nbytes", "network_bytes")
"""What a kernel does: the fields that depend on sizes."""
