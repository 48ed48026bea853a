"""What an op gives the second time is what torch itself gives: nothing about a tensor is remembered that may differ."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from fxmeter.tracer.operators import remembered
from fxmeter.tracer.operators.remembered import run_or_remember

aten = torch.ops.aten
MASK = torch.empty(5, dtype=torch.bool, device="meta")
WHOLE = {"dtype": torch.int64, "device": "meta"}
CALLS = {
    "a product": (aten.mm.default, (torch.empty(3, 4, device="meta"), torch.empty(4, 5, device="meta"))),
    "a transposed operand": (aten.mul.Tensor, (torch.empty(3, 4, device="meta").t(), torch.empty(4, 3, device="meta"))),
    "several results": (aten.topk.default, (torch.empty(3, 8, device="meta"), 2)),
    "a list of tensors": (aten.cat.default, ([torch.empty(2, 3, device="meta")] * 3, 1)),
    "a whole number": (aten.mul.Tensor, (torch.empty(3, device="meta", dtype=torch.int64), 2)),
    "a fraction": (aten.mul.Tensor, (torch.empty(3, device="meta", dtype=torch.int64), 2.0)),
    "a truth value": (aten.add.Tensor, (torch.empty(3, device="meta", dtype=torch.bool), True)),
    "a one": (aten.add.Tensor, (torch.empty(3, device="meta", dtype=torch.bool), 1)),
    "a view that its schema hides": (aten._unsafe_view.default, (torch.empty(6, device="meta"), [2, 3])),
    "a view": (aten.view.default, (torch.empty(6, device="meta"), [2, 3])),
    "in place": (aten.add_.Tensor, (torch.empty(6, device="meta"), 1)),
    "a view in place": (aten.squeeze_.dim, (torch.empty(3, device="meta"), 0)),
    "complex conjugates": (aten.mul.Tensor, (torch.empty(3, device="meta", dtype=torch.complex64).conj(), 2)),
    "an index": (aten.index.Tensor, (torch.empty(5, 3, device="meta"), [torch.empty(7, 2, **WHOLE)])),
    "a range": (aten.arange.default, (7,), {"device": torch.device("meta")}),
    "real data": (aten.mul.Tensor, (torch.ones(3), 2)),
    "complex numbers": (aten.mul.Tensor, (torch.empty(3, device="meta", dtype=torch.complex64), 2)),
    "a division in the default dtype": (aten.div.Tensor, (torch.empty(3, device="meta", dtype=torch.int64), 2)),
}


def look(out):
    tensors = out if isinstance(out, (tuple, list)) else [out]
    return type(out), [
        (t.shape, t.stride(), t.dtype, t.device, t.storage_offset(), t.untyped_storage().nbytes()) for t in tensors
    ]


def test_the_second_result_looks_like_the_first_and_is_another():
    remembered._looks.clear()
    for _ in range(2):  # all calls before any comes again, so that those with equal keys would meet
        for name, (op, args, *more) in CALLS.items():
            kwargs = more[0] if more else {}
            out = run_or_remember(op, op, args, kwargs)
            assert look(out) == look(op(*args, **kwargs)), name
            assert out is not run_or_remember(op, op, args, kwargs) or "in place" in name


@pytest.mark.parametrize("name", ["a view that its schema hides", "a view", "a view in place", "real data"])
def test_what_shares_or_changes_memory_or_has_data_runs_each_time(name):
    op, args = CALLS[name]
    ran = []

    def run(*given):
        ran.append(given)
        return op(*given)

    for _ in range(3):
        run_or_remember(op, run, args, {})
    assert len(ran) == 3


def test_a_change_in_place_is_seen_though_it_does_not_run():
    op, args = CALLS["in place"]
    run_or_remember(op, op, args, {})
    before = args[0]._version
    assert run_or_remember(op, None, args, {}) is args[0]
    assert args[0]._version == before + 1


def test_a_mask_is_no_index_that_is_remembered():
    for _ in range(2):
        with pytest.raises(NotImplementedError):
            run_or_remember(aten.index.Tensor, aten.index.Tensor, (torch.empty(5, **WHOLE), [MASK]), {})


def test_what_is_known_does_not_run():
    op, args = CALLS["several results"]
    run_or_remember(op, op, args, {})
    values, indices = run_or_remember(op, None, args, {})
    assert (values.dtype, indices.dtype, indices.shape) == (torch.float32, torch.int64, (3, 2))


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def test_the_default_dtype_decides():
    op, args = CALLS["a division in the default dtype"]
    for dtype in (torch.float32, torch.float64, torch.float32):
        with default_dtype(dtype):
            assert run_or_remember(op, op, args, {}).dtype == dtype


def test_no_more_is_kept_than_the_most(monkeypatch):
    monkeypatch.setattr(remembered, "MOST_KEPT", 10)
    remembered._looks.clear()
    for size in range(1, 40):
        run_or_remember(aten.relu.default, aten.relu.default, (torch.empty(size, device="meta"),), {})
        assert len(remembered._looks) <= 10
