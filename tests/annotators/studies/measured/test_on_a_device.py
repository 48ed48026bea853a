"""Traces of a GPU: kernels count, wherever they were launched, and go to the op and module that launched them."""

import copy
import json

import pytest

from fxmeter import annotate, prefill
from fxmeter.annotators.studies.measured.laid_over import lay_over
from tests.annotators.studies.measured.real import BATCH, PROMPT, model_of, real_run

LAUNCH_US = 0.001
KERNEL_US = 3


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    """A real run's events, each op that calls no other launching a kernel of 3 us, as a GPU's trace has them."""
    path = tmp_path_factory.mktemp("gpu") / "cpu.json"
    real_run("llama", "sdpa", "prefill").save(path)
    found = json.loads(path.read_text())["traceEvents"]
    calls = sorted((e for e in found if "dur" in e and e.get("cat") == "cpu_op"), key=lambda e: (e["ts"], -e["dur"]))
    inner = [a for a, b in zip(calls, [*calls[1:], None], strict=True) if b is None or b["ts"] >= a["ts"] + a["dur"]]
    return found + [event for number, op in enumerate(inner, 1) for event in launched(op, number)]


def launched(op, number):
    """A launch inside of ``op`` and, much later, its kernel."""
    at = {"ph": "X", "pid": op["pid"], "tid": op["tid"], "ts": op["ts"], "dur": LAUNCH_US}
    args = {"correlation": number}
    kernel = {"ph": "X", "cat": "kernel", "name": "gemm", "pid": 0, "tid": 7, "ts": 9e9 + number, "dur": KERNEL_US}
    return {**at, "cat": "cuda_runtime", "name": "cudaLaunchKernel", "args": args}, {**kernel, "args": args}


def laid_over(events, tmp_path, model=None):
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps({"traceEvents": events}))
    model = model or model_of("llama", "sdpa")
    stage = annotate(model, prefill(PROMPT, batch=BATCH), attention="flash", fold=False)
    return lay_over(stage, path, "h100")


def test_kernels_go_to_the_ops_that_launched_them(events, tmp_path):
    found = laid_over(events, tmp_path)
    kernels = [event for event in events if event.get("cat") == "kernel"]
    assert found.on_device
    assert found.total_ns == found.whole.ns == 1000 * KERNEL_US * len(kernels)
    assert found.matched_share > 0.9
    products = {op.module for op in found.ops if op.op == "aten.mm.default" and op.part.ns}
    assert {f"model.layers.{i}.self_attn.q_proj" for i in range(3)} | {"lm_head"} <= products
    predicted = found.stage.time("h100", fused=False)
    assert found.whole.estimate_s == pytest.approx(sum(kernel.all.estimate_s for kernel in predicted.kernels))


def test_a_kernel_of_nobodys_is_left_in_the_module_that_launched_it(events, tmp_path):
    (inside,) = (e for e in events if e.get("name") == "fxmeter: model.layers.1.mlp")
    gap = {"ts": inside["ts"] + inside["dur"] - 0.002, "pid": inside["pid"], "tid": inside["tid"]}
    fused, kernel = launched({**gap}, 10_000)
    found = laid_over([*events, fused, {**kernel, "name": "triton_fused_mul_silu"}], tmp_path)
    (left,) = (item for item in found.unmatched if item.name == "triton_fused_mul_silu")
    assert (left.module, left.ns) == ("model.layers.1.mlp", 1000 * KERNEL_US)


def test_a_kernel_without_a_launch_is_outside_of_every_pass(events, tmp_path):
    _, kernel = launched({"ts": 1, "pid": 1, "tid": 1}, 20_000)
    found = laid_over([*events, kernel], tmp_path)
    assert found.outside_ns == 1000 * KERNEL_US
    assert sum(part.ns for part in found.own.values()) + found.outside_ns == found.total_ns


def test_layers_that_were_not_predicted_are_a_doubt(events, tmp_path):
    shallow = copy.deepcopy(model_of("llama", "sdpa"))
    del shallow.model.layers[2]
    shallow.config.num_hidden_layers = 2
    found = laid_over(events, tmp_path, shallow)
    (doubt,) = found.warnings
    assert "of ops that were not recorded" in doubt
    assert 1 / 4 < 1 - found.matched_share < 1 / 2


def test_a_launch_seen_by_runtime_and_driver_counts_once(events, tmp_path):
    doubled = [{**event, "cat": "cuda_driver"} for event in events if event.get("cat") == "cuda_runtime"]
    kernels = [event for event in events if event.get("cat") == "kernel"]
    found = laid_over([*events, *doubled], tmp_path)
    assert found.whole.ns == found.total_ns == 1000 * KERNEL_US * len(kernels)
