"""Small programs whose times say what a machine reaches: products by layout and rows, attention cores, elementwise
kernels in the cache and beyond it, fresh pages, and the work of the host around an op."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fxmeter.tracer.private import TorchDispatchMode

ROWS = (1, 2, 4, 8, 16, 64, 256, 1024)
"""Of a product with a weight; a machine that is slow at one number of rows is not asked for more."""
WIDTHS = {"cpu": (128, 256, 512, 1024, 2048), "cuda": (1024, 4096, 8192)}
"""Rows and columns of weights: few rows by a narrow one reach a half of what they reach by a wide one."""
WEIGHTS_BYTES = 2**27
"""Weights are multiplied in turn, so many that none is still in a cache when its turn comes again."""
QUERIES = (1, 16, 64, 256, 1024)
"""Rows of products that have a batch of matrices on both sides, and of attention cores."""
HEADS, HEAD_DIM = {"cpu": (2, 8, 32), "cuda": (32, 128)}, 64
KEYS = {"cpu": 512, "cuda": 2048}
"""Of those: heads, elements of one, and keys."""
TURNS = 4
"""Matrices that come of the pass itself are multiplied in turn, so many: a cache is copied before it is read, so that
four times what a product reads has passed through the processor's caches since."""
CHAIN = 4
"""Results that are alive at once: scores, scaled, masked, and made into probabilities."""
STREAM = 2**24
"""Elements of the tensors that bandwidth is measured on: 64 MiB in float32, beyond the caches."""
STREAMED = {"cpu": tuple(2**power for power in range(10, 25, 2)), "cuda": tuple(2**power for power in range(18, 27, 2))}
"""Elements of the tensors of elementwise kernels."""
VECTOR = (128, 512)
"""Rows and columns of what functions of single elements are measured on."""
HOST: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 64,
}
HOST_WIDTHS = (32, 256, 512, 1024, 2048)
"""Decoders of which a step less its products is the work of the host: the wider, the more of what the host needs have
the weights pushed out of the processor's caches."""

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


def clock_of(device: str) -> Callable[[], float]:
    """The clock for a device. What one thread computes is timed by its own share of the processor, so that other
    processes' is not in it; several threads, and a GPU, by the clock on the wall."""
    return time.thread_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def measure(run: Run, device: str, slot: float) -> Measurement:
    """Time ``run`` again and again for about ``slot`` seconds; many calls at once where one is too short to time."""
    wait: Callable[[], None] = torch.cuda.synchronize if device == "cuda" else lambda: None
    clock = clock_of(device)
    run()
    wait()
    started = clock()
    run()
    wait()
    once = max(clock() - started, 1e-7)
    calls = max(1, round(min(0.01, slot / 10) / once))
    times = [once] if calls == 1 else []
    until = time.perf_counter() + slot - once
    while len(times) < 3 or time.perf_counter() < until:
        started = clock()
        for _ in range(calls):
            run()
        wait()
        times.append((clock() - started) / calls)
    return Measurement(min(times), sorted(times)[len(times) // 4], statistics.median(times))


@dataclass(frozen=True, slots=True)
class Product:
    """One product: its rows, the elements that each is multiplied by, and what it computes and moves."""

    run: Run
    rows: int
    elements: int
    flops: int
    nbytes: int


def weight_products(form: str, dtype: torch.dtype, device: str) -> Iterator[Iterator[Product]]:
    """By width, then by rows: rows by square weights, stored column by column ("mm_t", as nn.Linear has them) or row by
    row ("mm")."""
    for width in WIDTHS[device]:
        one = torch.randn(width, width, device=device).to(dtype)
        weights = one.repeat(max(1, WEIGHTS_BYTES // one.nbytes), 1, 1)
        turns = itertools.cycle((weights.mT if form == "mm_t" else weights).unbind())
        yield (_weight_product(one, turns, rows) for rows in ROWS)


def _weight_product(weight: Tensor, turns: Iterator[Tensor], rows: int) -> Product:
    width = len(weight)
    x = torch.randn(rows, width, device=weight.device).to(weight.dtype)
    return Product(lambda: x @ next(turns), rows, width * width, 2 * rows * width * width, weight.nbytes + 2 * x.nbytes)


def head_products(form: str, dtype: torch.dtype, device: str) -> Iterator[Iterator[Product]]:
    """By heads, then by rows: queries by keys, which are stored column by column ("bmm_t"), or scores by values."""
    return ((_head_product(form, heads, rows, dtype, device) for rows in QUERIES) for heads in HEADS[device])


def _head_product(form: str, heads: int, rows: int, dtype: torch.dtype, device: str) -> Product:
    keys = KEYS[device]
    stored = [torch.randn(heads, keys, HEAD_DIM, device=device).to(dtype) for _ in range(TURNS)]
    queries = torch.randn(heads, rows, HEAD_DIM, device=device).to(dtype)
    scores = torch.randn(heads, rows, keys, device=device).to(dtype)
    turns = itertools.cycle([each.mT for each in stored] if form == "bmm_t" else stored)
    left, out = (queries, scores) if form == "bmm_t" else (scores, queries)
    moved = queries.nbytes + stored[0].nbytes + scores.nbytes
    flops = 2 * heads * rows * keys * HEAD_DIM
    return Product(lambda: torch.bmm(left, next(turns), out=out), rows, heads * keys * HEAD_DIM, flops, moved)


def attention_cores(form: str, dtype: torch.dtype, device: str) -> Iterator[Iterator[Product]]:
    """By heads, then by rows: a fused core of one query over all keys, or of a prompt over itself, with as many more
    heads as its keys are fewer: up to the diagonal ("attention"), or under a mask that is a tensor ("masked")."""
    return ((_attention_core(form, heads, rows, dtype, device) for rows in QUERIES) for heads in HEADS[device])


def _attention_core(form: str, heads: int, rows: int, dtype: torch.dtype, device: str) -> Product:
    causal, elements = form == "attention" and rows > 1, 2 * heads * KEYS[device] * HEAD_DIM
    keys = rows if rows > 1 else KEYS[device]
    heads = max(1, elements // (rows * HEAD_DIM)) if rows > 1 else heads
    turns = itertools.cycle([torch.randn(2, 1, heads, keys, HEAD_DIM, device=device).to(dtype) for _ in range(TURNS)])
    query = torch.randn(1, heads, rows, HEAD_DIM, device=device).to(dtype)
    mask = torch.zeros(1, 1, rows, keys, dtype=dtype, device=device) if form == "masked" else None
    attend = torch.nn.functional.scaled_dot_product_attention
    pairs = heads * (rows * (rows + 1) // 2 if causal else rows * keys)
    moved = 2 * query.nbytes + 2 * heads * keys * HEAD_DIM * query.itemsize
    flops = 4 * pairs * HEAD_DIM

    def run() -> Tensor:
        key, value = next(turns)
        return attend(query, key, value, mask, is_causal=causal)

    return Product(run, rows, flops // (2 * rows), flops, moved)


FORMS: dict[str, Callable[[str, torch.dtype, str], Iterator[Iterator[Product]]]] = {
    "mm_t": weight_products,
    "mm": weight_products,
    "bmm_t": head_products,
    "bmm": head_products,
    "attention": attention_cores,
    "masked": attention_cores,
}
"""Layout of a product → what makes it, by what each row is multiplied by, then by rows, in rising order."""


def products(device: str) -> int:
    """How many products are measured for one dtype."""
    return 2 * len(WIDTHS[device]) * len(ROWS) + 4 * len(HEADS[device]) * len(QUERIES)


def copy(device: str) -> Run:
    """Reads and writes ``STREAM`` elements."""
    source, target = torch.zeros(STREAM, device=device), torch.zeros(STREAM, device=device)
    return lambda: target.copy_(source)


def elementwise(device: str, count: int, dtype: torch.dtype = torch.float32) -> Run:
    """Reads two tensors of ``count`` elements and writes one that exists already."""
    a, b, out = (torch.zeros(count, device=device, dtype=dtype) for _ in range(3))
    return lambda: torch.mul(a, b, out=out)


def settle() -> None:
    """Free the largest tensor that the C library still takes from what the process has, on Linux 32 MiB: then it keeps
    as much as it ever does of what is freed later, as in a process that has run a model."""
    torch.empty(2**25 - 2**13, dtype=torch.uint8).fill_(1)


def allocating(count: int) -> Run:
    """As often as ``CHAIN`` says, with a new tensor for each result, all of them kept until the last is there."""
    a, b = torch.zeros(count), torch.zeros(count)
    return lambda: list(itertools.accumulate(range(CHAIN - 1), lambda x, _: torch.mul(x, b), initial=torch.mul(a, b)))


def functions(device: str) -> Run:
    """A softmax and an activation, ``VECTOR`` elements each."""
    x = torch.randn(VECTOR, device=device)
    return lambda: (torch.nn.functional.softmax(x, -1), torch.nn.functional.silu(x))


def tiny(device: str) -> Run:
    """A kernel that does nothing to speak of."""
    x = torch.zeros(16, device=device)
    return lambda: x.add_(1.0)


@dataclass(frozen=True, slots=True)
class HostStep:
    """A decode step on the CPU, where each op waits for the last, the products of it alone, how many ops it runs, and
    the bytes of weights that it reads for each."""

    step: Run
    products: Run
    ops: int
    bytes_per_op: int


def host_step(width: int) -> HostStep:
    """Of :data:`HOST` in that width: beside the products, Python, modules, views and dispatch are most of it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(hidden_size=width, intermediate_size=3 * width, **HOST)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    token = torch.zeros(1, 1, dtype=torch.long)
    cache = model(input_ids=token.expand(1, 8), use_cache=True).past_key_values
    weights = [module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)]
    inputs = {size: torch.randn(1, size) for size in (width, 3 * width)}

    def step() -> None:
        model(input_ids=token, past_key_values=cache, use_cache=True)
        cache.crop(-1)

    def products() -> None:
        for weight in weights:
            inputs[weight.shape[1]] @ weight.T

    with _Count() as count:
        step()
    return HostStep(step, products, count.ops, sum(weight.nbytes for weight in weights) // count.ops)


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
