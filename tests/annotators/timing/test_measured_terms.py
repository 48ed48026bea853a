"""What a calibration adds to the time of a kernel: rates of products, of what is between them, fresh pages,
the host."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fxmeter import annotate, annotate_module, decode
from fxmeter.annotators.timing import benchmarks
from fxmeter.annotators.timing.calibrate import _rates
from fxmeter.annotators.timing.kernel import Kernel
from fxmeter.annotators.timing.roofline import kernel_time
from fxmeter.annotators.timing.stage_time import stage_time
from fxmeter.models.devices.device import Device, Efficiency, device_from
from fxmeter.models.errors import DeviceError
from fxmeter.tracer.operators.ops import flash_attention

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
RATES = {"fp32": {"mm_t": {1024: {4: 1e9, 64: 4e9}, 4096: {4: 4e9, 64: 16e9}}}}
ROWS = replace(PLAIN, efficiency=replace(PLAIN.efficiency, product_flops_per_s=RATES))
STREAMS = {"fp32": {10**4: 5e10, 10**6: 2e9}}
CACHE = replace(PLAIN, efficiency=replace(PLAIN.efficiency, elementwise_bytes_per_s=STREAMS))
HOST = replace(PLAIN, efficiency=replace(PLAIN.efficiency, host_us={10**4: 5.0, 10**6: 20.0}))
PAGES = replace(PLAIN, efficiency=replace(PLAIN.efficiency, fresh_from_bytes=2**25, fresh_bytes_per_s=1e9))


def product(rows: int, form: str = "mm_t", elements: int = 1024, nbytes: int = 10**7) -> Kernel:
    flops = 2 * rows * elements
    return Kernel("k", "aten.mm.default", "", 1, "product", "fp32", flops, 0, nbytes, form=form, rows=rows)


def between(nbytes: int, made: int = 0) -> Kernel:
    return Kernel("k", "aten.mul.Tensor", "", 1, "elementwise", "fp32", 0, 0, nbytes, made_bytes=made)


@pytest.mark.parametrize(
    ("rows", "elements", "rate"),
    [
        (4, 1024, 1e9),
        (64, 1024, 4e9),
        (16, 1024, 2e9),  # half way in logarithms
        (1, 1024, 1e9),
        (4096, 4096, 16e9),
        (4, 2048, 2e9),
        (16, 2048, 4e9),
        (4, 10**6, 4e9),
        (4, 512, 0.5e9),  # as long as with 1,024
    ],
)
def test_a_product_reaches_what_was_measured_for_its_rows_and_width(rows, elements, rate):
    timed = kernel_time(product(rows, elements=elements, nbytes=4 * elements), ROWS)
    assert float(timed.estimate_s) == pytest.approx(2 * rows * elements / rate + 1e-6, rel=1e-9)


def test_a_product_never_beats_its_bound_and_shared_keys_are_counted_once():
    assert float(kernel_time(product(4, nbytes=10**9), ROWS).estimate_s) == pytest.approx(1e9 / 1e10 + 1e-6)
    shared = kernel_time(product(4, elements=8192, nbytes=4 * 1024), ROWS)  # eight heads read the same 1,024
    assert float(shared.estimate_s) == pytest.approx(2 * 4 * 8192 / 1e9 + 1e-6)


def test_more_rows_never_take_less_time_and_a_layout_that_was_not_measured_has_the_usual_share():
    grid = np.arange(1, 200)
    times = kernel_time(replace(product(1, nbytes=4096), matmul_flops=10**6 * grid, rows=grid), ROWS).estimate_s
    assert (np.diff(times) > 0).all()
    plain = replace(product(4, "mm", nbytes=0), matmul_flops=10**9)
    assert float(kernel_time(plain, ROWS).estimate_s) == pytest.approx(1e9 / (0.9 * 1e11) + 1e-6)


def test_what_fits_into_the_cache_streams_at_its_rate_and_is_bound_by_the_fastest():
    small, between_them, large = (kernel_time(between(nbytes), CACHE) for nbytes in (10**4, 10**5, 10**7))
    assert float(small.estimate_s) == pytest.approx(1e4 / 5e10 + 1e-6)
    assert float(between_them.estimate_s) == pytest.approx(1e5 / 1e10 + 1e-6)  # half way in logarithms
    assert float(large.estimate_s) == pytest.approx(1e7 / 2e9 + 1e-6)
    assert float(large.bound_s) == pytest.approx(1e7 / 5e10)
    weights = replace(product(1), matmul_flops=0, nbytes=10**6)
    assert float(kernel_time(weights, CACHE).bound_s) == pytest.approx(1e6 / 1e10)  # weights come from memory


def test_op_by_op_a_launch_is_the_work_of_the_host_by_the_bytes_of_an_op():
    kernels = [between(10**4), replace(between(10**6), times=3)]
    each = (10**4 + 3 * 10**6) / 4
    expected = 5 * 4 ** ((math.log(each) - math.log(10**4)) / math.log(100))  # 5 to 20 over two powers of ten
    assert stage_time(kernels, HOST, {}, fused=False).launch_s == pytest.approx(4 * expected * 1e-6)
    assert stage_time(kernels, HOST, {}).launch_s == pytest.approx(4 * 1e-6)


def test_op_by_op_a_windowed_core_computes_every_pair():
    query, window, width = 64, 16, 8
    core = annotate_module(Windowed(window), args=(torch.empty(1, 2, query, width),))
    (fused,), (alone,) = (
        [item.kernel for item in core.time(PLAIN, fused=fused).kernels if item.kernel.kind == "attention"]
        for fused in (True, False)
    )
    seen = window * (window + 1) // 2 + (query - window) * window
    assert (fused.form, fused.matmul_flops) == ("attention", 2 * 4 * seen * width)
    assert (alone.form, alone.matmul_flops) == ("masked", 2 * 4 * query * query * width)


class Windowed(nn.Module):
    def __init__(self, window):
        super().__init__()
        self.window = window

    def forward(self, x):
        return flash_attention(x, x, x, None, None, 1.0, True, self.window, None)


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


def test_a_rate_makes_the_measured_time_of_the_same_product_again():
    made = benchmarks.Product(lambda: None, 4, 10**8, 8 * 10**8, 10**8)
    rates = _rates([[(made, benchmarks.Measurement(0.05, 0.051, 0.06))]], 0.001, 1e11)
    assert rates == {"100000000": {"4": round(8 * 10**8 / 0.05)}}  # less the millisecond of a launch


def test_a_field_that_no_device_has_is_named():
    fields = {"matrix_flops_per_s": {"fp32": 1e11}, "bandwidth_bytes_per_s": 1e10, "memory_bytes": 2**34}
    assert device_from("mine", {**fields, "efficiency": {"host_us": {"10": 5.0}}}).efficiency.host_us == {10: 5}
    with pytest.raises(DeviceError, match=r"efficiency.host_us must map bytes to rates"):
        device_from("mine", {**fields, "efficiency": {"host_us": {"ten": 5.0}}})
    with pytest.raises(DeviceError, match=r"no field 'link_byte_per_s'; did you mean link_bytes_per_s"):
        device_from("mine", {**fields, "link_byte_per_s": 1e9})
