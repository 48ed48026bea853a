"""Gathers and scatters, with the bytes that they move: of what is indexed, what the indices pick."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from fxmeter.annotators.rules.cost import Flops, Moves
from fxmeter.annotators.rules.registry import first, free, rule
from fxmeter.annotators.symbolic import smallest
from fxmeter.models.stage_cost import Size
from fxmeter.tracer.graph.spec import Spec, specs_in

aten = torch.ops.aten

GATHER = "a gather: reads the elements that it returns; of a weight at most the whole"


def gathered(table: Spec, elements: Size) -> Size:
    """Bytes that a gather of ``elements`` reads: all of them; of a weight each once, however often they are picked.

    ``smallest`` and not ``min``: which of the two it is hangs on how many rows there are, and one formula for both is
    easier to read than one for each.
    """
    picked = table.bytes_of(elements)
    return smallest([picked, table.distinct_bytes]) if table.role == "weight" else picked


def _rows(self: Spec, out: Spec) -> Moves:
    return Moves(read={"self": gathered(self, out.numel)})


free(
    dict.fromkeys(
        [
            aten.gather.default,
            aten.index_select.default,
            aten.index.Tensor,
            aten._unsafe_index.Tensor,
            aten._unsafe_masked_index.default,
            aten.take.default,
        ],
        GATHER,
    ),
    fuses="gather",
    moves=_rows,
)


def _embedding_rows(weight: Spec, out: Spec) -> Moves:
    return Moves(read={"weight": gathered(weight, out.numel)})


free(
    {aten.embedding.default: "a gather: reads the rows that it looks up, at most the table"},
    fuses="gather",
    moves=_embedding_rows,
)


def _put_moves(self: Spec, indices: Sequence[Spec | None], values: Spec, accumulate: bool) -> Moves:
    """The elements that the indices, broadcast together, pick: those of the unindexed dimensions for each.

    A mask picks as many as there are values, or where one value is for all, at most the whole.
    """
    if any(spec.dtype == torch.bool for spec in specs_in(indices)):
        picked = self.numel if len(values.shape) == 0 else values.numel
        return Moves(
            read={"self": picked * self.itemsize if accumulate else 0}, written={"self": picked * self.itemsize}
        )
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


@rule(aten.index_put_.default, aten._index_put_impl_.default, fuses="scatter", moves=_put_moves)
def index_put_(self: Spec, values: Spec, accumulate: bool) -> Flops:
    """writes the elements that the indices pick; with accumulate, one sum for each"""
    return Flops(vector=values.numel if accumulate and self.is_float else 0)


def _copied(self: Spec, out: Spec) -> Moves:
    """A copy, then as in place: what is read of the copy is in a cache."""
    return Moves(read={"self": self.distinct_bytes}, written={"out": out.nbytes})


@rule(
    aten.index_put.default,
    aten._index_put_impl.default,
    aten._unsafe_index_put.default,
    fuses="scatter",
    moves=_copied,
)
def index_put(self: Spec, values: Spec, accumulate: bool) -> Flops:
    """copies, then writes the elements that the indices pick; with accumulate, one sum for each"""
    return Flops(vector=values.numel if accumulate and self.is_float else 0)


@rule(aten.put.default, fuses="scatter", moves=_copied)
def put(self: Spec, source: Spec, accumulate: bool) -> Flops:
    """copies, then writes the elements that the index picks; with accumulate, one sum for each"""
    return Flops(vector=source.numel if accumulate and self.is_float else 0)


def _put_elements(self: Spec, index: Spec, accumulate: bool) -> Moves:
    touched = index.numel * self.itemsize
    return Moves(read={"self": touched if accumulate else 0}, written={"self": touched})


@rule(aten.put_.default, fuses="scatter", moves=_put_elements)
def put_(self: Spec, source: Spec, accumulate: bool) -> Flops:
    """writes the elements that the index picks; with accumulate, one sum for each"""
    return put(self, source, accumulate)


@rule(aten._unsafe_masked_index_put_accumulate.default, fuses="scatter", moves=_copied)
def masked_index_put_accumulate(self: Spec, values: Spec) -> Flops:
    """copies, then one sum for each of the values, as if the mask kept all"""
    return Flops(vector=values.numel if self.is_float else 0)


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


free(
    {
        aten.scatter.value: "copies, then writes what the index picks",
        aten.scatter.src: "copies, then writes what the index picks",
    },
    fuses="scatter",
    moves=_copied,
)


def _added_elements(self: Spec, index: Spec) -> Moves:
    touched = index.numel * self.itemsize
    return Moves(read={"self": touched}, written={"self": touched})


@rule(aten.scatter_add_.default, fuses="scatter", moves=_added_elements)
def scatter_add_(self: Spec, index: Spec) -> Flops:
    """one sum for each element that the index picks"""
    return Flops(vector=index.numel if self.is_float else 0)


@rule(aten.scatter_add.default, fuses="scatter", moves=_copied)
def scatter_add(self: Spec, index: Spec) -> Flops:
    """copies, then one sum for each element that the index picks"""
    return Flops(vector=index.numel if self.is_float else 0)


@rule(
    aten.scatter_reduce.two,
    aten.scatter.reduce,
    aten.scatter.value_reduce,
    fuses="scatter",
    moves=_copied,
)
def scatter_reduce(self: Spec, index: Spec, reduce: str) -> Flops:
    """copies, then one sum, product or comparison for each element that the index picks; for a mean a quotient each"""
    return scatter_reduce_(self, index, reduce)


@rule(
    aten.scatter_reduce_.two,
    aten.scatter_.reduce,
    aten.scatter_.value_reduce,
    fuses="scatter",
    moves=_added_elements,
)
def scatter_reduce_(self: Spec, index: Spec, reduce: str) -> Flops:
    """one sum, product or comparison for each element that the index picks; for a mean a quotient each"""
    return Flops(vector=index.numel + (reduce == "mean") * self.numel if self.is_float else 0)


def _added_rows(self: Spec, source: Spec) -> Moves:
    touched = source.numel * self.itemsize
    return Moves(read={"self": touched}, written={"self": touched})


@rule(aten.index_add_.default, fuses="scatter", moves=_added_rows)
def index_add_(self: Spec, source: Spec) -> Flops:
    """one sum for each element of source"""
    return Flops(vector=source.numel if self.is_float else 0)


@rule(aten.index_add.default, fuses="scatter", moves=_copied)
def index_add(self: Spec, source: Spec) -> Flops:
    """copies, then one sum for each element of source"""
    return Flops(vector=source.numel if self.is_float else 0)


@rule(aten.index_reduce_.default, fuses="scatter", moves=_added_rows)
def index_reduce_(self: Spec, source: Spec, reduce: str) -> Flops:
    """one product, comparison or sum for each element of source; for a mean a quotient each"""
    return Flops(vector=source.numel + (reduce == "mean") * self.numel if self.is_float else 0)


@rule(aten.index_reduce.default, fuses="scatter", moves=_copied)
def index_reduce(self: Spec, source: Spec, reduce: str) -> Flops:
    """copies, then one product, comparison or sum for each element of source; for a mean a quotient each"""
    return index_reduce_(self, source, reduce)


def _copied_rows(self: Spec, source: Spec) -> Moves:
    return Moves(read={"self": 0}, written={"self": source.numel * self.itemsize})


free({aten.index_copy_.default: "overwrites the rows that the index picks"}, fuses="scatter", moves=_copied_rows)


free(
    {aten.index_copy.default: "copies, then overwrites the rows that the index picks"},
    fuses="scatter",
    moves=_copied,
)


def _filled_rows(self: Spec, index: Spec, dim: int) -> Moves:
    """The rows that the index picks."""
    return Moves(read={"self": 0}, written={"self": self.nbytes // self.shape[dim] * index.numel})


free(
    dict.fromkeys(
        [aten.index_fill_.int_Scalar, aten.index_fill_.int_Tensor], "overwrites the rows that the index picks"
    ),
    fuses="scatter",
    moves=_filled_rows,
)
free(
    dict.fromkeys(
        [aten.index_fill.int_Scalar, aten.index_fill.int_Tensor], "copies, then overwrites what the index picks"
    ),
    fuses="scatter",
    moves=_copied,
)


def _looked_up(weight: Spec, indices: Spec) -> Moves:
    """The rows that are looked up, at most the table."""
    rows = indices.numel * math.prod(weight.shape[1:])
    return Moves(read={"weight": gathered(weight, rows)})


@rule(aten._embedding_bag.default, aten._embedding_bag_forward_only.default, fuses="gather", moves=_looked_up)
def embedding_bag(
    weight: Spec, indices: Spec, per_sample_weights: Spec | None, mode: int, *, out: Sequence[Spec]
) -> Flops:
    """1 per element looked up (sum or max), 1 more with weights, and 1 per element of out for a mean"""
    rows = indices.numel * math.prod(weight.shape[1:])
    return Flops(vector=(1 + (per_sample_weights is not None)) * rows + (mode == 1) * first(out).numel)


@rule(aten._embedding_bag_per_sample_weights_backward.default)
def embedding_bag_weights_backward(grad: Spec, indices: Spec) -> Flops:
    """2 per element looked up: its product with the gradient, and their sum"""
    return Flops(vector=2 * indices.numel * grad.shape[-1])


@rule(aten._embedding_bag_dense_backward.default, aten._embedding_bag_backward.default, fuses="scatter")
def embedding_bag_backward(grad: Spec, indices: Spec, mode: int) -> Flops:
    """1 per element looked up: its sum into the row; a quotient each for a mean"""
    rows = indices.numel * grad.shape[-1]
    return Flops(vector=(1 + (mode == 1)) * rows)
