"""What hand-written layer models are made of: the base class, and the plain layers that several models share.

A layer model is a frozen record of sizes. Its formulas take the scenario as arguments: batch (B), query_len
(S_q) and kv_len (S_kv), each an int, a numpy integer array or a sympy symbol. e stands for ``element_bytes``.
In a vision tower B is images, or windows of them, and S_q = S_kv their tokens.

Traffic follows the tensors that the Hugging Face code names, in its order and dtypes: an operation reads its operands
and its weights once and writes its output, which is new storage. Layout copies (``contiguous``, windows, the reshapes
inside ``matmul``), integer bookkeeping and views are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from fxmeter.models.choices import Attention, Causal
from fxmeter.models.errors import ScenarioError
from fxmeter.models.sizes import Size
from fxmeter.models.stage_cost import ZERO, StageCost

BOOL_BYTES = 1
FLOAT32_BYTES = 4
INT64_BYTES = 8

SIGMOID_FLOPS, SOFTMAX_FLOPS = 4, 5
"""Per element."""


def cast_bytes(element_bytes: int) -> tuple[int, int]:
    """What a cast to float32, and a cast back, write per element. To a float32 tensor both are no-ops."""
    return (0, 0) if element_bytes == FLOAT32_BYTES else (FLOAT32_BYTES, element_bytes)


def pointwise(flops: Size, *, read: Size, write: Size) -> StageCost:
    """Element-wise operations: what they read, and the new tensors they write."""
    return StageCost(
        vector_flops=flops, activation_read_bytes=read, activation_write_bytes=write, activation_bytes=write
    )


def binary(elements: Size, element_bytes: int) -> StageCost:
    """The sum or the product of two tensors."""
    return pointwise(elements, read=2 * elements * element_bytes, write=elements * element_bytes)


def weights(nbytes: int) -> StageCost:
    """Parameters that are resident, and read once."""
    return StageCost(weight_read_bytes=nbytes, weight_bytes=nbytes)


def at_most(amount: Size, limit: Size) -> Size:
    """The smaller of two amounts, element by element for arrays, as an expression for symbols."""
    if isinstance(amount, int) and isinstance(limit, int):
        return min(amount, limit)
    return (amount + limit - abs(amount - limit)) // 2


LayerType = TypeVar("LayerType", bound="TypedLayer")


class Layer:
    """A part of a model: its own operations, and the parts inside it under their names in the module tree."""

    __slots__ = ()

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        """Cost of the operations that belong to no part."""
        return ZERO

    def children(self) -> dict[str, Layer]:
        """The parts, by module name."""
        return {}

    def inside(self, name: str, batch: Size, query_len: Size, kv_len: Size) -> tuple[Size, Size, Size]:
        """The sizes that a part sees: those of the layer itself, but where it cuts its input or pools it."""
        return batch, query_len, kv_len

    def cost(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        """Cost of one forward pass: its own operations and all parts."""
        return self.modules(batch, query_len, kv_len)[""]

    def modules(self, batch: Size, query_len: Size, kv_len: Size) -> dict[str, StageCost]:
        """Cumulative cost by module path; the layer itself is ``""``."""
        sizes = (batch, query_len, kv_len)
        parts = {name: part.modules(*self.inside(name, *sizes)) for name, part in self.children().items()}
        below = {f"{name}.{path}".rstrip("."): cost for name, part in parts.items() for path, cost in part.items()}
        return {"": StageCost.total([self.own(*sizes), *(part[""] for part in parts.values())]), **below}


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedLayer(Layer):
    """A layer whose tensors have elements of ``element_bytes``."""

    element_bytes: int = 2

    def typed(self, kind: Callable[..., LayerType], **sizes: Any) -> LayerType:
        """A layer in the same dtype."""
        return kind(**sizes, element_bytes=self.element_bytes)

    def linear(self, in_features: int, out_features: int, *, bias: bool = False) -> Linear:
        """A linear layer in the same dtype."""
        return self.typed(Linear, in_features=in_features, out_features=out_features, bias=bias)

    def core(self, heads: int, qk_dim: int, v_dim: int, attention: Attention, **more: Any) -> AttentionCore:
        """An attention core in the same dtype."""
        sizes = {"num_attention_heads": heads, "qk_head_dim": qk_dim, "v_head_dim": v_dim}
        return self.typed(AttentionCore, **sizes, attention=attention, **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear(TypedLayer):
    """y = x Wᵀ + b for T = B·S_q rows (``torch.nn.Linear``).

    Matmul 2·T·in·out; a bias adds T·out vector FLOPs. Reads x (T·in), W (out·in) and b (out), writes y
    (T·out). A ``tied`` weight is read here and resident elsewhere.
    """

    in_features: int
    out_features: int
    bias: bool = False
    tied: bool = False

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        rows = batch * query_len
        bias = int(self.bias)  # sympy does not multiply by a bool
        weight_bytes = (self.in_features + bias) * self.out_features * self.element_bytes
        output_bytes = rows * self.out_features * self.element_bytes
        return StageCost(
            matmul_flops=2 * rows * self.in_features * self.out_features,
            weight_read_bytes=weight_bytes,
            weight_bytes=0 if self.tied else weight_bytes,
        ) + pointwise(
            bias * rows * self.out_features, read=rows * self.in_features * self.element_bytes, write=output_bytes
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding(TypedLayer):
    """A row of hidden_size for each of the B·S_q token ids (``torch.nn.Embedding``): no arithmetic.

    Reads the ids (int64) and the rows looked up, each row of the table once, and writes them; the whole table (vocab·h)
    is resident.
    """

    vocab_size: int
    hidden_size: int

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        tokens = batch * query_len
        rows_bytes = tokens * self.hidden_size * self.element_bytes
        table_bytes = self.vocab_size * self.hidden_size * self.element_bytes
        weights_read = StageCost(weight_read_bytes=at_most(rows_bytes, table_bytes), weight_bytes=table_bytes)
        return weights_read + pointwise(0, read=tokens * INT64_BYTES, write=rows_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiLU(TypedLayer):
    """silu(x) = x·sigmoid(x) on B·S_q rows of ``features``: 5 FLOPs an element (sigmoid 4, product 1)."""

    features: int

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        elements = batch * query_len * self.features
        return pointwise(5 * elements, read=elements * self.element_bytes, write=elements * self.element_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class RMSNorm(TypedLayer):
    """w·x / sqrt(mean(x²) + eps) on R = B·S_q rows of h, N = R·h (Zhang & Sennrich 2019; ``LlamaRMSNorm``).

    Vector: square N, mean N + R, add eps R, rsqrt R, scale N, weight N = 4N + 3R.
    Tensors as eager makes them: a float32 copy of x, x², the normalised x in float32, its cast back and the
    output, N each; mean, mean + eps and rsqrt, R float32 each.
    """

    hidden_size: int

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        e = self.element_bytes
        up, down = cast_bytes(e)
        rows = batch * query_len
        elements = rows * self.hidden_size
        return weights(self.hidden_size * e) + pointwise(
            4 * elements + 3 * rows,
            read=elements * (down + 3 * FLOAT32_BYTES + up + e) + 3 * rows * FLOAT32_BYTES,
            write=elements * (up + 2 * FLOAT32_BYTES + down + e) + 3 * rows * FLOAT32_BYTES,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCore(TypedLayer):
    """softmax(Q Kᵀ·scale + mask) V for H heads; Q and K d_qk wide, V d_v wide. P = B·H·S_q·S_kv pairs; with ``causal``
    "exact" those of a key not after its query alone: of S_q queries the last sees S_kv keys, each before it one less.

    Matmul 2·P·d_qk for Q Kᵀ and 2·P·d_v for the product with V. Vector: scale 1 and softmax 5 a pair.
    Reads Q (B·S_q·H·d_qk), writes the output (B·S_q·H·d_v). Reading K and V is left to the caller, who knows
    whether they come from the cache.

    Eager (``eager_attention_forward`` of modeling_llama.py) adds 1 FLOP a pair for the mask, and passes five
    buffers of P elements through memory, each written once and read once: the product, the scaled and the
    masked copy in the model's dtype, softmax in float32, and that cast back (no copy if it was float32
    already). The mask itself is B·S_q·S_kv, read once for all heads. Where nothing is ``masked`` the third buffer is
    instead the float32 copy of the scaled one. Flash keeps all of this on chip (Dao et al., 2022); eager computes
    every pair whatever ``causal`` says.

    Raises ScenarioError for any other ``attention``.
    """

    num_attention_heads: int
    qk_head_dim: int
    v_head_dim: int
    attention: Attention
    masked: bool = True
    causal: Causal = "full"

    def __post_init__(self) -> None:
        if self.attention not in ("eager", "flash"):
            raise ScenarioError(f"attention must be 'eager' or 'flash', not {self.attention!r}")

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        e = self.element_bytes
        rows = batch * query_len * self.num_attention_heads
        pairs = rows * kv_len
        if self.causal == "exact" and self.attention == "flash":
            pairs = pairs - rows * (query_len - 1) // 2
        fused = StageCost(matmul_flops=2 * pairs * (self.qk_head_dim + self.v_head_dim)) + pointwise(
            (1 + SOFTMAX_FLOPS) * pairs, read=rows * self.qk_head_dim * e, write=rows * self.v_head_dim * e
        )
        if self.attention == "flash":
            return fused
        up, down = cast_bytes(e)
        masked = int(self.masked)
        buffers_bytes = pairs * (e + e + (e if masked else up) + FLOAT32_BYTES + down)
        mask_bytes = masked * batch * query_len * kv_len * e
        return fused + pointwise(masked * pairs, read=buffers_bytes + mask_bytes, write=buffers_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualBlock(TypedLayer):
    """x + attention(norm(x)), then x + mlp(norm(x)): the block of every transformer here.

    Own work: two residual additions, B·S_q·h FLOPs each, reading two tensors and writing one.
    """

    hidden_size: int

    def own(self, batch: Size, query_len: Size, kv_len: Size) -> StageCost:
        return 2 * binary(batch * query_len * self.hidden_size, self.element_bytes)
