"""Factorisations and solves, as vector FLOPs: the operation counts of LAPACK (LAPACK Working Note 41, appendix C).

Leading terms, for each matrix of a batch; of complex numbers as many as of real ones. What iterates until it converges
(eigenvalues, singular values) has the counts that Golub and Van Loan give for the usual number of iterations (Matrix
Computations, fourth edition: sections 7.5.6 and 8.3.3, figure 8.6.1). A matrix exponential is squared as
often as its norm asks for; it has the count of one that need not be.
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


@rule(aten._linalg_det.default, aten._linalg_slogdet.default, aten.linalg_lu.default, aten.linalg_lu_factor_ex.default)
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


@rule(aten.geqrf.default)
def householder(self: Spec) -> Flops:
    """2·m·n² − ⅔·n³ for self[m, n], m not below n"""
    wide, narrow = max(self.shape[-2:]), min(self.shape[-2:])
    return Flops(vector=_batch(self) * (6 * wide * narrow**2 - 2 * narrow**3) // 3)


@rule(aten.linalg_qr.default)
def qr(A: Spec, *, out: Sequence[Spec]) -> Flops:
    """2·m·n² − ⅔·n³ for A[m, n], m not below n, and as many to form Q"""
    return householder(A) + householder(A)


@rule(aten.linalg_householder_product.default)
def householder_product(input: Spec, tau: Spec) -> Flops:
    """4·m·n·k − 2·(m + n)·k² + 4/3·k³: the first n columns of a product of k reflections of m elements"""
    rows, columns, count = *input.shape[-2:], tau.shape[-1]
    each = 12 * rows * columns * count - 6 * (rows + columns) * count**2 + 4 * count**3
    return Flops(vector=_batch(input) * each // 3)


@rule(aten.ormqr.default)
def ormqr(self: Spec, input2: Spec, input3: Spec) -> Flops:
    """4·m·n·k − 2·n·k²: k reflections of m elements on input3[m, n]"""
    rows, columns, count = self.shape[-2], input3.shape[-1], input2.shape[-1]
    return Flops(vector=_batch(input3) * (4 * rows - 2 * count) * count * columns)


@rule(aten._linalg_svd.default)
def svd(A: Spec, full_matrices: bool, compute_uv: bool) -> Flops:
    """4·m·n² − 4/3·n³ for A[m, n], m not below n; with vectors 14·m·n² + 8·n³, with all m 4·m²·n + 8·m·n² + 9·n³"""
    m, n = max(A.shape[-2:]), min(A.shape[-2:])
    if not compute_uv:
        return Flops(vector=_batch(A) * (12 * m * n**2 - 4 * n**3) // 3)
    return Flops(
        vector=_batch(A) * (4 * m**2 * n + 8 * m * n**2 + 9 * n**3 if full_matrices else 14 * m * n**2 + 8 * n**3)
    )


@rule(aten._linalg_eigh.default)
def eigh(A: Spec, compute_v: bool) -> Flops:
    """4/3·n³ for a symmetric A[n, n]; with vectors 9·n³"""
    return Flops(vector=_batch(A) * (27 if compute_v else 4) * A.shape[-1] ** 3 // 3)


@rule(aten.linalg_eig.default)
def eig(self: Spec) -> Flops:
    """25·n³ for self[n, n], with vectors"""
    return Flops(vector=25 * _batch(self) * self.shape[-1] ** 3)


@rule(aten._linalg_eigvals.default)
def eigvals(self: Spec) -> Flops:
    """10·n³ for self[n, n], without vectors"""
    return Flops(vector=10 * _batch(self) * self.shape[-1] ** 3)


@rule(aten.linalg_lstsq.default)
def lstsq(self: Spec, b: Spec) -> Flops:
    """2·m·n² − ⅔·n³ for self[m, n], m not below n, and 4·m·n − n² for each right-hand side"""
    wide, narrow = max(self.shape[-2:]), min(self.shape[-2:])
    sides = b.shape[-1] if len(b.shape) == len(self.shape) else 1
    return householder(self) + Flops(vector=_batch(self) * sides * (4 * wide - narrow) * narrow)


@rule(aten.linalg_matrix_exp.default)
def matrix_exponential(self: Spec) -> Flops:
    """5 products of n·n matrices and 53 per element: a Taylor polynomial of degree 18, without squaring

    Bader, Blanes and Casas, "Computing the Matrix Exponential with an Optimized Taylor Polynomial Approximation",
    Mathematics 7, 2019, as torch computes it for norms from 1.46 to 3.01 in float32: A², A³, A⁶, five sums of multiples
    of I, A, A², A³ and A⁶, two more products and three sums. A smaller norm takes fewer, each doubling one more.
    """
    return Flops(matmul=5 * 2 * self.numel * self.shape[-1], vector=(2 * 5 * 5 + 3) * self.numel)


@rule(aten.cholesky_inverse.default)
def cholesky_inverse(self: Spec) -> Flops:
    """⅔·n³ from the factor self[n, n]"""
    return Flops(vector=2 * _batch(self) * self.shape[-1] ** 3 // 3)


@rule(aten.cholesky_solve.default, aten._cholesky_solve_helper.default)
def cholesky_solve(self: Spec) -> Flops:
    """2·n²·k: two triangular solves of n unknowns for k right-hand sides"""
    return Flops(vector=2 * self.shape[-2] * self.numel)


@rule(aten.linalg_pinv.atol_rtol_tensor)
def pseudo_inverse(self: Spec, hermitian: bool, *, out: Spec) -> Flops:
    """its singular values (hermitian: eigenvalues) with vectors, one set of them scaled, and their product"""
    narrow = min(self.shape[-2:])
    parts = eigh(self, True) if hermitian else svd(self, False, True)
    return parts + Flops(matmul=2 * out.numel * narrow, vector=_batch(self) * self.shape[-1] * narrow)


@rule(aten.linalg_ldl_factor_ex.default)
def ldl(self: Spec) -> Flops:
    """n³/3 for self[n, n]"""
    return cholesky(self)


@rule(aten.linalg_ldl_solve.default)
def ldl_solve(LD: Spec, B: Spec) -> Flops:
    """2·n²·k: two triangular solves of n unknowns for k right-hand sides"""
    return lu_solve(LD, B)


@rule(aten.linalg_cross.default)
def cross(*, out: Spec) -> Flops:
    """3 per element: two products and their difference"""
    return Flops(vector=3 * first(out).numel)


free({aten._linalg_check_errors.default: "looks at a code", aten.lu_unpack.default: "a copy: no arithmetic"})
