"""Ops that do no arithmetic: views, copies, creation, gathers and scatters, with the bytes that they do move."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fxmeter.annotators.rules.cost import Flops, Moves
from fxmeter.annotators.rules.registry import free, rule
from fxmeter.annotators.symbolic import smallest
from fxmeter.models.stage_cost import Size
from fxmeter.tracer.graph.spec import Spec, specs_in
from fxmeter.tracer.operators.ops import cache_append
from fxmeter.tracer.private import OpOverload

aten = torch.ops.aten

VIEW = "a view"
COPY = "a copy: no arithmetic"
FILL = "writes constants"
SELECT = "a selection: no arithmetic"
GATHER = "a gather: reads the elements that it returns; of a weight at most the whole"
LOGIC = "boolean"
INTEGER = "integer arithmetic"


def _named(names: str, reason: str) -> dict[OpOverload, str]:
    """Every functional and in-place overload of the named ops, with the reason why they are free."""
    reasons: dict[OpOverload, str] = {}
    for name in names.split():
        for variant in (name, f"{name}_"):
            packet = getattr(aten, variant, None)
            for overload in [] if packet is None else packet.overloads():
                op = getattr(packet, overload)
                if "out" not in overload and any("Tensor" in str(r.type) for r in op._schema.returns):
                    reasons[op] = reason
    return reasons


free(
    _named(
        "view reshape _unsafe_view _reshape_alias expand expand_as permute transpose t unsqueeze squeeze slice select "
        "split split_with_sizes chunk unbind narrow as_strided unfold diagonal detach alias view_as_complex "
        "view_as_real _conj _neg_view real imag movedim swapaxes unsafe_split unsafe_chunk unsafe_split_with_sizes "
        "view_as _view_dtype lift_fresh numpy_T mT flatten unflatten resolve_conj",
        VIEW,
    ),
    fuses="pointwise",  # where one of them has to copy
)
free(
    _named(
        "clone _to_copy cat stack repeat constant_pad_nd roll flip contiguous lift tril triu repeat_interleave "
        "diag_embed im2col pixel_shuffle pixel_unshuffle channel_shuffle reflection_pad1d replication_pad1d",
        COPY,
    ),
    fuses="pointwise",
)
free(_named("slice_scatter select_scatter", COPY), fuses="scatter")
free(_named("where masked_fill", SELECT), fuses="pointwise")
free(_named("masked_scatter", SELECT), fuses="scatter")


def _fills(out: Spec) -> Moves:
    return Moves(read={"self": 0})


free(
    _named(
        "arange zeros ones full scalar_tensor zeros_like ones_like full_like new_zeros new_ones new_full eye linspace",
        FILL,
    ),
    fuses="pointwise",
    moves=_fills,
)
free(
    _named(
        "logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_xor bitwise_not isin",
        LOGIC,
    ),
    fuses="pointwise",
)
free(_named("bitwise_left_shift bitwise_right_shift", INTEGER), fuses="pointwise")
free(_named("searchsorted bucketize", INTEGER))


def _allocates(out: Spec) -> Moves:
    return Moves(read={"self": 0}, written={"out": 0})


free(
    _named("empty empty_like empty_strided new_empty new_empty_strided", "allocates, writes nothing"),
    fuses="pointwise",
    moves=_allocates,
)


def _overwrites(self: Spec) -> Moves:
    return Moves(read={"self": 0})


free(
    _named("copy_ zero_ fill_ normal_ uniform_ bernoulli_ random_ exponential_", "overwrites its target"),
    fuses="pointwise",
    moves=_overwrites,
)


def gathered(table: Spec, out: Spec) -> Size:
    """Bytes that a gather reads: the elements that it returns; of a weight each once, however often they are picked.

    ``smallest`` and not ``min``: which of the two it is hangs on how many rows there are, and one formula for both is
    easier to read than one for each.
    """
    picked = table.bytes_of(out.numel)
    return smallest([picked, table.distinct_bytes]) if table.role == "weight" else picked


def _rows(self: Spec, out: Spec) -> Moves:
    return Moves(read={"self": gathered(self, out)})


free(
    dict.fromkeys([aten.gather.default, aten.index_select.default, aten.index.Tensor, aten.take.default], GATHER),
    fuses="gather",
    moves=_rows,
)


def _embedding_rows(weight: Spec, out: Spec) -> Moves:
    return Moves(read={"weight": gathered(weight, out)})


free(
    {aten.embedding.default: "a gather: reads the rows that it looks up, at most the table"},
    fuses="gather",
    moves=_embedding_rows,
)


def _put_moves(self: Spec, indices: Sequence[Spec | None], accumulate: bool) -> Moves:
    """The elements that the indices, broadcast together, pick: those of the unindexed dimensions for each."""
    picked = _broadcast([spec.shape for spec in specs_in(indices)])
    for size, index in zip(self.shape, [*indices, *[None] * (len(self.shape) - len(indices))], strict=True):
        picked *= 1 if index is not None else size
    return Moves(read={"self": picked * self.itemsize if accumulate else 0}, written={"self": picked * self.itemsize})


def _broadcast(shapes: list[tuple[Size, ...]]) -> Size:
    count: Size = 1
    for position in range(1, 1 + max((len(shape) for shape in shapes), default=0)):
        sizes = [shape[-position] for shape in shapes if len(shape) >= position]
        count *= next((size for size in sizes if size != 1), 1)
    return count


@rule(aten.index_put_.default, fuses="scatter", moves=_put_moves)
def index_put_(self: Spec, values: Spec, accumulate: bool) -> Flops:
    """writes the elements that the indices pick; with accumulate, one sum for each"""
    return Flops(vector=values.numel if accumulate and self.is_float else 0)


def _scatter_moves(self: Spec, index: Spec) -> Moves:
    return Moves(read={"self": 0}, written={"self": index.numel * self.itemsize})


free(
    {
        aten.scatter_.value: "writes the elements that the index picks",
        aten.scatter_.src: "writes the elements that the index picks",
    },
    fuses="scatter",
    moves=_scatter_moves,
)


def _scatter_whole(self: Spec, index: Spec, out: Spec) -> Moves:
    return Moves(read={"self": self.distinct_bytes}, written={"out": out.nbytes})


free(
    {
        aten.scatter.value: "copies, then writes what the index picks",
        aten.scatter.src: "copies, then writes what the index picks",
    },
    fuses="scatter",
    moves=_scatter_whole,
)


def _added_elements(self: Spec, index: Spec) -> Moves:
    touched = index.numel * self.itemsize
    return Moves(read={"self": touched}, written={"self": touched})


@rule(aten.scatter_add_.default, fuses="scatter", moves=_added_elements)
def scatter_add_(self: Spec, index: Spec) -> Flops:
    """one sum for each element that the index picks"""
    return Flops(vector=index.numel if self.is_float else 0)


def _added_rows(self: Spec, source: Spec) -> Moves:
    touched = source.numel * self.itemsize
    return Moves(read={"self": touched}, written={"self": touched})


@rule(aten.index_add_.default, fuses="scatter", moves=_added_rows)
def index_add_(self: Spec, source: Spec) -> Flops:
    """one sum for each element of source"""
    return Flops(vector=source.numel if self.is_float else 0)


def _whole_and_rows(self: Spec, source: Spec, out: Spec) -> Moves:
    return Moves(read={"self": self.distinct_bytes}, written={"out": out.nbytes})


@rule(aten.index_add.default, fuses="scatter", moves=_whole_and_rows)
def index_add(self: Spec, source: Spec) -> Flops:
    """copies, then one sum for each element of source"""
    return Flops(vector=source.numel if self.is_float else 0)


def _copied_rows(self: Spec, source: Spec) -> Moves:
    return Moves(read={"self": 0}, written={"self": source.numel * self.itemsize})


free({aten.index_copy_.default: "overwrites the rows that the index picks"}, fuses="scatter", moves=_copied_rows)


def _new_entries(cache: Spec | None, entries: Spec, *, out: Spec) -> Moves:
    return Moves(read={"cache": 0}, written={"out": out.bytes_of(entries.numel)})


free({cache_append: "an append: reads and writes the new entries only"}, fuses="scatter", moves=_new_entries)
