"""What fxmeter makes of one causal-LM type: every check of ``benchmarks/coverage.py`` for it, as plain data.

The reference is the same config as a real float32 model on the CPU, run by transformers alone: whether it runs at
all, the bytes of its cache after prefill and after a decode step, and torch's FlopCounterMode on both.
"""

from __future__ import annotations

import time
import traceback
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from annotators import annotate
from annotators.rollup import AnnotatedStage
from benchmarks.small_configs import kinds_of_layers, small_config
from models import FxmeterError, Scenario, decode, prefill
from models.stage_cost import FIELDS, StageCost
from tracer import load_model
from tracer.cache import cache_of
from tracer.context import CACHE_ARGUMENTS, Held, attributes_restored, empty_cache, forward_parameters
from tracer.decoder import DecoderWithHead
from tracer.scan_hooks import scans_as_operators

BATCH, PROMPT = 2, 24
SCENARIOS: dict[str, Scenario] = {"prefill": prefill(PROMPT, batch=BATCH), "decode": decode(PROMPT, batch=BATCH)}
ATTENTIONS = ("eager", "flash")


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
    folding: str = ""
    nodes: int = 0
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether everything asked of it is so."""
        good = ("equal", "explained")
        checks = (self.matmul, self.cache, self.folding)
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
    result.cache_kinds = sorted(real["decode"].kinds)
    for stage in SCENARIOS:
        for attention in ATTENTIONS:
            result.passes.append(check_pass(config, real[stage], stage, attention))
    return result


def real_model(config: PreTrainedConfig) -> nn.Module:
    """The model with random float32 weights on the CPU."""
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
        return model.eval()
    return DecoderWithHead.from_config(config, dtype=torch.float32).eval()


@dataclass
class RealPass:
    """A pass of the real model: bytes of the cache after it by kind, FLOPs that the counter saw."""

    cache_bytes: int
    kinds: set[str]
    counted: int


def real_pass(model: nn.Module, stage: str) -> RealPass:
    """Run ``model`` on the CPU; a decode step follows a prefill of its own."""
    tokens = torch.randint(5, 100, (BATCH, PROMPT))
    kwargs = cache_argument(model, empty_cache(model))
    with torch.no_grad(), attributes_restored(model) as before:
        if stage == "decode":
            cache = cache_of(model(input_ids=tokens, use_cache=True, **kwargs)) or next(iter(kwargs.values()), None)
            keeps = any(Held(cache, before, BATCH).tensors())
            tokens = torch.randint(5, 100, (BATCH, 1 if keeps else PROMPT + 1))
            kwargs = cache_argument(model, cache)
        as_batched_products(model)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), scans_as_operators(model):
            out = model(input_ids=tokens, use_cache=True, **kwargs)
        cache = cache_of(out) or next(iter(kwargs.values()), None)
        held = list(Held(cache, before, BATCH).tensors())
    return RealPass(sum(e.tensor.nbytes for e in held), {e.kind for e in held}, counter.get_total_flops())


def cache_argument(model: nn.Module, cache: Any) -> dict[str, Any]:
    """The cache under the name that the model's forward gives it."""
    name = next((n for n in CACHE_ARGUMENTS if n in forward_parameters(model)), None)
    return {} if cache is None or name is None else {name: cache}


def as_batched_products(model: nn.Module) -> None:
    """Routed experts in the form that FlopCounterMode sees."""
    for module in model.modules():
        config = getattr(module, "config", None)
        if hasattr(config, "_experts_implementation"):
            config._experts_implementation = "batched_mm"


def check_pass(config: Any, real: RealPass, stage: str, attention: str) -> Pass:
    """One combination on meta, folded and in full, against the real model."""
    found = Pass(stage, attention)
    started = time.perf_counter()
    try:
        model = load_model(config, dtype="float32")
        folded = annotate(model, SCENARIOS[stage], attention=attention)
        found.seconds = time.perf_counter() - started
        full = annotate(model, SCENARIOS[stage], attention=attention, fold=False)
    except Exception as error:
        found.reason = one_line(error)
        return found
    found.works = True
    found.nodes = len(folded.fx_graph.nodes)
    found.uncosted = sorted({item.op for item in folded.uncosted})
    found.matmul = compare_matmul(full, real.counted, attention)
    found.cache = "equal" if full.cost.kv_bytes == real.cache_bytes else f"{full.cost.kv_bytes} {real.cache_bytes}"
    found.folding = compare_folding(folded, full)
    return found


UNSEEN = (
    ("fxmeter.selective_scan.", "fused scan"),
    ("fxmeter.selective_state_update.", "fused scan"),
    ("fxmeter.state_space_dual.", "fused scan"),
    ("fxmeter.gated_delta_rule.", "fused scan"),
    ("fxmeter.mlstm.", "fused scan"),
)
"""Operators that FlopCounterMode, run over the same operators, does not see into."""


def compare_matmul(stage: AnnotatedStage, counted: int, attention: str) -> str:
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
    for _, data in stage.graph.nodes(data=True):
        if data["op"].startswith("fxmeter.sparse_attention"):
            _, key, _, indices = data["inputs"].split("], ")[:4]
            picked, pairs = int(indices.rstrip("]").split(", ")[-1]), int(key.split(", ")[2])
            unseen -= data["times"] * data["cost"].matmul_flops * (pairs - picked) // picked
            names.add("sparse core")
    return f"explained: {', '.join(sorted(names))}" if ours - unseen == counted else f"{ours} {counted}"


def compare_folding(folded: AnnotatedStage, full: AnnotatedStage) -> str:
    """Equal in every field, op and cache layer, or the first that differs.

    A peak is a level at a place, not an amount: of an op or a module, it is one of each recorded instance.
    """
    ours, theirs = folded.cost.to_dict(), full.cost.to_dict()
    for name, value in theirs.items():
        if ours[name] != value:
            return f"{name} {ours[name]} {value}"
    ops = {op.op: (op.count, additive(op.cost)) for op in full.ops}
    for op in folded.ops:
        if ops.pop(op.op, None) != (op.count, additive(op.cost)):
            return f"op {op.op}"
    if ops:
        return f"op {next(iter(ops))}"
    return "equal" if folded.kv_cache == full.kv_cache else "the cache table"


def additive(cost: StageCost) -> dict[str, Any]:
    """The fields that add up."""
    return {name: getattr(cost, name) for name in FIELDS if "peak" not in name}


def one_line(error: Exception) -> str:
    """What went wrong and where, in a line."""
    cause = error.__cause__ if isinstance(error, FxmeterError) and error.__cause__ is not None else error
    frames = [f for f in traceback.extract_tb(cause.__traceback__) if "site-packages/torch/" not in f.filename]
    place = f" ({frames[-1].filename.split('/')[-1]}:{frames[-1].lineno})" if frames else ""
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}{place}"
