"""Shape-only stand-ins for ops whose own meta kernels refuse what a model may ask of them."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from fxmeter.models.names import Kwargs
from fxmeter.tracer.graph.values import Args, Function
from fxmeter.tracer.operators.devices import run_together
from fxmeter.tracer.operators.remembered import run_or_remember
from fxmeter.tracer.private import OpOverload, TorchDispatchMode


def _on_meta(shapes: Function) -> Function:
    """A stand-in that has what ``shapes`` makes of an op's arguments where they are on meta; elsewhere the op runs."""

    def run(func: Function, first: Tensor, *args: object, **kwargs: object) -> object:
        return (shapes if first.is_meta else func)(first, *args, **kwargs)

    return run


def _grouped_mm(func: Function, mat_a: Tensor, mat_b: Tensor, *args: object, **kwargs: object) -> Tensor:
    """a [M, K] @ b [E, K, N] by rows → [M, N]. torch's meta kernel refuses sizes that are no multiple of 16 bytes."""
    if not mat_a.is_meta or mat_a.dim() != 2 or mat_b.dim() != 3:
        return func(mat_a, mat_b, *args, **kwargs)
    return mat_a.new_empty(mat_a.shape[0], mat_b.shape[2])


def _batch_norm(func: Function, input: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, ...]:
    """In evaluation no statistics are saved; torch's meta kernel returns some."""
    out, *saved = func(input, *args, **kwargs)
    training = kwargs.get("training", args[4] if len(args) > 4 else False)
    if not input.is_meta or training:
        return out, *saved
    return out, *(tensor.new_empty(0) for tensor in saved)


def _convolution(func: Function, input: Tensor, *args: object, **kwargs: object) -> Tensor:
    """The result is in the order of a channels-last input, as on the CPU and on GPUs; torch's meta kernel loses it."""
    out: Tensor = func(input, *args, **kwargs)
    order = _CHANNELS_LAST.get(input.dim())
    if not input.is_meta or order is None or input.is_contiguous() or not input.is_contiguous(memory_format=order):
        return out
    return torch.empty_like(out, memory_format=order)


# torch has no meta kernels for the ops below


@_on_meta
def _reflections(input: Tensor) -> tuple[Tensor, ...]:
    """A [.., m, n] → R and the reflections, as A, and min(m, n) scales."""
    return torch.empty_like(input), input.new_empty(*input.shape[:-2], min(input.shape[-2:]))


@_on_meta
def _least_squares(matrix: Tensor, sides: Tensor, *_: object, **__: object) -> tuple[Tensor, ...]:
    """A [.., m, n], b [.., m, k] → x [.., n, k], no residuals, rank, no singular values."""
    batch, unknowns = matrix.shape[:-2], matrix.shape[-1]
    shape = (*batch, unknowns, *sides.shape[matrix.dim() - 1 :])
    return sides.new_empty(shape), sides.new_empty(0), sides.new_empty(batch, dtype=torch.int64), sides.new_empty(0)


@_on_meta
def _histogram(input: Tensor, bins: int | Tensor = 100, **_: object) -> tuple[Tensor, ...]:
    """Counts, and the edges of ``bins``, a number or the edges themselves."""
    edges = bins + 1 if isinstance(bins, int) else bins.numel()
    return input.new_empty(edges - 1), input.new_empty(edges)


@_on_meta
def _histogram_edges(input: Tensor, bins: list[int], **_: object) -> list[Tensor]:
    """The edges of each dimension's bins."""
    return [input.new_empty(n + 1) for n in bins]


@_on_meta
def _histogram_counts(input: Tensor, bins: list[int | Tensor], **_: object) -> Tensor:
    """Counts of the bins of all dimensions, given by number or by their edges."""
    return input.new_empty([n if isinstance(n, int) else n.numel() - 1 for n in bins])


@_on_meta
def _ctc_loss(log_probs: Tensor, _: Tensor, __: list[int], lengths: list[int], *___: object) -> tuple[Tensor, ...]:
    """log_probs [T, B, C] → a loss each, and for each time and state a probability."""
    steps, batch = log_probs.shape[0], log_probs.shape[1] if log_probs.dim() == 3 else 1
    return log_probs.new_empty(batch), log_probs.new_empty(batch, steps, 2 * max(lengths, default=0) + 1)


@_on_meta
def _fake_quantized(input: Tensor, *_: object) -> tuple[Tensor, ...]:
    """As the input, with the mask of what was not cut off."""
    return torch.empty_like(input), torch.empty_like(input, dtype=torch.bool)


def _like(*places: int) -> Function:
    """Of each of the arguments at ``places`` one like it, as the gradients of them are."""

    @_on_meta
    def shapes(*args: Tensor) -> Tensor | tuple[Tensor, ...]:
        made = tuple(torch.empty_like(args[place]) for place in places)
        return made[0] if len(places) == 1 else made

    return shapes


ASSUMED = {
    torch.ops.aten.linalg_matrix_exp.default: "no matrix has to be squared for its exponential: norms are at most 3"
}
"""What an op's price takes for granted of data, in words."""
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
META_KERNELS: dict[OpOverload, Function] = {
    torch.ops.aten._unsafe_view.default: lambda _, *given: torch.ops.aten.view.default(*given),  # three times as fast
    torch.ops.aten._grouped_mm.default: _grouped_mm,
    torch.ops.aten.convolution.default: _convolution,
    torch.ops.aten.native_batch_norm.default: _batch_norm,
    torch.ops.aten.geqrf.default: _reflections,
    torch.ops.aten._cholesky_solve_helper.default: _like(0),
    torch.ops.aten.linalg_lstsq.default: _least_squares,
    torch.ops.aten.fake_quantize_per_tensor_affine_cachemask.default: _fake_quantized,
    torch.ops.aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default: _fake_quantized,
    torch.ops.aten.fake_quantize_per_channel_affine_cachemask.default: _fake_quantized,
    torch.ops.aten._fake_quantize_learnable_per_tensor_affine.default: _like(0),
    torch.ops.aten._fake_quantize_learnable_per_channel_affine.default: _like(0),
    torch.ops.aten._fake_quantize_learnable_per_tensor_affine_backward.default: _like(1, 2, 3),
    torch.ops.aten._fake_quantize_learnable_per_channel_affine_backward.default: _like(1, 2, 3),
    torch.ops.aten.histogram.bin_ct: _histogram,
    torch.ops.aten.histogram.bins_tensor: _histogram,
    torch.ops.aten._histogramdd_bin_edges.default: _histogram_edges,
    torch.ops.aten._histogramdd_from_bin_cts.default: _histogram_counts,
    torch.ops.aten._histogramdd_from_bin_tensors.default: _histogram_counts,
    torch.ops.aten._ctc_loss.default: _ctc_loss,
    torch.ops.aten._ctc_loss_backward.default: _like(1),
    torch.ops.aten.multi_margin_loss_backward.default: _like(1),
    torch.ops.aten.multilabel_margin_loss_backward.default: _like(1),
    torch.ops.aten.fractional_max_pool3d_backward.default: _like(1),
}


class MetaKernels(TorchDispatchMode):
    """Runs the stand-ins above when nothing is recorded, and on meta what mixes it with other devices."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: OpOverload, types: Args, args: Args = (), kwargs: Kwargs | None = None) -> Any:
        kwargs = kwargs or {}
        run = partial(META_KERNELS[func], func) if func in META_KERNELS else func
        for value in args:
            if isinstance(value, Tensor) and not value.is_meta:
                return run_together(run, args, kwargs)
        return run_or_remember(func, run, args, kwargs)
