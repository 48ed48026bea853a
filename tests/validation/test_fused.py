"""Fused traffic against Inductor's count of bytes accessed: within a band, every byte of the difference named."""

from __future__ import annotations

import pytest
import torch

from validation.fused import check, in_band
from validation.fused_parts import PARTS, Part, Size
from validation.inductor import compiled_and_run, count_bytes

QUICK = ("RMSNorm (Llama)", "rotary embedding (Llama)", "SwiGLU MLP (Llama)", "whole layer (Llama)")
pytestmark = pytest.mark.filterwarnings("ignore")  # the compiler's own, which differ from release to release
OTHER_SIZES = (Size(3, 40), Size(1, 128))


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in PARTS])
def test_every_byte_between_the_policy_and_inductor_is_named(name):
    row, unexplained = check(name)
    assert unexplained == 0
    assert in_band(row)


@pytest.mark.slow
@pytest.mark.parametrize("size", OTHER_SIZES, ids=str)
@pytest.mark.parametrize("name", PARTS)
def test_the_same_terms_hold_at_other_sizes(name, size):
    assert check(name, size)[1] == 0


class Elementwise(torch.nn.Module):
    """One kernel: reads both operands, writes the result; what is between stays inside."""

    def forward(self, x, y):
        return (x * y + 1).relu()


def test_the_count_is_read_and_written_once_per_kernel():
    x = torch.randn(8, 16)
    count = count_bytes(Part(Elementwise(), (x, x + 1), {}))
    assert (count.graphs, len(count.kernels)) == (1, 1)
    assert count.nbytes == 3 * 8 * 16 * 4


@pytest.mark.slow
def test_it_is_the_number_that_compiling_reports_and_the_compiled_module_computes_the_same():
    part = PARTS["whole layer (Llama)"](Size())
    reported, out = compiled_and_run(part)
    assert reported == count_bytes(part).nbytes
    with torch.no_grad():
        expected = part.module(*part.args, **part.kwargs)
    torch.testing.assert_close(out, expected)
