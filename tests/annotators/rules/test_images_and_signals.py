"""Rules of convolutional networks, Fourier transforms, distances and losses, by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fxmeter import annotate_module


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


class Of(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


def cost(function, *tensors):
    stage = annotate_module(Of(function), *tensors)
    assert stage.uncosted == ()
    return stage.cost


IMAGE, VIDEO = meta(2, 3, 8, 8), meta(2, 3, 8, 8, 8)
LABELS = meta(6, dtype=torch.int64)


def batch_norm(training, statistics=True):
    running = (meta(3), meta(3)) if statistics else (None, None)
    return lambda x, w, b: F.batch_norm(x, *running, w, b, training=training)


VECTOR = {
    "max pool": (lambda x: F.max_pool2d(x, 2), (IMAGE,), 4 * 2 * 3 * 4 * 4),
    "max pool, strided": (lambda x: F.max_pool2d(x, 3, stride=2, padding=1), (IMAGE,), 9 * 2 * 3 * 4 * 4),
    "max pool 1d": (lambda x: F.max_pool1d(x, 4), (meta(2, 3, 8),), 4 * 2 * 3 * 2),
    "max pool 3d": (lambda x: F.max_pool3d(x, 2), (VIDEO,), 8 * 2 * 3 * 4 * 4 * 4),
    "avg pool": (lambda x: F.avg_pool2d(x, 2), (IMAGE,), (4 + 1) * 2 * 3 * 4 * 4),
    "avg pool 3d": (lambda x: F.avg_pool3d(x, 2), (VIDEO,), (8 + 1) * 2 * 3 * 4 * 4 * 4),
    # windows of 8 rows by 3: rows 0 to 2, 2 to 5, 5 to 7, which is 3 + 4 + 3
    "adaptive max pool": (lambda x: F.adaptive_max_pool2d(x, 3), (IMAGE,), 2 * 3 * 10 * 10),
    "adaptive avg pool": (lambda x: F.adaptive_avg_pool2d(x, 3), (IMAGE,), 2 * 3 * (10 * 10 + 3 * 3)),
    "adaptive avg pool 3d": (lambda x: F.adaptive_avg_pool3d(x, 2), (VIDEO,), 2 * 3 * (8 * 8 * 8 + 2 * 2 * 2)),
    "batch norm": (batch_norm(False), (IMAGE, meta(3), meta(3)), 4 * 2 * 3 * 8 * 8 + 2 * 3),
    "batch norm, training": (batch_norm(True), (IMAGE, meta(3), meta(3)), 8 * 2 * 3 * 8 * 8 + 6 * 3),
    "batch norm of a batch": (batch_norm(True, False), (IMAGE, meta(3), meta(3)), 8 * 2 * 3 * 8 * 8),
    "fft": (torch.fft.fft, (meta(3, 16, dtype=torch.complex64),), 3 * 5 * 16 * 4),
    "fft of two dimensions": (torch.fft.fft2, (meta(3, 8, 4, dtype=torch.complex64),), 3 * 5 * 32 * 5),
    "rfft": (torch.fft.rfft, (meta(3, 16),), 3 * 5 * 16 * 4 // 2),
    "irfft": (torch.fft.irfft, (meta(3, 9, dtype=torch.complex64),), 3 * 5 * 16 * 4 // 2),
    "cdist": (lambda a, b: torch.cdist(a, b, p=1), (meta(4, 6), meta(5, 6)), 4 * 5 * 3 * 6),
    "cdist of squares": (torch.cdist, (meta(4, 6), meta(5, 6)), 4 * 5 * (3 * 6 + 1)),
    "cross entropy": (F.cross_entropy, (meta(6, 10), LABELS), 5 * 6 * 10 + 2 * 6 + 1),
    "l1 loss": (F.l1_loss, (meta(6, 10), meta(6, 10)), (1 + 1 + 1) * 6 * 10 + 1),
    "upsampling of three dimensions": (
        lambda x: F.interpolate(x, scale_factor=2, mode="trilinear"),
        (VIDEO,),
        15 * 2 * 3 * 16 * 16 * 16,
    ),
    "solve": (torch.linalg.solve, (meta(6, 6), meta(6, 2)), 2 * 6 * 6 * 6 // 3 + 2 * 6 * 6 * 2),
    # m = 9, n = 6, two of them; Golub and Van Loan, figure 8.6.1, sections 8.3.3 and 7.5.6
    "singular values": (
        lambda a: torch.ops.aten._linalg_svd(a, False, False)[1],
        (meta(2, 6, 9),),
        2 * (4 * 9 * 6**2 - 4 * 6**3 // 3),
    ),
    "svd": (lambda a: torch.linalg.svd(a, full_matrices=False), (meta(2, 9, 6),), 2 * (14 * 9 * 6**2 + 8 * 6**3)),
    "svd, all of it": (torch.linalg.svd, (meta(9, 6),), 4 * 9**2 * 6 + 8 * 9 * 6**2 + 9 * 6**3),
    "symmetric eigenvalues": (
        lambda a: torch.ops.aten._linalg_eigh(a, "L", False)[0],
        (meta(2, 6, 6),),
        2 * 4 * 6**3 // 3,
    ),
    "symmetric eigenvectors": (torch.linalg.eigh, (meta(6, 6),), 9 * 6**3),
    "eigenvalues": (torch.ops.aten._linalg_eigvals, (meta(6, 6),), 10 * 6**3),
    "eigenvectors": (torch.linalg.eig, (meta(6, 6),), 25 * 6**3),
    "determinant's logarithm": (torch.linalg.slogdet, (meta(6, 6),), 2 * 6**3 // 3),
    # 2·m·n² − ⅔·n³ for the factorisation; for each side Qᵀb, 4·m·n − 2·n², and n² for the triangle
    "least squares": (
        lambda a, b: torch.linalg.lstsq(a, b).solution,
        (meta(9, 6), meta(9, 2)),
        2 * 9 * 6**2 - 2 * 6**3 // 3 + 2 * ((4 * 9 * 6 - 2 * 6**2) + 6**2),
    ),
    "solve by a cholesky factor": (torch.cholesky_solve, (meta(6, 2), meta(6, 6)), 2 * 6 * 6 * 2),
    "inverse by a cholesky factor": (torch.cholesky_inverse, (meta(6, 6),), 2 * 6**3 // 3),
    "reflections": (torch.geqrf, (meta(9, 6),), 2 * 9 * 6**2 - 2 * 6**3 // 3),
    # of as many reflections as columns it is what the factorisation took
    "their product": (torch.linalg.householder_product, (meta(9, 6), meta(6)), 2 * 9 * 6**2 - 2 * 6**3 // 3),
    "their product with a matrix": (torch.ormqr, (meta(9, 6), meta(6), meta(9, 2)), (4 * 9 - 2 * 6) * 6 * 2),
    "ldl": (lambda a: torch.linalg.ldl_factor_ex(a)[0], (meta(6, 6),), 6**3 // 3),
    "distance": (torch.dist, (meta(4, 5), meta(4, 5)), 3 * 4 * 5 + 1),
    "degrees": (torch.deg2rad, (meta(4, 5),), 4 * 5),
    "bits": (lambda a: (a << 2) >> 1, (meta(4, dtype=torch.int32),), 0),
    "scatter of products": (
        lambda a, i, s: a.scatter(0, i, s, reduce="multiply"),
        (meta(4, 5), meta(2, 5, dtype=torch.int64), meta(2, 5)),
        2 * 5,
    ),
    "index reduce": (
        lambda a, i, s: a.index_reduce(0, i, s, "mean"),
        (meta(4, 5), meta(2, dtype=torch.int64), meta(2, 5)),
        2 * 5 + 4 * 5,
    ),
    "sampling a volume": (
        lambda x, g: F.grid_sample(x, g, align_corners=False),
        (VIDEO, meta(2, 2, 2, 2, 3)),
        15 * 2 * 3 * 2**3 + 42 * 2 * 2**3,
    ),
}


@pytest.mark.parametrize("name", VECTOR)
def test_vector_flops(name):
    function, tensors, expected = VECTOR[name]
    assert (cost(function, *tensors).vector_flops, cost(function, *tensors).matmul_flops) == (expected, 0)


def test_a_convolution_keeps_the_order_of_a_channels_last_input():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.linear = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Linear(8, 4)

        def forward(self, x):  # [N, HW, C], as the feed-forward of a pyramid vision transformer
            x = self.conv(x.transpose(1, 2).view(2, 8, 6, 6))
            return self.linear(x.flatten(2).transpose(1, 2))

    ops = {op.op for op in annotate_module(Mixed(), torch.randn(2, 36, 8)).ops}
    assert "aten.addmm.default" in ops
    assert not ops & {"aten.clone.default", "aten.mm.default"}


def test_a_bilinear_layer_is_two_products():
    found = cost(F.bilinear, meta(3, 4), meta(3, 5), meta(6, 4, 5), meta(6))
    assert found.matmul_flops == 6 * (2 * 3 * 4 * 5 + 2 * 3 * 5)
    assert found.vector_flops == 3 * 6


def test_a_pseudo_inverse_is_singular_vectors_and_their_product():
    found = cost(torch.linalg.pinv, meta(9, 6))
    assert (found.matmul_flops, found.vector_flops) == (2 * 9 * 6 * 6, 14 * 9 * 6**2 + 8 * 6**3 + 6 * 6)


def test_a_product_with_packed_weights_is_that_of_its_shapes():
    found = cost(torch.ops.aten._weight_int8pack_mm, meta(3, 8), meta(5, 8, dtype=torch.int8), meta(5))
    assert (found.matmul_flops, found.vector_flops) == (2 * 3 * 5 * 8, 3 * 5)


def test_what_its_values_alone_decide_has_no_price_and_says_so():
    stage = annotate_module(Of(torch.special.hermite_polynomial_h), meta(6), meta(6))
    assert [item.op for item in stage.uncosted] == ["aten.special_hermite_polynomial_h.default"]


def test_a_module_over_several_devices_is_priced_as_on_one():
    layer = nn.Linear(4, 5)
    found = annotate_module(nn.DataParallel(layer), meta(3, 4))
    assert found.uncosted == () and found.cost.flops == annotate_module(layer, meta(3, 4)).cost.flops


def test_a_distance_of_many_rows_is_a_product():
    assert cost(torch.cdist, meta(40, 8), meta(30, 8)).matmul_flops == 2 * 40 * 30 * (8 + 2)


def test_the_gradient_of_a_pooling_does_not_read_what_was_pooled():
    def gradient(grad, x):
        return torch.ops.aten.avg_pool2d_backward(grad, x, [2, 2], [2, 2], [0, 0], False, True, None)

    assert cost(gradient, meta(2, 3, 4, 4), IMAGE).activation_read_bytes == 4 * 2 * 3 * 4 * 4


def test_an_embedding_bag_reads_the_rows_that_it_looks_up():
    bag = nn.EmbeddingBag(100, 8)
    found = annotate_module(bag, torch.randint(100, (2, 5))).cost
    assert found.weight_read_bytes == 4 * 2 * 5 * 8
    assert found.vector_flops == 2 * 5 * 8 + 2 * 8
