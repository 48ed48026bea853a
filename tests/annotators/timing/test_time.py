"""Time: the roofs, how they join, and the sums over a stage."""

from __future__ import annotations

import math

import pytest
from torch import nn

from fxmeter import annotate, annotate_module, decode, prefill
from fxmeter.annotators.timing.kernel import Kernel
from fxmeter.annotators.timing.roofline import ROOFS, kernel_time
from fxmeter.models.devices import device, device_names
from fxmeter.models.devices.device import Device, Efficiency

PLAIN = Device(
    name="plain",
    vendor="",
    aliases=(),
    matrix_flops_per_s={"bf16": 1e14, "fp32": 1e13},
    vector_flops_per_s={"fp32": 1e12},
    bandwidth_bytes_per_s=1e12,
    memory_bytes=2**36,
    link_bytes_per_s=1e11,
    efficiency=Efficiency(bandwidth=0.8, any_matrix=0.5, network=0.5, launch_s=4e-6, collective_s=1e-5),
)


def kernel(kind="product", *, matmul=0, vector=0, nbytes=0, network=0, dtype="bf16"):
    return Kernel("k", "aten.mm.default", "", 1, kind, dtype, matmul, vector, nbytes, network)


def test_each_roof_alone_is_its_own_time():
    for one, bound, estimate in (
        (kernel(matmul=10**12), 1e12 / 1e14, 1e12 / (0.5 * 1e14) + 4e-6),
        (kernel(nbytes=10**9), 1e9 / 1e12, 1e9 / (0.8 * 1e12) + 4e-6),
        (kernel("elementwise", vector=10**9), 1e9 / 1e12, 1e9 / (0.5 * 1e12) + 4e-6),
        (kernel("collective", network=10**8), 1e8 / 1e11, 1e8 / (0.5 * 1e11) + 1e-5),
        (kernel(matmul=10**12, dtype="fp32"), 1e12 / 1e13, 1e12 / (0.5 * 1e13) + 4e-6),
    ):
        timed = kernel_time(one, PLAIN)
        assert float(timed.bound_s) == pytest.approx(bound, rel=1e-12)
        assert float(timed.estimate_s) == pytest.approx(estimate, rel=1e-12)


def test_two_equal_roofs_join_as_the_two_norm():
    both = kernel_time(kernel(matmul=50 * 10**9, nbytes=800 * 10**6), PLAIN)  # 1 ms each of what is reached
    assert float(both.estimate_s) == pytest.approx(math.sqrt(2) * 1e-3 + 4e-6, rel=1e-12)


def test_the_two_norm_tends_to_the_higher_roof():
    for factor in (1e-4, 1e4):
        timed = kernel_time(kernel(matmul=50 * 10**9 * factor, nbytes=800 * 10**6), PLAIN)
        highest = max(timed.roofs_s[:3])
        assert highest <= float(timed.estimate_s) - timed.launch_s <= highest * (1 + 1e-8)


@pytest.mark.parametrize("name", device_names())
def test_nothing_is_estimated_below_its_bound(name):
    one = device(name)
    for matmul in (0, 10**6, 10**12):
        for nbytes in (10**3, 10**9):
            for kind in ("product", "attention", "elementwise"):
                timed = kernel_time(kernel(kind, matmul=matmul, vector=matmul // 100, nbytes=nbytes), one)
                assert timed.bound_s <= timed.estimate_s


@pytest.mark.parametrize("name", [name for name in device_names() if "cpu" not in name])
def test_decode_of_one_sequence_is_bound_by_memory_on_every_device(preset_model, name):
    timed = annotate(preset_model("llama-3.1-8b"), decode(4096)).time(name)
    assert timed.bound_by == "memory"
    assert timed.bound_s <= timed.estimate_s


def test_prefill_is_bound_by_compute_on_h100_and_its_products_nowhere_by_memory(preset_model):
    timed = annotate(preset_model("llama-3.1-8b"), prefill(4096), logits="last").time("h100-sxm5-80g")
    assert timed.bound_by == "compute"
    products = [item for item in timed.kernels if item.kernel.kind == "product" and item.kernel.module != "lm_head"]
    assert len(products) >= 4
    assert {item.one.bound_by for item in products} == {"compute"}


def test_modules_and_kernels_add_up(preset_model):
    stage = annotate(preset_model("deepseek-v2-lite"), decode(1024, batch=4))
    timed = stage.time("a100")
    assert timed.modules[""].estimate_s == pytest.approx(timed.estimate_s, rel=1e-9)
    assert sum(timed.total.roofs_s) == pytest.approx(timed.estimate_s, rel=1e-9)
    assert sum(item.all.bound_s for item in timed.kernels) == pytest.approx(timed.bound_s, rel=1e-9)
    layers = [
        stage.modules[path].times * timed.modules[path].estimate_s for path in ("model.layers.0", "model.layers.1")
    ]
    assert sum(layers) < timed.modules["model"].estimate_s < timed.estimate_s
    # every byte of the fused traffic is moved by some kernel, but for activations that siblings share
    moved = sum(item.kernel.nbytes * item.kernel.times for item in timed.kernels)
    assert moved <= stage.cost.fused_io_bytes
    assert sum(item.kernel.matmul_flops * item.kernel.times for item in timed.kernels) <= stage.cost.matmul_flops


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(64, 32, bias=False) for _ in range(3))

    def forward(self, x):
        x = x * 2
        return self.a(x) + self.b(x), self.c(x + 1)


def test_products_of_one_activation_are_one_kernel_that_reads_it_once():
    import torch

    timed = annotate_module(Gated(), torch.ones(16, 64)).time("h100")
    products = [item.kernel for item in timed.kernels if item.kernel.kind == "product"]
    assert sorted(one.matmul_flops for one in products) == [2 * 16 * 64 * 32, 2 * 2 * 16 * 64 * 32]
    pair = max(products, key=lambda one: one.matmul_flops)
    assert pair.nbytes == 4 * (16 * 64 + 2 * 64 * 32 + 2 * 16 * 32)


def test_an_attention_core_takes_the_time_of_the_pairs_that_its_mask_lets_through(preset_model):
    model = preset_model("llama-3.1-8b")
    full, exact = (annotate(model, prefill(4096), causal=causal) for causal in ("full", "exact"))
    assert full.cost.matmul_flops > exact.cost.matmul_flops
    assert full.time("h100").estimate_s == exact.time("h100").estimate_s


def test_what_binds_has_a_name():
    assert ROOFS == ("compute", "vector", "memory", "network", "launch")
