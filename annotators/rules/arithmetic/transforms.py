"""Fourier transforms and distances between rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from fxmeter.annotators.rules.cost import Flops
from fxmeter.annotators.rules.registry import rule
from fxmeter.models.stage_cost import Size
from fxmeter.tracer.graph.spec import Spec

aten = torch.ops.aten


def _fourier(whole: Spec, dim: Sequence[int], per_point: float) -> Size:
    """``per_point`` · N · log2 N for each of the transforms of N points in ``whole``, rounded once."""
    points = math.prod(whole.shape[d] for d in dim)
    return round(per_point * whole.numel * math.log2(points)) if points > 1 else 0


@rule(aten._fft_c2c.default)
def fft_c2c(self: Spec, dim: list[int]) -> Flops:
    """5·N·log2 N for each complex transform of N points, all transformed dimensions together

    The radix-2 count of Cooley and Tukey, by which FFTW states its speed whatever algorithm runs (Frigo and Johnson,
    "The Design and Implementation of FFTW3", Proc. IEEE 93, 2005, section VI). Scaling by N is not in it.
    """
    return Flops(vector=_fourier(self, dim, 5))


@rule(aten._fft_r2c.default)
def fft_r2c(self: Spec, dim: list[int]) -> Flops:
    """2.5·N·log2 N for each transform of N real points, half of a complex one (Frigo and Johnson, 2005)"""
    return Flops(vector=_fourier(self, dim, 2.5))


@rule(aten._fft_c2r.default)
def fft_c2r(dim: list[int], *, out: Spec) -> Flops:
    """2.5·N·log2 N for each transform to N real points, half of a complex one (Frigo and Johnson, 2005)"""
    return Flops(vector=_fourier(out, dim, 2.5))


def _per_coordinate(p: float) -> int:
    """Difference, and its part of the norm: compare or square or absolute value, then sum or max; a power besides."""
    return 3 if p in (0, 1, 2, math.inf) else 4


@rule(aten._cdist_forward.default)
def cdist_forward(x1: Spec, p: float, *, out: Spec) -> Flops:
    """3 per pair of rows and coordinate (difference, square, sum), 4 where p is not 0, 1, 2 or ∞; a root per pair"""
    root = p not in (0, 1, math.inf)
    return Flops(vector=out.numel * (_per_coordinate(p) * x1.shape[-1] + root))


@rule(aten._pdist_forward.default)
def pdist_forward(self: Spec, p: float, *, out: Spec) -> Flops:
    """as a distance of each two rows"""
    return cdist_forward(self, p, out=out)


@rule(aten._cdist_backward.default)
def cdist_backward(x1: Spec, p: float, cdist: Spec) -> Flops:
    """4 per pair of rows and coordinate (difference, quotient by the distance, product, sum), 6 where p is not 1 or 2

    Where p is not 1 or 2 the difference and the distance are raised to p − 1 first.
    """
    return Flops(vector=(4 if p in (1, 2) else 6) * cdist.numel * x1.shape[-1])


@rule(aten._pdist_backward.default)
def pdist_backward(self: Spec, p: float, pdist: Spec) -> Flops:
    """as the gradient of a distance of each two rows, into both"""
    return Flops(vector=2 * cdist_backward(self, p, pdist).vector)


@rule(aten._euclidean_dist.default)
def euclidean_dist(x1: Spec, x2: Spec, *, out: Spec) -> Flops:
    """√(|a|² − 2ab + |b|²) as one product of rows of D + 2; 2 per coordinate of both, 1 of a, a maximum, a root"""
    rows = x1.shape[-1] + 2
    vector = 2 * (x1.numel + x2.numel) + x1.numel + 2 * out.numel
    return Flops(matmul=2 * out.numel * rows, vector=vector)
