"""What one launch on a device does, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["product", "attention", "elementwise", "collective"]
Form = Literal["", "mm", "mm_t", "bmm", "bmm_t", "attention", "masked", "cache"]
"""How a product is laid out, where its efficiency may hang on it: ``mm`` and ``bmm`` multiply by a matrix that is
stored row by row, ``_t`` by one that is stored column by column, as weights of ``nn.Linear`` and keys of attention are.
"masked" is an attention core that is given its mask as a tensor and skips nothing of it, "cache" a kernel that moves
what earlier passes left in memory; "" is any other."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """Work of one launch. Amounts are whole numbers, or polynomials in the sizes of a closed form.

    ``name`` and ``op`` are those of its first op, ``module`` the module that runs it, ``times`` identical launches
    in the pass. ``dtype`` is what its matrix units, or its vector units, compute in. ``nbytes`` moves through memory,
    ``network_bytes`` to other devices, those of ``ranks``. ``widened``: its weight is stored in fewer bits than it
    computes in. ``rows`` of each matrix on the left go through a product of that ``form`` (queries, of an attention
    core); 0 where nobody knows. ``made_bytes`` are tensors that an op allocates, of a pass that runs op by op.
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
    form: Form = ""
    rows: Any = 0
    made_bytes: Any = 0


AMOUNTS = ("matmul_flops", "vector_flops", "nbytes", "network_bytes", "rows")
"""What a kernel does: the fields that depend on sizes. Closed forms are of fused kernels, whose buffers are reused."""
