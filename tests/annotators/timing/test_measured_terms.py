"""What a calibration adds to the time of a kernel: efficiency by rows and layout, the cache, fresh pages."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fxmeter import annotate, annotate_module, decode
from fxmeter.annotators.timing import benchmarks
from fxmeter.annotators.timing.calibrate import _shares
from fxmeter.annotators.timing.kernel import Kernel
from fxmeter.annotators.timing.roofline import kernel_time
from fxmeter.models.devices.device import Device, Efficiency, device_from
from fxmeter.models.errors import DeviceError

PLAIN = Device(
    name="plain",
    vendor="",
    aliases=(),
    matrix_flops_per_s={"fp32": 1e11},
    vector_flops_per_s={"fp32": 1e11},
    bandwidth_bytes_per_s=1e10,
    memory_bytes=2**34,
    efficiency=Efficiency(bandwidth=1.0, elementwise=0.5, any_matrix=0.9, launch_s=1e-6),
)
ROWS = replace(PLAIN, efficiency=replace(PLAIN.efficiency, by_rows={"fp32": {"mm_t": {4: 0.1, 64: 0.4}}}))
CACHE = replace(PLAIN, cache_bytes=10**6, cache_bytes_per_s=5e10)
PAGES = replace(PLAIN, efficiency=replace(PLAIN.efficiency, fresh_from_bytes=2**25, fresh_bytes_per_s=1e9))


def product(rows: int, form: str = "mm_t") -> Kernel:
    return Kernel("k", "aten.mm.default", "", 1, "product", "fp32", 10**9, 0, 0, form=form, rows=rows)


def between(nbytes: int, made: int = 0) -> Kernel:
    return Kernel("k", "aten.mul.Tensor", "", 1, "elementwise", "fp32", 0, 0, nbytes, made_bytes=made)


@pytest.mark.parametrize(
    ("rows", "share"),
    [(4, 0.1), (64, 0.4), (16, math.sqrt(0.1 * 0.4)), (1, 0.1), (4096, 0.4)],  # 16 is half way in logarithms
)
def test_a_product_reaches_what_was_measured_for_its_rows(rows, share):
    timed = kernel_time(product(rows), ROWS)
    assert float(timed.estimate_s) == pytest.approx(1e9 / (share * 1e11) + 1e-6, rel=1e-9)


def test_more_rows_never_take_less_time_and_a_layout_that_was_not_measured_has_the_usual_share():
    grid = np.arange(1, 200)
    times = kernel_time(replace(product(1), matmul_flops=10**6 * grid, rows=grid), ROWS).estimate_s
    assert (np.diff(times) > 0).all()
    assert float(kernel_time(product(4, "mm"), ROWS).estimate_s) == pytest.approx(1e9 / (0.9 * 1e11) + 1e-6)


def test_what_fits_into_the_cache_streams_at_its_rate_and_is_bound_by_it():
    inside, outside = (kernel_time(between(nbytes), CACHE) for nbytes in (10**6, 10**6 + 1))
    assert float(inside.estimate_s) == pytest.approx(1e6 / 5e10 + 1e-6)
    assert float(inside.bound_s) == pytest.approx(1e6 / 5e10)
    assert float(outside.estimate_s) == pytest.approx((1e6 + 1) / (0.5 * 1e10) + 1e-6)
    weights = replace(product(1), matmul_flops=0, nbytes=10**6)
    assert float(kernel_time(weights, CACHE).bound_s) == pytest.approx(1e6 / 1e10)  # weights come from memory


def test_large_allocations_cost_the_pages_they_are_given():
    small, large = (kernel_time(between(0, made), PAGES) for made in (2**25 - 1, 2**25))
    assert float(small.estimate_s) == pytest.approx(1e-6)
    assert float(large.estimate_s) == pytest.approx(2**25 / 1e9 + 1e-6)
    assert large.bound_by == "memory"


class Layouts(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8, bias=False)
        self.by_rows = nn.Parameter(torch.empty(8, 8))

    def forward(self, x, keys):
        x = self.linear(x) @ self.by_rows
        return torch.softmax(x.unsqueeze(0) @ keys.transpose(1, 2), -1) @ keys


def test_a_kernel_knows_the_rows_and_the_layout_of_its_product():
    stage = annotate_module(Layouts(), args=(torch.empty(3, 8), torch.empty(1, 5, 8)))
    products = [item.kernel for item in stage.time(PLAIN, fused=False).kernels if item.kernel.kind == "product"]
    assert [(kernel.form, int(kernel.rows)) for kernel in products] == [
        ("mm_t", 3),
        ("mm", 3),
        ("bmm_t", 3),
        ("bmm", 3),
    ]
    assert [kernel.made_bytes for kernel in products] == [4 * 3 * 8, 4 * 3 * 8, 4 * 3 * 5, 4 * 3 * 8]


def test_op_by_op_a_cache_grows_by_being_copied(preset_model):
    model = preset_model("llama-3.1-8b")
    stage = annotate(model, decode(100))
    kernels = {fused: [item.kernel for item in stage.time(PLAIN, fused=fused).kernels] for fused in (True, False)}
    copied = [kernel.nbytes for kernel in kernels[False] if "cache_append" in kernel.op]
    assert copied == [2 * 8 * 101 * 128 * 2] * 2  # read and written: 8 heads, 101 tokens, 128 wide, bf16
    appended = [kernel for kernel in kernels[True] if "cache_append" in kernel.op]
    assert all(kernel.nbytes < 2 * 8 * 100 * 128 * 2 for kernel in appended)


def test_a_share_makes_the_measured_time_of_the_same_product_again():
    made = benchmarks.Product(lambda: None, 10**9, 10**8)
    for best in (0.011, 0.05):  # 10 ms of each roof: the least time is the larger, and what is left is the product's
        share = _shares({4: (made, benchmarks.Measurement(best, best, best))}, 1e11, 1e10)["4"]["value"]
        assert math.hypot(1e8 / 1e10, 1e9 / (share * 1e11)) == pytest.approx(max(best, math.sqrt(2) * 0.01))


def test_a_field_that_no_device_has_is_named():
    fields = {"matrix_flops_per_s": {"fp32": 1e11}, "bandwidth_bytes_per_s": 1e10, "memory_bytes": 2**34}
    assert device_from("mine", {**fields, "cache_bytes": 10.0}).cache_bytes == 10
    with pytest.raises(DeviceError, match=r"no field 'link_byte_per_s'; did you mean link_bytes_per_s"):
        device_from("mine", {**fields, "link_byte_per_s": 1e9})
