"""Vector FLOPs of reductions, running sums, and selections by size."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fxmeter.annotators.rules.cost import Flops
from fxmeter.annotators.rules.registry import first, free, per_element, rule
from fxmeter.models.stage_cost import Size
from fxmeter.tracer.graph.spec import Spec

aten = torch.ops.aten

per_element(
    dict.fromkeys(
        [
            aten.sum.default,
            aten.sum.dim_IntList,
            aten.nansum.default,
            aten.prod.default,
            aten.prod.dim_int,
            aten.amax.default,
            aten.amin.default,
            aten.max.default,
            aten.max.dim,
            aten.min.default,
            aten.min.dim,
            aten.argmax.default,
            aten.argmin.default,
        ],
        1,
    ),
    of="self",
    fuses="reduction",
)
per_element(
    {aten._softmax.default: 5, aten._log_softmax.default: 5, aten._safe_softmax.default: 5},
    of="self",
    fuses="reduction",
)
per_element(
    dict.fromkeys(
        [
            aten.cumsum.default,
            aten.cumsum_.default,
            aten.cumprod.default,
            aten.cumprod_.default,
            aten.cummax.default,
            aten.cummin.default,
            aten.topk.default,
            aten.sort.default,
            aten.sort.stable,
            aten.argsort.default,
            aten.argsort.stable,
            aten.histc.default,
            aten.bincount.default,
            aten._unique.default,
            aten._unique2.default,
            aten.histogram.bin_ct,
            aten.histogram.bins_tensor,
            aten._histogramdd_from_bin_cts.default,
            aten._histogramdd_from_bin_tensors.default,
            aten.unique_consecutive.default,
            aten.unique_dim.default,
            aten.median.default,
            aten.median.dim,
            aten.nanmedian.default,
            aten.nanmedian.dim,
            aten.kthvalue.default,
            aten.mode.default,
            aten.trace.default,
        ],
        1,
    ),
    of="self",
)
per_element({aten.logcumsumexp.default: 4}, of="self")  # max, difference, exp, sum
per_element({aten.aminmax.default: 2}, of="self", fuses="reduction")
per_element({aten._masked_softmax.default: 5}, of="self", fuses="reduction")
per_element({aten._histogramdd_bin_edges.default: 2}, of="self")  # smallest and largest
per_element({aten._segment_reduce_backward.default: 1}, of="data")
free(
    {
        aten.any.default: "boolean",
        aten.any.dim: "boolean",
        aten.any.dims: "boolean",
        aten.all.default: "boolean",
        aten.all.dim: "boolean",
        aten.all.dims: "boolean",
        aten.count_nonzero.default: "integer counting",
        aten.count_nonzero.dim_IntList: "integer counting",
    },
    fuses="reduction",
)
free(
    {
        aten.one_hot.default: "an index, written out",
        aten._is_all_true.default: "boolean",
        aten.equal.default: "hands one value to the program",
    },
    fuses="pointwise",
)
free(
    {
        aten._local_scalar_dense.default: "hands one value to the program",
        aten.nonzero.default: "an index of what is not zero",
        aten.nonzero_static.default: "an index of what is not zero",
        aten.hash_tensor.default: "integer arithmetic",
        aten.allclose.default: "hands one value to the program",
    }
)


def _floats(count: Size, self: Spec) -> Flops:
    return Flops(vector=count if self.is_float else 0)


@rule(aten.mean.default, aten.mean.dim, fuses="reduction")
def mean(self: Spec, *, out: Spec) -> Flops:
    """1 per element of self (the sum) and 1 per element of out (the quotient)"""
    return _floats(self.numel + out.numel, self)


@rule(aten.var.correction, aten.std.correction, aten.var_mean.correction, aten.std_mean.correction, fuses="reduction")
def var(self: Spec, *, out: Spec | Sequence[Spec]) -> Flops:
    """4 per element of self (sum; difference, square, sum) and 2 per element of out (two quotients)"""
    return _floats(4 * self.numel + 2 * first(out).numel, self)


@rule(
    aten.linalg_vector_norm.default,
    aten.norm.Scalar,
    aten.norm.ScalarOpt_dim,
    aten.norm.ScalarOpt_dtype,
    aten.norm.ScalarOpt_dim_dtype,
    fuses="reduction",
)
def linalg_vector_norm(self: Spec, *, out: Spec) -> Flops:
    """2 per element of self (square, sum) and 1 per element of out (root)"""
    return _floats(2 * self.numel + out.numel, self)


@rule(aten.dist.default, fuses="reduction")
def dist(self: Spec, other: Spec) -> Flops:
    """3 per element (difference, square, sum) and a root"""
    return Flops(vector=3 * max(self.numel, other.numel) + 1)


@rule(aten.logsumexp.default, fuses="reduction")
def logsumexp(self: Spec, *, out: Spec) -> Flops:
    """4 per element of self (max, difference, exp, sum) and 2 per element of out (log, sum)"""
    return _floats(4 * self.numel + 2 * out.numel, self)


@rule(aten.renorm.default, aten.renorm_.default, fuses="reduction")
def renorm(self: Spec) -> Flops:
    """3 per element: square, sum; scale"""
    return Flops(vector=3 * self.numel)


@rule(aten.embedding_renorm_.default)
def embedding_renorm_(self: Spec, indices: Spec) -> Flops:
    """3 per element of the rows looked up, as if each were another: square, sum; scale"""
    return Flops(vector=3 * indices.numel * self.shape[-1])


@rule(aten.segment_reduce.default)
def segment_reduce(data: Spec, reduce: str, *, out: Spec) -> Flops:
    """1 per element of data; for a mean a quotient for each of out"""
    return _floats(data.numel + (reduce == "mean") * out.numel, data)


@rule(aten.linalg__powsum.default, fuses="reduction")
def powsum(self: Spec) -> Flops:
    """2 per element of self (power, sum)"""
    return _floats(2 * self.numel, self)
