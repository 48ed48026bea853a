"""A trace as torch.profiler writes it of a GPU, made by hand: a Llama of two layers, whose times are known.

Python calls of modules around ops that call ops, launches by the runtime and by the driver (Triton), their kernels much
later on a stream and tied to them by correlation ids, memory events, and what else such a file has. The MLP of the
second layer is compiled: SiLU and product are one Triton kernel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.tracer.tiny import LLAMA

FIELDS = {**LLAMA, "num_hidden_layers": 2, "dtype": "bfloat16", "architectures": ["LlamaForCausalLM"]}
TOKENS, WIDTH, INNER, WORDS, HEADS, KV_HEADS, HEAD = 16, 32, 48, 40, 4, 2, 8
X, NORMED = [1, TOKENS, WIDTH], [1, TOKENS, 1]
COPY_US, TRITON_US = 6, 5
LONG = {"mm": 10, "embedding": 4, "copy": 3, "flash": 7}
"""us of a kernel; of any other 2."""
ALLOCATED = (4096, 8192, -4096, 2048)


class Writer:
    """Events as they come; ``module_us`` has the time of each module's own kernels."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = [{"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "python"}}]
        self.module_us: Counter[str] = Counter()
        self.now, self.kernels, self.paths = 100.0, 0, [""]
        self.instances: dict[str, list[str]] = {}

    @contextmanager
    def call(self, category: str, name: str, **args: Any) -> Iterator[None]:
        event = {"ph": "X", "cat": category, "name": name, "pid": 1, "tid": 1, "ts": self.now, "args": args}
        self.events.append(event)
        self.now += 1
        yield
        self.now += 1
        event["dur"] = self.now - event["ts"]

    @contextmanager
    def module(self, class_name: str, path: str) -> Iterator[None]:
        alike = self.instances.setdefault(class_name, [])
        alike.append(path)
        self.paths.append(path)
        call = self.call("python_function", f"nn.Module: {class_name}_{len(alike) - 1}")
        with call, self.call("python_function", "modeling_llama.py(100): forward"):
            yield
        self.paths.pop()

    def op(self, name: str, *dims: Any, kernel: str = "", us: int = 0, inside: tuple[str, ...] = ()) -> None:
        """``name``, which calls ``inside`` one in the other; the innermost launches ``kernel``."""
        types = ["c10::BFloat16"] * len(dims)
        with self.call(
            "cpu_op", name, **{"Input Dims": list(dims), "Input type": types, "External id": len(self.events)}
        ):
            if inside:
                self.op(inside[0], *dims, kernel=kernel, us=us, inside=inside[1:])
            elif kernel:
                self.launch(kernel, us or LONG.get(kernel, 2))

    def launch(self, kernel: str, us: int, category: str = "cuda_runtime", name: str = "cudaLaunchKernel") -> None:
        self.kernels += 1
        correlation = 1000 + self.kernels
        with self.call(category, name, correlation=correlation, cbid=211):
            pass
        kind = "gpu_memcpy" if kernel.startswith("Memcpy") else "kernel"
        at = {"pid": 0, "tid": 7, "ts": 50_000.0 + 20 * self.kernels}
        args = {"stream": 7, "device": 0, "correlation": correlation, "grid": [1, 1, 1]}
        self.events.append({"ph": "X", "cat": kind, "name": kernel, **at, "dur": us, "args": args})
        self.events.append(
            {"ph": "s", "cat": "ac2g", "name": "ac2g", "id": correlation, "pid": 1, "tid": 1, "ts": self.now}
        )
        self.events.append({"ph": "f", "cat": "ac2g", "name": "ac2g", "id": correlation, "bp": "e", **at})
        if len(self.paths) > 1:
            self.module_us[self.paths[-1]] += us

    def memory(self, size: int) -> None:
        args = {"Device Type": 1, "Device Id": 0, "Bytes": size, "Addr": 1, "Total Allocated": 1}
        self.events.append({"ph": "i", "s": "t", "name": "[memory]", "pid": 1, "tid": 1, "ts": self.now, "args": args})
        self.now += 1


def llama() -> Writer:
    """A prefill of the two layers, and before it the tokens' way to the device."""
    to = Writer()
    to.op("aten::to", [1, TOKENS], [], kernel="Memcpy HtoD", us=COPY_US, inside=("aten::_to_copy", "aten::copy_"))
    with to.module("LlamaForCausalLM", ""):
        for size in ALLOCATED:
            to.memory(size)
        with to.module("LlamaModel", "model"):
            _model(to)
        to.op("aten::slice", X, [], [], [], [])
        _linear(to, "lm_head", WIDTH, WORDS)
    with to.call("cuda_runtime", "cudaDeviceSynchronize", correlation=9):
        pass
    at = {"pid": 0, "tid": 7, "ts": 50_000.0, "dur": 4000.0}
    to.events.append({"ph": "X", "cat": "gpu_user_annotation", "name": "ProfilerStep#3", **at, "args": {}})
    to.events.append({"ph": "X", "cat": "overhead", "name": "Buffer Flush", "pid": -1, "tid": 0, "ts": 1.0, "dur": 9.0})
    to.events.append({"ph": "i", "s": "g", "name": "Record Window End", "pid": "", "tid": "", "ts": 60_000.0})
    return to


def _model(to: Writer) -> None:
    with to.module("Embedding", "model.embed_tokens"):
        to.op("aten::embedding", [WORDS, WIDTH], [1, TOKENS], kernel="embedding", inside=("aten::index_select",))
    to.op("aten::arange", [], [], kernel="arange")
    to.op("aten::add", [TOKENS], [], [], kernel="add")
    to.op("aten::unsqueeze", [TOKENS], [])
    with to.module("LlamaRotaryEmbedding", "model.rotary_emb"):
        positions, angles, half = [1, TOKENS, 1], [1, TOKENS, HEAD], [1, TOKENS, HEAD // 2]
        _copied(to, positions)
        to.op("aten::mul", positions, [HEAD // 2], kernel="mul")
        to.op("aten::cat", [half, half], [], kernel="cat")
        for function in ("aten::cos", "aten::sin"):
            to.op(function, angles, kernel=function)
            to.op("aten::mul", angles, [], kernel="mul")
        for _ in range(2):
            _copied(to, angles)
    for layer in range(2):
        with to.module("LlamaDecoderLayer", f"model.layers.{layer}"):
            _layer(to, f"model.layers.{layer}", compiled=layer == 1)
    _norm(to, "model.norm")


def _layer(to: Writer, path: str, *, compiled: bool) -> None:
    _norm(to, f"{path}.input_layernorm")
    with to.module("LlamaAttention", f"{path}.self_attn"):
        _attention(to, f"{path}.self_attn")
    to.op("aten::add", X, X, [], kernel="add")
    _norm(to, f"{path}.post_attention_layernorm")
    with to.module("LlamaMLP", f"{path}.mlp"):
        inner = [1, TOKENS, INNER]
        _linear(to, f"{path}.mlp.gate_proj", WIDTH, INNER)
        if not compiled:
            with to.module("SiLUActivation", f"{path}.mlp.act_fn"):
                to.op("aten::silu", inner, kernel="silu")
        _linear(to, f"{path}.mlp.up_proj", WIDTH, INNER)
        if compiled:
            with to.call("cpu_op", "triton_poi_fused_mul_silu_0", **{"Input Dims": [inner, inner, []]}):
                to.launch("triton_poi_fused_mul_silu_0", TRITON_US, "cuda_driver", "cuLaunchKernel")
        else:
            to.op("aten::mul", inner, inner, kernel="mul")
        _linear(to, f"{path}.mlp.down_proj", INNER, WIDTH)
    to.op("aten::add", X, X, [], kernel="add")


def _attention(to: Writer, path: str) -> None:
    queries, keys = [1, HEADS, TOKENS, HEAD], [1, KV_HEADS, TOKENS, HEAD]
    for name, heads in (("q_proj", HEADS), ("k_proj", KV_HEADS), ("v_proj", KV_HEADS)):
        _linear(to, f"{path}.{name}", WIDTH, heads * HEAD)
        to.op("aten::view", [1, TOKENS, heads * HEAD], [])
        to.op("aten::transpose", [1, TOKENS, heads, HEAD], [], [])
    for _ in range(2):
        to.op("aten::unsqueeze", [1, TOKENS, HEAD], [])
    angles = [1, 1, TOKENS, HEAD]
    for turned in (queries, keys):
        half = [*turned[:3], HEAD // 2]
        to.op("aten::mul", turned, angles, kernel="mul")
        for _ in range(2):
            to.op("aten::slice", turned, [], [], [], [])
        to.op("aten::neg", half, kernel="neg")
        to.op("aten::cat", [half, half], [], kernel="cat")
        to.op("aten::mul", turned, angles, kernel="mul")
        to.op("aten::add", turned, turned, [], kernel="add")
    for _ in range(2):
        to.op("aten::cat", [[0], keys], [], kernel="cat")
    inside = ("aten::_scaled_dot_product_flash_attention", "aten::_flash_attention_forward")
    to.op("aten::scaled_dot_product_attention", queries, keys, keys, kernel="flash", inside=inside)
    to.op("aten::transpose", queries, [], [])
    to.op("aten::reshape", [1, TOKENS, HEADS, HEAD], [], inside=("aten::view",))
    _linear(to, f"{path}.o_proj", WIDTH, WIDTH)


def _linear(to: Writer, path: str, width: int, out: int) -> None:
    with (
        to.module("Linear", path),
        to.call("cpu_op", "aten::linear", **{"Input Dims": [[1, TOKENS, width], [out, width], []]}),
    ):
        to.op("aten::t", [out, width], inside=("aten::transpose", "aten::as_strided"))
        with to.call("cpu_op", "aten::matmul", **{"Input Dims": [[1, TOKENS, width], [width, out]]}):
            to.op("aten::view", [1, TOKENS, width], [])
            to.op("aten::mm", [TOKENS, width], [width, out], kernel="mm")
            to.op("aten::_unsafe_view", [TOKENS, out], [])


def _norm(to: Writer, path: str) -> None:
    with to.module("LlamaRMSNorm", path):
        _copied(to, X)
        to.op("aten::pow", X, [], kernel="pow")
        to.op("aten::mean", X, [], [], [], kernel="mean")
        to.op("aten::add", NORMED, [], [], kernel="add")
        to.op("aten::rsqrt", NORMED, kernel="rsqrt")
        to.op("aten::mul", X, NORMED, kernel="mul")
        _copied(to, X)
        to.op("aten::mul", [WIDTH], X, kernel="mul")


def _copied(to: Writer, dims: list[int]) -> None:
    to.op("aten::to", dims, [], [], [], [], kernel="copy", inside=("aten::_to_copy", "aten::copy_"))
