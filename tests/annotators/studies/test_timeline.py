"""Memory over a pass: counted by hand on a toy, equal to the peak and the cache on models, and whole as a trace."""

from __future__ import annotations

import json
import math
import operator
import re
import resource
import sys
from collections import Counter
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from fxmeter.annotators import annotate, annotate_module
from fxmeter.annotators.documents.chrome_trace import trace_text
from fxmeter.annotators.plots.memory import thinned
from fxmeter.annotators.studies.timeline import ACTIVATIONS, timeline_of
from fxmeter.models import decode, generation, prefill
from fxmeter.tracer import load_model
from fxmeter.tracer.graph.nodes import meta_of
from tests.tracer.tiny import DEEPSEEK, GEMMA3, GPT_OSS, LLAMA, QWEN_MOE, config

MAMBA = {
    "model_type": "mamba",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "state_size": 4,
    "time_step_rank": 2,
    "vocab_size": 40,
}
TINY = {
    "deepseek": DEEPSEEK,
    "llama": LLAMA,
    "qwen-moe": QWEN_MOE,
    "gemma3": GEMMA3,
    "gpt-oss": GPT_OSS,
    "mamba": MAMBA,
}
SCENARIOS = [prefill(20, batch=2), decode(20, batch=3), prefill(4, past_len=20)]


class Toy(nn.Module):
    """A product, its softmax, a sum that lets go of both, a copy."""

    def __init__(self):
        super().__init__()
        self.product = nn.Linear(6, 10, bias=False)

    def forward(self, x):
        y = self.product(x)
        y = y.softmax(-1)
        y = y + 1
        return y.to(torch.float64)


def test_a_toys_memory_is_what_one_counts_by_hand():
    timeline = timeline_of(annotate_module(Toy(), torch.zeros(2, 6), fold=False))
    one = 2 * 10 * 4
    kinds = {"matrix products": 1, "reductions": 2, "other arithmetic": 3, "copies": 4}
    live = [tuple(after[kind] for kind in kinds) for _, after in timeline.live_bytes()]
    assert live == [
        (0, 0, 0, 0),  # weights and inputs
        (one, 0, 0, 0),
        (one, one, 0, 0),
        (0, one, 0, 0),
        (0, one, one, 0),
        (0, 0, one, 0),
        (0, 0, one, 2 * one),
        (0, 0, 0, 2 * one),
    ]
    assert timeline.peak_bytes == one + 2 * one
    (start,) = [after for moment, after in timeline.live_bytes() if moment == 0]
    assert (start["weights"], start["inputs"], start["KV cache"]) == (6 * 10 * 4, 2 * 6 * 4, 0)
    modules = [(span.name, span.depth) for span in timeline.spans if not span.op]
    assert modules == [("", 0), ("product", 1)]


@pytest.fixture(params=TINY)
def model(request):
    return load_model(config(TINY[request.param]))


@pytest.mark.parametrize("attention", ["eager", "flash"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=["prefill", "decode", "chunk"])
def test_the_timeline_peaks_at_the_peak_and_ends_with_the_cache(model, attention, scenario):
    folded = annotate(model, scenario, attention=attention)
    full = annotate(model, scenario, attention=attention, fold=False)
    timeline = timeline_of(full)
    live = list(timeline.live_bytes())
    activations = [sum(after[kind] for kind in ACTIVATIONS) for _, after in live]
    assert max(activations) == timeline.peak_bytes == folded.cost.peak_activation_bytes
    assert live[activations.index(max(activations))][0] == timeline.peak
    last = live[-1][1]
    assert last["KV cache"] == folded.cost.kv_bytes > 0
    assert {after["weights"] for _, after in live} == {sum(p.nbytes for p in model.parameters())}
    new_tokens = 8 * scenario.batch * scenario.query_len  # int64 ids
    assert {after["inputs"] for _, after in live} == {new_tokens}
    assert min(min(after.values()) for _, after in live) == 0
    made = [item for item in timeline.allocations if item.kind in ACTIVATIONS]
    assert sum(item.bytes for item in made) == folded.cost.activation_bytes
    assert activations[-1] == last["matrix products"] + last["other arithmetic"] + last["copies"] > 0  # the logits


def test_an_append_grows_the_cache_by_the_new_entries():
    timeline = timeline_of(annotate(load_model(config(LLAMA)), decode(20, batch=3), fold=False))
    sizes = [after["KV cache"] for _, after in timeline.live_bytes()]
    one_token = 2 * 3 * 2 * 8 * 2  # K and V, batch, heads, head size, bfloat16
    before = 3 * 20 * one_token
    assert sorted(set(sizes)) == [before + i * one_token // 2 for i in range(3 * 2 + 1)]
    assert sizes == sorted(sizes)


def test_a_folded_pass_is_refused(preset_model):
    with pytest.raises(ValueError, match="fold=False"):
        timeline_of(annotate(preset_model("llama-2-7b"), prefill(16)))


@pytest.fixture(scope="module")
def trace():
    model = load_model(config(DEEPSEEK))
    stages = [annotate(model, prefill(20), attention=kind, fold=False) for kind in ("eager", "flash")]
    text = trace_text([timeline_of(stage) for stage in stages], {"model": "tiny"})
    return json.loads(text), stages


def of_process(events, process):
    return [event for event in events if event["pid"] == process and event["ph"] != "M"]


def test_a_trace_names_its_processes_and_tracks(trace):
    events = trace[0]["traceEvents"]
    named = [e for e in events if e["ph"] == "M" and e["name"] in ("process_name", "thread_name")]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in named}
    assert [names[1, 0], names[2, 0]] == ["prefill S=20, eager", "prefill S=20, flash"]
    assert names[1, 1] == names[2, 1] == "modules and ops"
    for event in events:
        if event["ph"] in "BEXi":
            assert (event["pid"], event["tid"]) in names


@pytest.mark.parametrize("process", [1, 2])
def test_a_traces_events_are_in_order_and_its_slices_nest(trace, process):
    events = of_process(trace[0]["traceEvents"], process)
    assert [e["ts"] for e in events] == sorted(e["ts"] for e in events)
    stage = trace[1][process - 1]
    nodes = [n for n in stage.fx_graph.nodes if n.op == "call_function" and n.target is not operator.getitem]
    ran = iter(nodes)
    stack, paths = [], []
    for event in events:
        if event["ph"] == "B":
            if "module" in event["args"]:
                around = [e["args"]["module"] for e in stack]
                assert event["args"]["module"].startswith(around[-1] if around else "")
                paths.append(event["args"]["module"])
            else:
                node = next(ran)
                assert (event["name"], event["ts"]) == (str(node.target), meta_of(node).span[0])
                assert stack[-1]["args"]["module"] == meta_of(node).module
            stack.append(event)
        elif event["ph"] == "E":
            assert event["ts"] > stack.pop()["ts"] if stack else False
    assert not stack
    assert next(ran, None) is None
    called = [path for path in stage.recording.calls if stage.modules[path].cost.io_bytes]
    assert set(called) <= set(paths)
    counts = Counter(e["name"] for e in events if e["ph"] == "B" and "flops" in e["args"])
    assert counts == {op.op: op.count for op in stage.ops if not op.op.startswith("(")}
    for field in ("flops", "io_bytes"):
        assert sum(e["args"].get(field, 0) for e in events if e["ph"] == "B") == getattr(stage.cost, field)


@pytest.mark.parametrize("process", [1, 2])
def test_a_traces_counters_are_the_sums_of_its_tensors(trace, process):
    events = of_process(trace[0]["traceEvents"], process)
    tensors = [e for e in events if e["ph"] == "X"]
    tracks = {}
    widths = {"bfloat16": 2, "float32": 4, "int64": 8, "int32": 4, "bool": 1}
    for tensor in tensors:  # one after another on every track
        assert tensor["ts"] >= tracks.get(tensor["tid"], 0)
        tracks[tensor["tid"]] = tensor["ts"] + tensor["dur"]
        dtype, shape = re.search(r" (\w+)\[(.*)\]$", tensor["name"]).groups()
        sizes = [int(size) for size in shape.split(", ") if size]
        assert tensor["args"]["bytes"] >= widths[dtype] * math.prod(sizes) > 0
    counted = [(e["ts"], e["args"]["bytes"]) for e in events if e["ph"] == "C" and e["name"] == "activations"]
    for moment, value in counted:
        alive = [t for t in tensors if t["ts"] <= moment < t["ts"] + t["dur"]]
        assert sum(t["args"]["bytes"] for t in alive) == value
        at = [e["args"] for e in events if e["ph"] == "C" and e["name"] == "activations by op" and e["ts"] <= moment][
            -1
        ]
        assert sum(at.values()) == value
    cost = trace[1][process - 1].cost
    assert sum(t["args"]["bytes"] for t in tensors) == cost.activation_bytes
    assert max(value for _, value in counted) == cost.peak_activation_bytes
    (peak,) = [e for e in events if e["ph"] == "i"]
    assert (peak["ts"], peak["args"]["bytes"]) in counted
    assert peak["args"]["bytes"] == cost.peak_activation_bytes


def test_a_long_pass_in_few_steps_keeps_its_peak(preset_model):
    timeline = timeline_of(annotate(preset_model("llama-2-7b"), prefill(64), fold=False))
    moments, live = thinned(timeline)
    points = [(moment, sum(after[kind] for kind in ACTIVATIONS)) for moment, after in timeline.live_bytes()]
    assert len(points) > 2 * len(moments) > 100
    assert (moments[0], moments[-1]) == (0, timeline.end)
    totals = [sum(values) for values in zip(*(live[kind] for kind in ACTIVATIONS), strict=True)]
    for start, stop, total in zip(moments, moments[1:], totals, strict=False):
        assert total == max(value for moment, value in points if start <= moment < stop)
    assert max(totals) == timeline.peak_bytes


@pytest.fixture
def tiny(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    return folder


def test_the_command_writes_a_process_for_every_stage_and_attention(run, tiny, tmp_path):
    target = tmp_path / "memory.json"
    done = run("report", tiny, "--prefill", 16, "--decode", 8, "--steps", 3, "--memory-timeline", target)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Cost by stage" in done.stdout
    data = json.loads(target.read_text())
    assert data["otherData"]["model"] == str(tiny)
    names = [e["args"]["name"] for e in data["traceEvents"] if e["ph"] == "M" and e["name"] == "process_name"]
    stages = ("prefill S=16", "decode C=10")  # of three steps after 8 tokens the last, the largest
    assert names == [f"{stage}, {attention}" for stage in stages for attention in ("eager", "flash")]
    model = load_model(config(LLAMA))
    costs = [annotate(model, prefill(16), attention=kind).cost for kind in ("eager", "flash")]
    costs += [annotate(model, generation(8, steps=3), attention=kind).cost for kind in ("eager", "flash")]
    for process, cost in enumerate(costs, 1):
        counters = [e for e in of_process(data["traceEvents"], process) if e["ph"] == "C"]
        counted = [e["args"]["bytes"] for e in counters if e["name"] == "activations"]
        assert max(counted) == cost.peak_activation_bytes


def test_a_page_has_its_vision_tower_on_the_timeline(run, tmp_path):
    target = tmp_path / "memory.json"
    options = ("--crops", "1x1", "--attention", "flash", "--json", tmp_path / "cost.json")
    assert run("report", "deepseek-ocr", *options, "--memory-timeline", target).returncode == 0
    events = json.loads(target.read_text())["traceEvents"]
    costs = [stage["cost"] for stage in json.loads((tmp_path / "cost.json").read_text())["stages"]]
    assert len(costs) == 3
    for process, cost in enumerate(costs, 1):
        (peak,) = [e for e in of_process(events, process) if e["ph"] == "i"]
        assert peak["args"]["bytes"] == cost["peak_activation_bytes"]


def test_a_picture_is_svg_with_a_row_for_every_pass(run, tiny, tmp_path):
    pytest.importorskip("matplotlib")
    target = tmp_path / "memory.svg"
    assert run("report", tiny, "--prefill", 16, "--memory-timeline", target).returncode == 0
    root = ElementTree.fromstring(target.read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    words = " ".join("".join(element.itertext()) for element in root.iter() if element.tag.endswith("}text"))
    for piece in (
        "prefill S=16, eager",
        "prefill S=16, flash",
        "KV cache",
        "weights",
        "reductions",
        "layers.1",
        "peak",
    ):
        assert piece in words
    once = target.read_text()
    assert run("report", tiny, "--prefill", 16, "--memory-timeline", target).returncode == 0
    assert target.read_text() == once


BAD = [
    (["--memory-timeline", "{tmp}/memory.txt"], 2, "name a .json file for a trace, or a .svg file"),
    (["--memory-timeline", "-"], 2, "name a .json file"),
    (["--memory-timeline", "{tmp}/no/memory.json"], 1, "there is no folder"),
    (["--memory-timeline", "{tmp}/m.json", "--json", "{tmp}/m.json"], 2, "both name"),
]


@pytest.mark.parametrize(("options", "code", "message"), BAD, ids=[options[-1] for options, _, _ in BAD])
def test_a_file_that_cannot_be_is_refused_before_the_work(run, options, code, message, tmp_path):
    done = run("report", "llama-2-7b", *[option.format(tmp=tmp_path) for option in options])
    assert (done.returncode, done.stdout) == (code, "")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_picture_without_matplotlib_is_one_line_that_says_what_to_install(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("fxmeter.annotators.cli.commands.report.find_spec", lambda name: None)
    done = run("report", "llama-2-7b", "--memory-timeline", tmp_path / "m.svg")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("fxmeter: a picture needs matplotlib: pip install 'fxmeter[plot]', or ")


@pytest.mark.parametrize("before", [None, "what was there"])
def test_a_full_disk_leaves_what_was_there(run, tiny, tmp_path, before):
    target = tmp_path / "memory.json"
    if before is not None:
        target.write_text(before)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        done = run("report", tiny, "--prefill", 16, "--memory-timeline", target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"fxmeter: --memory-timeline {target}: File too large\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["memory.json", "model"][before is None :]
    assert before is None or target.read_text() == before
