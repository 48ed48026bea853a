"""What ranks exchange, in the recorded graph: plain groups of ranks where torch has process groups."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import fx

from fxmeter.tracer.graph.group import Group
from fxmeter.tracer.private import OpOverload, on_demand

_NAMESPACES = ("c10d", "_c10d_functional")


def name_groups(graph: fx.Graph) -> None:
    """Put a Group in the place of every process group: nothing of the world that ends stays in the graph."""
    for node in graph.nodes:
        if isinstance(node.target, OpOverload) and node.target.namespace in _NAMESPACES:
            names = [argument.name for argument in node.target._schema.arguments]
            node.args = tuple(_plain(name, value) for name, value in zip(names, node.args, strict=False))
            node.kwargs = {name: _plain(name, value) for name, value in node.kwargs.items()}


def _plain(name: str, value: Any) -> Any:
    if name == "process_group":
        return _group(dist.ProcessGroup.unbox(value) if isinstance(value, torch.ScriptObject) else value)
    if name == "group_name":
        return _group(on_demand("_resolve_process_group")(value) if isinstance(value, str) else value)
    return "sum" if isinstance(value, torch.ScriptObject) else value


def _group(group: dist.ProcessGroup) -> Group:
    return Group(tuple(dist.get_process_group_ranks(group)))
