"""A GPU's trace made by hand, laid over the prediction: every time is where the trace was made to have it."""

import gzip
import json

import pytest

from fxmeter import annotate, load_model, prefill
from fxmeter.annotators.studies.measured.laid_over import lay_over
from tests.annotators.studies.measured.by_hand import ALLOCATED, COPY_US, FIELDS, TOKENS, TRITON_US, llama
from tests.tracer.tiny import config


@pytest.fixture(scope="module")
def stage():
    return annotate(load_model(config(FIELDS), dtype="bfloat16"), prefill(TOKENS), attention="flash", fold=False)


@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz"])
def test_every_kernel_goes_where_it_was_launched(stage, tmp_path, name):
    written = llama()
    text = json.dumps({"schemaVersion": 1, "traceEvents": written.events}).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    found = lay_over(stage, tmp_path / name, "h100-sxm5-80g")
    assert (found.on_device, found.passes) == (True, 1)
    assert {path: part.ns for path, part in found.own.items() if part.ns} == {
        path: 1000 * us for path, us in written.module_us.items() if us
    }
    assert found.outside_ns == 1000 * COPY_US
    assert found.total_ns == 1000 * (COPY_US + sum(written.module_us.values()))
    (fused,) = (item for item in found.unmatched if item.ns)
    assert (fused.module, fused.ns) == ("model.layers.1.mlp", 1000 * TRITON_US)
    assert found.matched_ns == 1000 * (sum(written.module_us.values()) - TRITON_US)


def test_products_have_the_times_of_their_kernels_and_what_was_fused_did_not_run(stage, tmp_path):
    (tmp_path / "trace.json").write_text(json.dumps(llama().events))
    found = lay_over(stage, tmp_path / "trace.json")
    products = [op.part for op in found.ops if op.op == "aten.mm.default"]
    linear = 7 * 2 + 1
    assert [part.ns for part in products] == [1000 * 10] * linear
    assert products[0].flops_per_s == pytest.approx(2 * 16 * 32 * 32 / 10e-6)
    assert sorted((op.op, op.module) for op in found.missing) == [
        ("aten.mul.Tensor", "model.layers.1.mlp"),
        ("aten.silu.default", "model.layers.1.mlp.act_fn"),
    ]
    most = ALLOCATED[0] + ALLOCATED[1]
    assert found.peak_bytes == most
