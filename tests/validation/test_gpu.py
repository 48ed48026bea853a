"""The GPU validation's plan, tables and passes, without a GPU."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from validation import gpu as validate_gpu
from validation import gpu_runs
from validation.gpu import NEEDS_CUDA, main
from validation.gpu_plan import (
    READ,
    WRITTEN,
    Cell,
    Measurement,
    Prediction,
    dram_bytes,
    plan,
    predict,
    section,
    that_fit,
    unrecorded,
)
from validation.gpu_runs import Pass, random_model
from validation.page import recorded, text, write
from validation.small_configs import small_config

DECODE = Cell("deepseek-ocr", "decode", 512, 8, "flash")
PREFILL = Cell("deepseek-ocr", "prefill", 512, 8, "flash")
PREDICTED = Prediction(weights=5000, kv=300, peak=20, io=4000, fused_io=3000, floor=2000, layer_kv=30)


def test_without_cuda_it_says_so_in_one_line_and_ends_well(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["validate_gpu.py", "--no-write"])
    assert main() == 0
    assert capsys.readouterr().out.splitlines() == [NEEDS_CUDA.format(version=torch.__version__)]


@pytest.fixture
def pretended(monkeypatch):
    """The whole script on the CPU, with the instruments of CUDA replaced."""
    config = small_config("llama")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=2**43))
    monkeypatch.setattr(validate_gpu, "quiet", lambda: None)
    monkeypatch.setattr(validate_gpu, "copy_bandwidth", lambda: 1e12)
    monkeypatch.setattr(validate_gpu, "plan", lambda: [replace(DECODE, context=10), replace(PREFILL, context=10)])
    monkeypatch.setattr(validate_gpu, "random_model", lambda *_: random_model(config, "cpu", torch.float32))
    lengths = []

    def called(call):
        lengths.append(call().past_key_values.get_seq_length())
        return 1.0

    for name in ("allocated_at_most", "timed"):
        monkeypatch.setattr(gpu_runs, name, called)
    monkeypatch.setattr(gpu_runs, "kernel_seconds", lambda call: (called(call), call.reset())[0])
    return lengths


def test_every_repetition_runs_the_same_pass(pretended, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["validate_gpu.py", "--no-write", "--without-ncu"])
    assert main() == 0
    each = 1 + gpu_runs.REPEATS + gpu_runs.WARM_UPS
    assert pretended == [10 + 1] * each + [10] * each
    assert "over 1 decode steps" in capsys.readouterr().out


def test_the_plan_has_both_stages_and_attentions_of_both_models_at_several_contexts_and_batches():
    cells = plan()
    assert len(set(cells)) == len(cells) == 2 * 2 * 2 * 3 * 2
    for field, least in (("model", 2), ("stage", 2), ("context", 3), ("batch", 2), ("attention", 2)):
        assert len({getattr(cell, field) for cell in cells}) == least


def test_a_prediction_is_in_bytes_of_bfloat16():
    found = predict([DECODE])[DECODE]
    assert found.weights == 2 * 2_934_734_080
    assert found.kv == 8 * (512 + 1) * 61_440
    assert found.layer_kv == found.kv // 12
    assert found.floor <= found.fused_io <= found.io
    assert found.memory == found.weights + found.kv + found.peak


def test_a_pass_that_does_not_fit_is_left_out():
    needed = 5000 + 300 + 20 + 30
    assert that_fit({DECODE: PREDICTED}, needed * 10 // 9 + 1) == [DECODE]
    assert that_fit({DECODE: PREDICTED}, needed) == []


def test_the_tables_compare_bytes_over_bandwidth_with_time_in_kernels(tmp_path):
    measured = {
        DECODE: Measurement(allocated=5400, seconds=9e-6, kernel_seconds=5e-6, dram=4100),
        PREFILL: Measurement(allocated=5500, seconds=1, kernel_seconds=1),
    }
    page = text(section({DECODE: PREDICTED, PREFILL: PREDICTED}, measured, bandwidth=1e9, skipped=2), "a machine")
    memory, dram, time = page.split("### ")[1:]
    assert "| deepseek-ocr, decode 512, batch 8, flash | 5,320 | 5,400 | -1.48 % |" in memory
    assert "prefill" in memory
    assert "| 4,000 | 4,100 | -2.44 % | fused 3,000; floor 2,000 |" in dram
    assert "| 4 | 5 | -20.00 % | if fused 3; floor 2; wall clock 9, launches included |" in time
    assert "prefill" not in dram + time
    assert "is 0.80 to 0.80 (median 0.80) of the time in kernels over 1 decode steps" in page
    assert "2 passes that do not fit" in page
    target = tmp_path / "validation.md"
    write(unrecorded(), target, machine="no GPU")
    assert not recorded("gpu", target)
    assert "No GPU result has been recorded yet" in target.read_text(encoding="utf-8")
    write(section({DECODE: PREDICTED}, measured, 1e9, 0), target, machine="a GPU")
    assert recorded("gpu", target)
    assert "No GPU result" not in target.read_text(encoding="utf-8")


REPORT = f"""==PROF== Connected to process 1
tokens printed by the program
"ID","Kernel Name","{READ}","{WRITTEN}"
"","","byte","byte"
"0","gemm","1,000","20"
"1","copy","300.0","4"
==PROF== Disconnected
"""


def test_dram_bytes_are_summed_over_kernels():
    assert dram_bytes(REPORT) == 1000 + 20 + 300 + 4


@pytest.mark.parametrize("report", ["==PROF== no kernels were profiled", REPORT.replace("byte", "Mbyte")])
def test_a_report_without_them_or_in_other_units_is_refused(report):
    with pytest.raises(ValueError, match="ncu"):
        dram_bytes(report)


@pytest.mark.parametrize("attention", ["eager", "flash"])
@pytest.mark.parametrize("model_type", ["llama", "deepseek_v2", "deepseek_ocr2_text"])
def test_a_decode_step_can_be_repeated_on_the_same_cache(model_type, attention):
    config = small_config(model_type) if model_type != "deepseek_ocr2_text" else ocr_config()
    call = Pass(random_model(config, "cpu", torch.float32), Cell("any", "decode", 10, 2, attention))
    before = [layer.keys.clone() for layer in call.cache.layers]
    first = call().logits
    assert call.cache.get_seq_length() == 10 + 1
    call.reset()
    assert call.cache.get_seq_length() == 10
    assert all(torch.equal(layer.keys, kept) for layer, kept in zip(call.cache.layers, before, strict=True))
    assert all(layer.keys.untyped_storage().nbytes() == layer.keys.nbytes for layer in call.cache.layers)
    torch.testing.assert_close(call().logits, first)


def ocr_config():
    from transformers import AutoConfig

    fields = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    experts = {"n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    shape = {"num_key_value_heads": 4, "vocab_size": 128, "mlp_layer_types": ["dense", "sparse"]}
    return AutoConfig.for_model("deepseek_ocr2_text", **fields, **experts, **shape)


def test_a_prefill_starts_from_nothing_each_time():
    call = Pass(random_model(small_config("llama"), "cpu", torch.float32), Cell("any", "prefill", 10, 2, "flash"))
    outs = [call() for _ in range(2)]
    assert [out.past_key_values.get_seq_length() for out in outs] == [10, 10]
    assert outs[0].logits.shape == (2, 10, 128)
