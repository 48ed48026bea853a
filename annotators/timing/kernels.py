"""A priced pass as the kernels that a device runs: what each computes, in which dtype, and what it moves.

A kernel is a fusion group, a matrix product, an attention core or a collective. Two rules go beyond the fusion groups
of :mod:`fxmeter.annotators.pricing.fusion`, as every serving engine has them: products of one activation with
several weights (query, key and value; gate and up) are one kernel that reads the activation once; and an attention
core computes what its mask lets through.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
import torch
from torch import fx

from fxmeter.annotators.pricing.graph import PricedNode, priced_node
from fxmeter.annotators.timing.kernel import Form, Kernel, Kind
from fxmeter.models.stage_cost import Size, StageCost, is_nothing
from fxmeter.tracer.capture.recording import Recording
from fxmeter.tracer.graph.group import Group
from fxmeter.tracer.graph.nodes import executed, meta_of, specs_of
from fxmeter.tracer.graph.spec import Spec
from fxmeter.tracer.operators.ops import cache_append, flash_attention

DTYPES: Mapping[torch.dtype, str] = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float8_e4m3fn: "fp8",
    torch.float8_e5m2: "fp8",
    torch.int8: "int8",
    torch.complex64: "fp32",
    torch.complex128: "fp64",
}
"""Names of dtypes in device files."""


@dataclass(slots=True)
class _Parts:
    """Ops that share a launch, and bytes that they would read twice."""

    names: list[str]
    saved: Any = 0


def kernels_of(
    recording: Recording, graph: nx.DiGraph, *, fused: bool = True, full: nx.DiGraph | None = None
) -> tuple[Kernel, ...]:
    """The kernels of a priced pass in program order; views and other free ops run nothing.

    Without ``fused`` every op is a kernel of its own, as PyTorch runs a model that is not compiled. A cache then grows
    by being copied, while every engine appends to it in place, and a windowed core is given a mask and computes every
    pair, as in the graph ``full``.
    """
    nodes = {node.name: node for node in executed(recording.graph)}
    found = []
    for parts in _launches(nodes, graph, fused):
        masked = full is not None and not fused and _is_windowed(nodes[parts.names[0]])
        kernel = _kernel(parts, nodes, full if masked and full is not None else graph, fused)
        found.append(replace(kernel, form="masked") if masked else kernel)
    return tuple(found)


_WINDOW = [argument.name for argument in flash_attention._schema.arguments].index("window")


def _is_windowed(node: fx.Node) -> bool:
    """Whether it is an attention core whose queries look back so far and no further."""
    return node.target is flash_attention and node.args[_WINDOW] is not None


def weights_read_by(recording: Recording, graph: nx.DiGraph) -> tuple[Any, ...]:
    """Bytes of weights that each kernel of :func:`kernels_of` reads, fused."""
    nodes = {node.name: node for node in executed(recording.graph)}
    launches = _launches(nodes, graph, fused=True)
    return tuple(sum(priced_node(graph, name).cost.weight_read_bytes for name in parts.names) for parts in launches)


def _launches(nodes: Mapping[str, fx.Node], graph: nx.DiGraph, fused: bool) -> list[_Parts]:
    """The ops of each launch, in program order."""
    groups: dict[Any, _Parts] = {}
    for name, node in nodes.items():
        priced = priced_node(graph, name)
        if priced.group is None:
            continue
        key, shared = _sibling(node, priced) if fused else (name, 0)
        if key in groups:
            groups[key].names.append(name)
            groups[key].saved = groups[key].saved + shared
        else:
            groups[key] = _Parts([name])
    return list(groups.values())


def _sibling(node: fx.Node, priced: PricedNode) -> tuple[Any, Any]:
    """What ops of one launch have in common, and the bytes that a second one of them need not read again.

    A product of an activation and a weight belongs to the others of that activation; any other op to its group.
    """
    if not is_nothing(priced.cost.matmul_flops) and len(priced.operands) == 2:
        left, right = priced.operands
        if left.role == "activation" and right.role == "weight":
            place = (left.storage.id, left.offset, str(left.numel))
            return ("product", meta_of(node).calls, str(node.target), place), left.distinct_bytes
    return ("group", priced.group), 0


def _kernel(parts: _Parts, nodes: Mapping[str, fx.Node], graph: nx.DiGraph, fused: bool) -> Kernel:
    priced = [priced_node(graph, name) for name in parts.names]
    cost = StageCost.total(node.cost for node in priced)
    first = nodes[parts.names[0]]
    op = priced[0].op
    product = not is_nothing(cost.matmul_flops)
    if not is_nothing(cost.network_bytes):
        kind: Kind = "collective"
    else:
        kind = "attention" if product and "attention" in op else "product" if product else "elementwise"
    form, rows = _form(priced[0], product)
    return Kernel(
        name=parts.names[0],
        op=op,
        module=priced[0].module,
        times=priced[0].times,
        kind=kind,
        dtype=_dtype(first),
        matmul_flops=cost.matmul_flops,
        vector_flops=cost.vector_flops,
        nbytes=cost.fused_io_bytes - parts.saved if fused else _op_bytes(first, priced[0]),
        network_bytes=cost.network_bytes,
        ranks=_ranks(first),
        widened=product and any(map(_is_packed, priced[0].operands)),
        form=form,
        rows=rows,
        made_bytes=0 if fused else sum(map(_made_bytes, priced)),
    )


_MULTIPLIED = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2), "_grouped_mm": (0, 1)}
"""Places of the two matrices among the operands of products."""


def _form(node: PricedNode, product: bool) -> tuple[Form, Size]:
    """How a product's operands lie in memory, and how many rows go through its right one."""
    name = node.op.split(".")[1]
    if name == "cache_append":
        return "cache", 0
    if product and "attention" in name:
        return "attention", node.operands[0].shape[-2]
    if not product or name not in _MULTIPLIED or len(node.operands) <= max(_MULTIPLIED[name]):
        return "", 0
    left, right = (node.operands[place] for place in _MULTIPLIED[name])
    transposed = _is_one(right.strides[-2]) and not _is_one(right.strides[-1])
    if name == "_grouped_mm":  # one product after the other, each with the rows of its expert
        return "mm_t" if transposed else "mm", left.shape[-2] // right.shape[0]
    if len(right.shape) == 2:
        return "mm_t" if transposed else "mm", left.shape[-2]
    return "bmm_t" if transposed else "bmm", left.shape[-2]


def _is_one(stride: Size) -> bool:
    return isinstance(stride, int) and stride == 1


def _op_bytes(node: fx.Node, priced: PricedNode) -> Size:
    """What an op moves when it runs by itself."""
    if node.target is cache_append:
        return 2 * sum(spec.nbytes for spec in priced.results)
    return priced.cost.io_bytes


def _made_bytes(node: PricedNode) -> Size:
    """What an op allocates for what it returns."""
    held = {spec.storage.id for spec in node.operands}
    return sum({spec.storage.id: spec.storage.nbytes for spec in node.results if spec.storage.id not in held}.values())


def _ranks(node: fx.Node) -> tuple[int, ...]:
    """Who takes part in a collective; nobody in any other op."""
    values: tuple[Any, ...] = node.args
    return next((value.ranks for value in values if isinstance(value, Group)), ())


def _is_packed(spec: Spec) -> bool:
    """A weight in a format that no unit multiplies as it is."""
    return spec.role == "weight" and spec.storage.ratio is not None and not spec.storage.computes


def _dtype(node: fx.Node) -> str:
    """The dtype that an op computes in: what a weight's storage format says, else that of its first floating-point
    operand, else of its result."""
    for source in node.all_input_nodes:
        for spec in specs_of(source):
            if spec.storage.computes:
                return spec.storage.computes
    for spec in _floating(node):
        return DTYPES.get(spec.dtype, "fp32")
    return "fp32"


def _floating(node: fx.Node) -> Iterator[Spec]:
    for source in (*node.all_input_nodes, node):
        yield from (spec for spec in specs_of(source) if spec.is_float)
