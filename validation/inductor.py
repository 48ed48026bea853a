"""What Inductor counts as bytes accessed for a module: the sum over the kernels that it makes of it, for the CPU.

``torch._inductor.metrics.num_bytes_accessed`` is ``GraphLowering.count_bytes()``, taken once the kernels are settled.
Here it is taken at the same place; the C++ is compiled and run only on demand.

``pointwise_cat`` makes concatenations pointwise, as Inductor has them on a GPU; its CPU backend writes them to memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch._inductor import config, metrics
from torch._inductor.graph import GraphLowering

from validation.fused_parts import Part


@dataclass(frozen=True, slots=True)
class InductorKernel:
    """A kernel: the aten ops that it comes from, and the bytes that it accesses of each buffer."""

    ops: tuple[str, ...]
    buffers: dict[str, int]
    extern: bool

    @property
    def nbytes(self) -> int:
        """Bytes accessed."""
        return sum(self.buffers.values())


@dataclass(frozen=True, slots=True)
class InductorCount:
    """Bytes accessed in all, and by kernel; ``graphs`` is 1 where nothing broke the graph."""

    nbytes: int
    kernels: tuple[InductorKernel, ...]
    graphs: int


class _CountedError(Exception):
    """Raised in the place of generating code."""


def count_bytes(part: Part, *, pointwise_cat: bool = True) -> InductorCount:
    """Inductor's count for one call, without compiling any code."""
    seen: list[tuple[int, tuple[InductorKernel, ...]]] = []

    def settle(graph: Any) -> Any:
        graph.init_wrapper_code()
        graph._update_scheduler()
        seen.append((graph.count_bytes()[0], _kernels(graph)))
        raise _CountedError

    with _fresh(pointwise_cat), patch.object(GraphLowering, "compile_to_module", settle):
        try:
            torch.compile(part.module, fullgraph=True)(*part.args, **part.kwargs)
        except Exception:
            if not seen:
                raise
    return InductorCount(seen[0][0], seen[0][1], len(seen))


def compiled_and_run(part: Part, *, pointwise_cat: bool = True) -> tuple[int, Any]:
    """``metrics.num_bytes_accessed`` after really compiling a part, and what the compiled one returns."""
    metrics.reset()
    torch._logging.set_logs(inductor_metrics=True)
    try:
        with _fresh(pointwise_cat):
            out = torch.compile(part.module, fullgraph=True)(*part.args, **part.kwargs)
    finally:
        torch._logging.set_logs()
    return metrics.num_bytes_accessed, out


@contextmanager
def _fresh(pointwise_cat: bool) -> Iterator[None]:
    torch._dynamo.reset()
    with torch.no_grad(), config.patch(fx_graph_cache=False, compile_threads=1, force_pointwise_cat=pointwise_cat):
        yield
    torch._dynamo.reset()


def _kernels(graph: Any) -> tuple[InductorKernel, ...]:
    found = []
    for node in graph.scheduler.nodes:
        buffers = node.get_read_write_buffer_accesses(include_reads=True, include_writes=True)
        parts = [part.node for part in node.get_nodes() if part.node is not None]
        ops = {str(o.target).removeprefix("aten.") for part in parts for o in part.origins if o.op == "call_function"}
        found.append(InductorKernel(tuple(sorted(ops)), dict(buffers), node.is_extern()))
    return tuple(found)
