"""Small programs whose times say what a machine reaches: products by layout and rows, attention cores, elementwise
kernels in the cache and beyond it, fresh pages, and the work of the host around an op."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fxmeter.tracer.private import TorchDispatchMode

ROWS = (1, 2, 4, 8, 16, 64, 256, 1024)
"""Of a product with a weight; a machine that is slow at one number of rows is not asked for more."""
WIDTH = {"cpu": 768, "cuda": 4096}
"""Weights are square and as wide as those of models that such a device runs; on a CPU wider ones reach up to a quarter
more with one row, narrower ones less. On a GPU narrower ones would be launches and nothing else."""
WEIGHTS_BYTES = 2**27
"""Weights are multiplied in turn, so many that none is still in a cache when its turn comes again."""
QUERIES = (1, 16, 64, 256, 1024)
"""Rows of products that have a batch of matrices on both sides, and of attention cores."""
HEADS, KEYS, HEAD_DIM = {"cpu": 4, "cuda": 64}, 1024, 64
"""Of those: heads, keys and elements, few enough that no result is too large for memory that the process has."""
STREAM = 2**24
"""Elements of the tensors that bandwidth is measured on: 64 MiB in float32, beyond the caches."""
CACHED = tuple(2**power for power in range(14, 23))
"""Elements of the tensors that the cache is looked for with."""
VECTOR = (128, 512)
"""Rows and columns of what functions of single elements are measured on."""
HOST: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 64,
}
"""A decoder whose tensors are so small that a step of it is the work of the host alone."""

Run = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Seconds of one thing, repeated: the best, what a quarter of the repeats stay below, and the median. (The best of
    a short thing is luck that no pass has throughout.)"""

    best_s: float
    usual_s: float
    median_s: float

    @property
    def spread(self) -> float:
        """How much the machine wavered."""
        return self.median_s / self.best_s - 1


def measure(run: Run, device: str, slot: float) -> Measurement:
    """Time ``run`` again and again for about ``slot`` seconds; many calls at once where one is too short to time."""
    wait: Callable[[], None] = torch.cuda.synchronize if device == "cuda" else lambda: None
    run()
    wait()
    started = time.perf_counter()
    run()
    wait()
    once = max(time.perf_counter() - started, 1e-7)
    calls = max(1, round(min(0.01, slot / 10) / once))
    times = [once] if calls == 1 else []
    until = time.perf_counter() + slot - once
    while len(times) < 3 or time.perf_counter() < until:
        started = time.perf_counter()
        for _ in range(calls):
            run()
        wait()
        times.append((time.perf_counter() - started) / calls)
    return Measurement(min(times), sorted(times)[len(times) // 4], statistics.median(times))


@dataclass(frozen=True, slots=True)
class Product:
    """One product: what it computes and moves, for a number of rows."""

    run: Run
    flops: int
    nbytes: int


def weight_product(form: str, rows: int, dtype: torch.dtype, device: str) -> Product:
    """Rows by square weights in turn, stored column by column ("mm_t", as nn.Linear has them) or row by row ("mm")."""
    width = WIDTH[device]
    one = torch.randn(width, width, device=device).to(dtype)
    weights = [one.clone() for _ in range(max(1, WEIGHTS_BYTES // one.nbytes))]
    turns = itertools.cycle([weight.T for weight in weights] if form == "mm_t" else weights)
    x = torch.randn(rows, width, device=device).to(dtype)
    return Product(lambda: x @ next(turns), 2 * rows * width * width, one.nbytes + 2 * x.nbytes)


def head_product(form: str, rows: int, dtype: torch.dtype, device: str) -> Product:
    """Queries by keys, which are stored column by column ("bmm_t"), or scores by values ("bmm"), for all heads."""
    heads = HEADS[device]
    queries = torch.randn(heads, rows, HEAD_DIM, device=device).to(dtype)
    keys = torch.randn(heads, KEYS, HEAD_DIM, device=device).to(dtype)
    scores = torch.randn(heads, rows, KEYS, device=device).to(dtype)
    run = (lambda: torch.bmm(queries, keys.mT)) if form == "bmm_t" else (lambda: torch.bmm(scores, keys))
    return Product(run, 2 * heads * rows * KEYS * HEAD_DIM, queries.nbytes + keys.nbytes + scores.nbytes)


def attention_core(form: str, rows: int, dtype: torch.dtype, device: str) -> Product:
    """A fused core: some queries over all keys. (``form`` is "attention", the only one.)"""
    heads = HEADS[device]
    query, key, value = (
        torch.randn(1, heads, count, HEAD_DIM, device=device).to(dtype) for count in (rows, KEYS, KEYS)
    )
    attend = torch.nn.functional.scaled_dot_product_attention
    moved = 2 * query.nbytes + key.nbytes + value.nbytes
    return Product(lambda: attend(query, key, value), 4 * heads * rows * KEYS * HEAD_DIM, moved)


FORMS: dict[str, tuple[Callable[[str, int, torch.dtype, str], Product], str]] = {
    "mm_t": (weight_product, "ROWS"),
    "mm": (weight_product, "ROWS"),
    "bmm_t": (head_product, "QUERIES"),
    "bmm": (head_product, "QUERIES"),
    "attention": (attention_core, "QUERIES"),
}
"""Layout of a product → (what makes it, the constant with its numbers of rows)."""


def counts(form: str) -> Sequence[int]:
    """The numbers of rows that a layout is measured at."""
    found: Sequence[int] = globals()[FORMS[form][1]]
    return found


def copy(device: str) -> Run:
    """Reads and writes ``STREAM`` elements."""
    source, target = torch.zeros(STREAM, device=device), torch.zeros(STREAM, device=device)
    return lambda: target.copy_(source)


def elementwise(device: str, count: int) -> Run:
    """Reads two tensors of ``count`` elements and writes one that exists already."""
    a, b, out = (torch.zeros(count, device=device) for _ in range(3))
    return lambda: torch.mul(a, b, out=out)


def allocating(count: int) -> Run:
    """The same with a new tensor for its result."""
    a, b = torch.zeros(count), torch.zeros(count)
    return lambda: torch.mul(a, b)


def functions(device: str) -> Run:
    """A softmax and an activation, ``VECTOR`` elements each."""
    x = torch.randn(VECTOR, device=device)
    return lambda: (torch.nn.functional.softmax(x, -1), torch.nn.functional.silu(x))


def tiny(device: str) -> Run:
    """A kernel that does nothing to speak of."""
    x = torch.zeros(16, device=device)
    return lambda: x.add_(1.0)


def host_step() -> tuple[Run, int]:
    """A decode step of :data:`HOST` on the CPU, where each op waits for the last, and how many ops it runs: Python,
    modules, views and dispatch are most of what an op costs there."""
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**HOST), attn_implementation="eager").eval()
    token = torch.zeros(1, 1, dtype=torch.long)
    cache = model(input_ids=token.expand(1, 8), use_cache=True).past_key_values

    def step() -> None:
        model(input_ids=token, past_key_values=cache, use_cache=True)
        cache.crop(-1)

    with _Count() as count:
        step()
    return step, count.ops


class _Count(TorchDispatchMode):
    """Counts ops that compute: not those that return a view of what they were given."""

    def __init__(self) -> None:
        super().__init__()
        self.ops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        given = {each.untyped_storage().data_ptr() for each in args if isinstance(each, Tensor)}
        self.ops += not (isinstance(found, Tensor) and found.untyped_storage().data_ptr() in given)
        return found
