"""What fxmeter makes of one causal-LM type: every check of ``validation/coverage.py`` for it, as plain data.

The reference is the same config as a real float32 model on the CPU, run by transformers alone
(``validation/coverage_real.py``): whether it runs at all, what torch's FlopCounterMode says, and the tensors that are
alive after prefill and after a decode step.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from fxmeter import FxmeterError, annotate, load_model, prefill
from fxmeter.annotators.pricing.graph import priced_nodes
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.models.stage_cost import FIELDS
from fxmeter.tracer.graph.nodes import meta_of
from fxmeter.tracer.run.passes import record
from validation.coverage_real import SCENARIOS, RealPass, real_model, real_pass
from validation.small_configs import kinds_of_layers, small_config

ATTENTIONS = ("eager", "flash")
LENGTHS = (160, 240)
"""Two prompts, both far above every window and chunk of a small config: they must give graphs of one size."""


@dataclass
class Pass:
    """One of the four combinations. ``reason`` says why it failed, "" where it did not."""

    stage: str
    attention: str
    works: bool = False
    reason: str = ""
    uncosted: list[str] = field(default_factory=list)
    matmul: str = ""
    cache: str = ""
    cache_kinds: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)
    folding: str = ""
    growth: str = ""
    nodes: int = 0
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether everything asked of it is so."""
        good = ("equal", "explained")
        checks = (self.matmul, self.cache, self.folding, self.growth)
        return self.works and not self.uncosted and all(check.startswith(good) for check in checks)


@dataclass
class TypeResult:
    """What was found for one type. ``runs`` is about transformers alone: the denominator."""

    model_type: str
    runs: bool = False
    reason: str = ""
    layers: int = 0
    parameters: int = 0
    cache_kinds: list[str] = field(default_factory=list)
    passes: list[Pass] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with whether each pass holds."""
        return {**asdict(self), "passes": [{**asdict(p), "holds": p.holds} for p in self.passes]}


def check_type(model_type: str) -> TypeResult:
    """Run every check. What transformers cannot run is a reason, not an error."""
    result = TypeResult(model_type)
    try:
        config = small_config(model_type)
        torch.manual_seed(0)
        model = real_model(config)
        real = {stage: real_pass(model, stage) for stage in SCENARIOS}
    except Exception as error:
        result.reason = one_line(error)
        return result
    result.runs = True
    result.layers = len(kinds_of_layers(config))
    result.parameters = sum(p.numel() for p in model.parameters())
    for stage in SCENARIOS:
        for attention in ATTENTIONS:
            result.passes.append(check_pass(config, model, real[stage], stage, attention))
    result.cache_kinds = sorted({kind for found in result.passes for kind in found.cache_kinds})
    return result


def check_pass(config: Any, model: nn.Module, real: RealPass, stage: str, attention: str) -> Pass:
    """One combination on meta, folded and in full, against the real ``model``."""
    found = Pass(stage, attention)
    started = time.perf_counter()
    try:
        ours = load_model(config, dtype="float32")
        folded = annotate(ours, SCENARIOS[stage], attention=attention)
        found.seconds = time.perf_counter() - started
        full = annotate(ours, SCENARIOS[stage], attention=attention, fold=False)
        found.growth = compare_growth(ours, attention) if stage == "prefill" else "equal"
    except Exception as error:
        found.reason = one_line(error)
        return found
    found.works = True
    found.nodes = len(folded.fx_graph.nodes)
    found.uncosted = sorted({item.op for item in folded.uncosted})
    found.cache_kinds = sorted({layer.kind for layer in full.kv_cache})
    found.matmul = compare_matmul(full, real.counted)
    if not found.matmul.startswith(("equal", "explained")):
        evenly = compare_matmul(full, real_pass(model, stage, balanced=True).counted)
        if evenly.startswith(("equal", "explained")):
            names = [*evenly.partition(": ")[2].split(", "), "balanced routing"]
            found.matmul = f"explained: {', '.join(filter(None, names))}"
    found.cache, found.beyond = compare_cache(full.cost.kv_bytes, real)
    found.folding = compare_folding(folded, full)
    return found


def compare_cache(priced: int, real: RealPass) -> tuple[str, list[str]]:
    """Whether the entries alive are the bytes priced, and what transformers keeps beside them."""
    beyond = []
    if real.allocated_bytes > real.cache_bytes:
        beyond.append("the whole allocation behind a slice")
    if real.allocated_bytes < real.cache_bytes:
        beyond.append("elements that an expanded entry repeats")
    if real.counter_bytes:
        beyond.append("scalars that count tokens")
    if real.table_bytes:
        beyond.append("tables that no sequence owns")
    return ("equal" if priced == real.cache_bytes else f"{priced} {real.cache_bytes}"), beyond


def compare_growth(model: nn.Module, attention: str) -> str:
    """Equal where two long prompts give graphs with equally many nodes, or the modules whose part grows."""
    shorter, longer = (_nodes_by_module(model, length, attention) for length in LENGTHS)
    grown = sorted(path or "(root)" for path in shorter.keys() | longer.keys() if shorter[path] != longer[path])
    if not grown:
        return "equal"
    return f"{shorter.total()} {longer.total()} nodes: {', '.join(grown[:2])}"


def _nodes_by_module(model: nn.Module, length: int, attention: Any) -> Counter[str]:
    graph = record(model, prefill(length), attention=attention).graph
    return Counter(meta_of(node).module for node in graph.nodes if node.op == "call_function")


UNSEEN = (
    ("fxmeter.selective_scan.", "fused scan"),
    ("fxmeter.selective_state_update.", "fused scan"),
    ("fxmeter.state_space_dual.", "fused scan"),
    ("fxmeter.gated_delta_rule.", "fused scan"),
    ("fxmeter.mlstm.", "fused scan"),
    ("fxmeter.lightning_attention.", "fused scan"),
    ("fxmeter.block_index.", "fused indexer"),
)
"""Operators that FlopCounterMode, run over the same operators, does not see into."""


def compare_matmul(stage: AnnotatedStage, counted: int) -> str:
    """Equal; equal but for operators that the counter does not see into, by name; or both numbers.

    Where a query attends to the keys that an indexer picks, the fused core computes those pairs alone; eager, all.
    """
    ours = stage.cost.matmul_flops
    if ours == counted:
        return "equal"
    unseen, names = 0, set()
    for op in stage.ops:
        for prefix, name in UNSEEN:
            if op.op.startswith(prefix):
                unseen += op.cost.matmul_flops
                names.add(name)
    for node in priced_nodes(stage.graph):
        if node.op.startswith("fxmeter.sparse_attention"):
            _, key, _, indices = node.operands[:4]
            picked, pairs = indices.shape[-1], key.shape[2]
            unseen -= node.times * node.cost.matmul_flops * (pairs - picked) // picked
            names.add("sparse core")
    return f"explained: {', '.join(sorted(names))}" if ours - unseen == counted else f"{ours} {counted}"


def compare_folding(folded: AnnotatedStage, full: AnnotatedStage) -> str:
    """Equal in every field of the pass, of each op and module, and in the cache's table; or the first that differs.

    A peak is a level, not an amount: that of a module which stands for others is the highest of theirs.
    """
    for name in FIELDS:
        ours, theirs = getattr(folded.cost, name), getattr(full.cost, name)
        if ours != theirs:
            return f"{name} {ours} {theirs}"
    ops = {op.op: (op.count, op.cost) for op in full.ops}
    for op in folded.ops:
        if ops.pop(op.op, None) != (op.count, op.cost):
            return f"op {op.op}"
    if ops:
        return f"op {next(iter(ops))}"
    peaks: dict[tuple[str, str], int] = {}
    for path, module in full.modules.items():
        for name in FIELDS:
            ours, theirs = getattr(folded.modules[path].cost, name), getattr(module.cost, name)
            if "peak" in name:
                key = (folded.modules.stand_in(path), name)
                peaks[key] = max(peaks.get(key, 0), theirs)
            elif ours != theirs:
                return f"module {path} {name} {ours} {theirs}"
    for (path, name), highest in peaks.items():
        if getattr(folded.modules[path].cost, name) != highest:
            return f"module {path} {name} {getattr(folded.modules[path].cost, name)} {highest}"
    return "equal" if folded.kv_cache == full.kv_cache else "the cache table"


def one_line(error: Exception) -> str:
    """What went wrong and where, in a line."""
    cause = error.__cause__ if isinstance(error, FxmeterError) and error.__cause__ is not None else error
    frames = [f for f in traceback.extract_tb(cause.__traceback__) if "site-packages/torch/" not in f.filename]
    place = f" ({frames[-1].filename.split('/')[-1]}:{frames[-1].lineno})" if frames else ""
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}{place}"
