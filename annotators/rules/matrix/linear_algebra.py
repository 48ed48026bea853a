"""Factorisations and solves, as vector FLOPs: the operation counts of LAPACK (LAPACK Working Note 41, appendix C).

Leading terms, for each matrix of a batch. What iterates until it converges (eigenvalues, singular values) has no count
that its shapes decide, and no rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from fxmeter.annotators.rules.cost import Flops
from fxmeter.annotators.rules.registry import first, free, rule
from fxmeter.models.stage_cost import Size
from fxmeter.tracer.graph.spec import Spec

aten = torch.ops.aten


def _batch(matrix: Spec) -> Size:
    return math.prod(matrix.shape[:-2])


@rule(aten.linalg_cholesky_ex.default, aten.cholesky.default)
def cholesky(self: Spec) -> Flops:
    """n³/3 for self[n, n]"""
    return Flops(vector=_batch(self) * self.shape[-1] ** 3 // 3)


@rule(aten.linalg_inv_ex.default)
def inverse(A: Spec) -> Flops:
    """2·n³ for A[n, n]: its LU factorisation and the inverse from it"""
    return Flops(vector=2 * _batch(A) * A.shape[-1] ** 3)


@rule(aten._linalg_det.default, aten.linalg_lu_factor_ex.default)
def lu(A: Spec) -> Flops:
    """m·n² − n³/3 for A[m, n], m not below n; of a square one ⅔·n³"""
    wide, narrow = max(A.shape[-2:]), min(A.shape[-2:])
    return Flops(vector=_batch(A) * (3 * wide * narrow**2 - narrow**3) // 3)


@rule(aten.linalg_lu_solve.default)
def lu_solve(LU: Spec, B: Spec) -> Flops:
    """2·n²·k: two triangular solves of n unknowns for k right-hand sides"""
    return Flops(vector=2 * LU.shape[-1] * B.numel)


@rule(aten._linalg_solve_ex.default)
def solve(A: Spec, B: Spec) -> Flops:
    """⅔·n³ + 2·n²·k: the LU factorisation of A[n, n], and two triangular solves for k right-hand sides"""
    return lu(A) + lu_solve(A, B)


@rule(aten.linalg_solve_triangular.default)
def solve_triangular(self: Spec, B: Spec) -> Flops:
    """n²·k: substitution of n unknowns for k right-hand sides"""
    return Flops(vector=self.shape[-1] * B.numel)


@rule(aten.triangular_solve.default)
def triangular_solve(self: Spec, A: Spec) -> Flops:
    """n²·k: substitution of n unknowns for k right-hand sides"""
    return solve_triangular(A, self)


@rule(aten.linalg_qr.default)
def qr(A: Spec, *, out: Sequence[Spec]) -> Flops:
    """2·m·n² − ⅔·n³ for A[m, n], m not below n, and as many to form Q"""
    wide, narrow = max(A.shape[-2:]), min(A.shape[-2:])
    return Flops(vector=2 * _batch(A) * (6 * wide * narrow**2 - 2 * narrow**3) // 3)


@rule(aten.linalg_cross.default)
def cross(*, out: Spec) -> Flops:
    """3 per element: two products and their difference"""
    return Flops(vector=3 * first(out).numel)


free({aten._linalg_check_errors.default: "looks at a code"})
