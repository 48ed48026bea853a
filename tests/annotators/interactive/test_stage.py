"""A stage at a prompt and in a notebook: what it shows is what it has."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from torch import nn

from fxmeter import FxmeterError, annotate, annotate_module, decode, diff, generation, prefill
from fxmeter.annotators.studies.breakdown import module_tree
from fxmeter.models.stage_cost import FIGURES, StageCost
from fxmeter.tracer import load_model
from tests.tracer.tiny import DEEPSEEK, LLAMA, config

S, HIDDEN, HEADS, HEAD, KV, MLP, VOCAB, LAYERS = 6, 32, 4, 8, 2, 48, 40, 3
ATTENTION = 2 * 2 * HEADS * HEAD * S * S
PROJECTIONS = 2 * S * HIDDEN * (HIDDEN + 2 * KV * HEAD + HIDDEN + 3 * MLP)
MATMUL = LAYERS * (ATTENTION + PROJECTIONS) + 2 * S * HIDDEN * VOCAB


class Parsed(HTMLParser):
    """Tags as they open and close; an unknown order raises."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.text = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def llama():
    return annotate(load_model(config(LLAMA)), prefill(S))


@pytest.fixture(scope="module")
def deepseek():
    return annotate(load_model(config(DEEPSEEK)), decode(16))


def test_a_stage_is_a_few_lines(llama):
    lines = repr(llama).splitlines()
    assert lines[0] == "LlamaForCausalLM: prefill S=6, flash"
    assert 5 <= len(lines) <= 10
    assert any(re.fullmatch(r"  I/O +[\d.]+ kB", line) for line in lines)


def test_a_notebook_gets_modules_that_fold_as_deep_as_the_tree(deepseek):
    html = deepseek._repr_html_()
    page = Parsed(html)
    rows = module_tree(deepseek, 99)
    inner = [row for row, below in pairwise(rows) if below.depth > row.depth]
    assert page.seen.count("details") == len(inner) > 3
    assert page.seen.count("summary") == len(inner)
    assert not {"script", "link", "img"} & set(page.seen)
    assert all(any(row.label == text.strip() for text in page.text) for row in rows)


def test_names_are_escaped():
    net = type("A<i>", (nn.Linear,), {})(4, 3)
    html = annotate_module(net, nn.Linear(4, 4).weight)._repr_html_()
    assert "A&lt;i&gt;" in html
    assert "A<i>" not in html


def test_frames_hold_what_the_stage_has(llama):
    figures = llama.to_frame().set_index("figure")["value"]
    assert figures["matmul_flops"] == MATMUL
    assert figures["floor_io_bytes"] == llama.floor_io_bytes
    modules = llama.to_frame("modules")
    assert set(modules["path"]) == set(llama.modules)
    layer = modules.set_index("path").loc["model.layers.0"]
    assert (layer["times"], layer["matmul_flops"]) == (LAYERS, ATTENTION + PROJECTIONS)
    assert llama.to_frame("ops")["flops"].sum() == llama.cost.flops
    kv = llama.to_frame("kv")
    assert list(kv["shape"]) == [(1, KV, S, HEAD)] * 2 * LAYERS
    assert kv["layer_bytes"].sum() == 2 * llama.cost.kv_bytes


def test_frames_without_pandas_and_unknown_tables_are_one_line(llama, monkeypatch):
    with pytest.raises(FxmeterError, match="none named 'op'"):
        llama.to_frame("op")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(FxmeterError, match="pip install pandas"):
        llama.to_frame("ops")


def test_the_heaviest_ops_are_ranked_by_what_is_asked_for(deepseek):
    for by, figure in (("flops", "flops"), ("bytes", "io_bytes")):
        found = deepseek.heaviest(4, by=by)
        amounts = [getattr(item.cost, figure) for item in found]
        assert amounts == sorted(amounts, reverse=True)
        assert len(found) == 4
        assert found[0].where in repr(found)
    assert deepseek.heaviest(3)[:] == deepseek.heaviest(3, by="bytes")[:]
    times = [item.time.estimate_s for item in deepseek.heaviest(5, device="h100-sxm5-80g")]
    assert times == sorted(times, reverse=True)
    assert sum(item.time.estimate_s for item in deepseek.heaviest(999, by="time", device="h100-sxm5-80g")) == (
        pytest.approx(deepseek.time("h100-sxm5-80g").estimate_s)
    )
    with pytest.raises(FxmeterError, match="device="):
        deepseek.heaviest(by="time")
    with pytest.raises(FxmeterError, match="'size'"):
        deepseek.heaviest(by="size")


def test_tables_show_themselves_in_a_notebook(deepseek):
    found = deepseek.tree(2)
    page = Parsed(found._repr_html_())
    assert page.seen.count("tr") == len(found) + 1
    assert {row.depth for row in found} == {0, 1, 2}


def test_a_term_is_explained_and_a_figure_with_its_value(llama):
    text = llama.explain("matmul_flops")
    assert "2 per multiply-accumulate" in text
    assert repr(text) == text
    assert f"{MATMUL / 1e3:,.1f} kFLOP" in text or f"{MATMUL / 1e6:.3f} MFLOP" in text
    assert "model.layers.0-2.mlp" in text
    assert llama.explain("Routing") == llama.explain("--routing")
    with pytest.raises(FxmeterError, match="did you mean matmul_flops"):
        llama.explain("matmul_flop")


def test_stages_are_compared_with_minus_and_over(llama, deepseek):
    found = deepseek - llama
    assert found.stages == diff(llama, deepseek).stages
    assert "prefill S=6" in repr(found)
    assert (llama / llama)["io_bytes"] == 1.0
    assert (llama / llama)["network_bytes"] is None
    assert (deepseek / llama)["kv_bytes"] == deepseek.cost.kv_bytes / llama.cost.kv_bytes
    with pytest.raises(TypeError):
        llama - 1


def test_costs_subtract_to_signed_figures():
    less = StageCost(matmul_flops=5, vector_flops=1, peak_activation_bytes=9, weight_read_bytes=2) - StageCost(
        matmul_flops=7, peak_activation_bytes=4, weight_read_bytes=1
    )
    assert (less.matmul_flops, less.flops, less.peak_activation_bytes) == (5 - 7, 5 + 1 - 7, 9 - 4)
    assert less.arithmetic_intensity == 6 / 2 - 7 / 1
    assert set(less.to_dict()) == set(FIGURES)
    assert "matmul_flops=-2" in repr(less)
    with pytest.raises(AttributeError):
        less.times  # noqa: B018


def test_the_steps_of_a_generation_show_themselves_too():
    stage = annotate(load_model(config(LLAMA)), generation(4, steps=2))
    assert "decode C=5" in repr(stage.last_step)
    assert stage.last_step.tree(1)[0].cost == stage.last_step.cost
