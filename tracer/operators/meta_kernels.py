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


def _grouped_mm(func: Any, mat_a: Tensor, mat_b: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """a [M, K] @ b [E, K, N] by rows → [M, N]. torch's meta kernel refuses sizes that are no multiple of 16 bytes."""
    if not mat_a.is_meta or mat_a.dim() != 2 or mat_b.dim() != 3:
        return func(mat_a, mat_b, *args, **kwargs)
    return mat_a.new_empty(mat_a.shape[0], mat_b.shape[2])


def _batch_norm(func: Any, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """In evaluation no statistics are saved; torch's meta kernel returns some."""
    out, *saved = func(input, *args, **kwargs)
    training = kwargs.get("training", args[4] if len(args) > 4 else False)
    if not input.is_meta or training:
        return out, *saved
    return out, *(tensor.new_empty(0) for tensor in saved)


def _convolution(func: Any, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The result is in the order of a channels-last input, as on the CPU and on GPUs; torch's meta kernel loses it."""
    out: Tensor = func(input, *args, **kwargs)
    order = _CHANNELS_LAST.get(input.dim())
    if not input.is_meta or order is None or input.is_contiguous() or not input.is_contiguous(memory_format=order):
        return out
    return torch.empty_like(out, memory_format=order)


def _reflections(func: Any, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """A [.., m, n] → R and the reflections, as A, and min(m, n) scales. torch has no meta kernel."""
    if not input.is_meta:
        return func(input, *args, **kwargs)
    return torch.empty_like(input), input.new_empty(*input.shape[:-2], min(input.shape[-2:]))


def _cholesky_solve(func: Any, sides: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Right-hand sides → solutions. torch has no meta kernel."""
    return torch.empty_like(sides) if sides.is_meta else func(sides, *args, **kwargs)


def _least_squares(func: Any, matrix: Tensor, sides: Tensor, *args: Any, **kwargs: Any) -> Any:
    """A [.., m, n], b [.., m, k] → x [.., n, k], no residuals, rank, no singular values. torch has no meta kernel."""
    if not matrix.is_meta:
        return func(matrix, sides, *args, **kwargs)
    batch, unknowns = matrix.shape[:-2], matrix.shape[-1]
    shape = (*batch, unknowns, *sides.shape[matrix.dim() - 1 :])
    return sides.new_empty(shape), sides.new_empty(0), sides.new_empty(batch, dtype=torch.int64), sides.new_empty(0)


_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
META_KERNELS: dict[OpOverload, Function] = {
    torch.ops.aten._unsafe_view.default: lambda _, *given: torch.ops.aten.view.default(*given),  # three times as fast
    torch.ops.aten._grouped_mm.default: _grouped_mm,
    torch.ops.aten.convolution.default: _convolution,
    torch.ops.aten.native_batch_norm.default: _batch_norm,
    torch.ops.aten.geqrf.default: _reflections,
    torch.ops.aten._cholesky_solve_helper.default: _cholesky_solve,
    torch.ops.aten.linalg_lstsq.default: _least_squares,
}


class MetaKernels(TorchDispatchMode):
    """Runs the stand-ins above when nothing is recorded, and on meta what mixes it with other devices."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Args, args: Args = (), kwargs: Kwargs | None = None) -> Any:
        kwargs = kwargs or {}
        run = partial(META_KERNELS[func], func) if func in META_KERNELS else func
        if any(isinstance(value, Tensor) and not value.is_meta for value in args):
            return run_together(run, args, kwargs)
        return run_or_remember(func, run, args, kwargs)
